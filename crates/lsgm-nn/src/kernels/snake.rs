//! The snake activation, `x + sin²(αx) / α`, with its two derivatives.

use rayon::prelude::*;

use super::{Float, Isa, dispatch, sums_in, uninit};

/// The Taylor coefficients of `sin(r) / r` and `cos(r)` in `r²`: at ±π/2 they are exact to the last digits of `f32`.
const SIN: [f64; 7] =
    [1.0, -1.0 / 6.0, 1.0 / 120.0, -1.0 / 5040.0, 1.0 / 362_880.0, -1.0 / 39_916_800.0, 1.605_904_4e-10];
const COS: [f64; 8] =
    [1.0, -0.5, 1.0 / 24.0, -1.0 / 720.0, 1.0 / 40_320.0, -1.0 / 3_628_800.0, 1.0 / 479_001_600.0, -1.147_074_6e-11];

#[inline(always)]
fn polynomial<I: Isa, T: Float, const N: usize>(coefficients: &[f64; N], x: T) -> T {
    let mut sum = T::ZERO;
    for c in coefficients.iter().rev() {
        sum = I::fma(sum, x, T::of(*c));
    }
    sum
}

/// `sin²(x)` and `sin(2x)`, both of period π. In `f32` in a form that vectorises, for |x| up to about 10⁵.
#[inline(always)]
fn sines<I: Isa, T: Float>(x: T) -> (T, T) {
    let (sin, cos) = if T::DTYPE == candle_core::DType::F32 {
        let round = T::of(12_582_912.0); // 1.5 · 2^23: adding it rounds to an integer.
        let n = I::fma(x, T::of(std::f64::consts::FRAC_1_PI), round) - round;
        // π in three parts, of which the first has few digits: the products are exact.
        let r = I::fma(n, T::of(-3.140_625), x);
        let r = I::fma(n, T::of(-9.670_257_568_359_375e-4), r);
        let r = I::fma(n, T::of(-6.277_114_152_908_325e-7), r);
        let r2 = r * r;
        (r * polynomial::<I, T, 7>(&SIN, r2), polynomial::<I, T, 8>(&COS, r2))
    } else {
        let (sin, cos) = x.to_f64().sin_cos();
        (T::of(sin), T::of(cos))
    };
    (sin * sin, T::of(2.0) * sin * cos)
}

#[inline(always)]
fn value_body<I: Isa, T: Float>(alpha: T, x: &[T], y: &mut [T]) {
    let inverse = T::ONE / alpha;
    for (y, x) in y.iter_mut().zip(x) {
        let (square, _) = sines::<I, T>(alpha * *x);
        *y = I::fma(square, inverse, *x);
    }
}

#[inline(always)]
fn input_body<I: Isa, T: Float>(alpha: T, x: &[T], gy: &[T], dx: &mut [T]) {
    for ((d, x), g) in dx.iter_mut().zip(x).zip(gy) {
        let (_, double) = sines::<I, T>(alpha * *x);
        *d = I::fma(*g, double, *g);
    }
}

#[inline(always)]
fn alpha_body<I: Isa, T: Float>(alpha: T, x: &[T], gy: &[T]) -> f64 {
    let inverse = T::ONE / alpha;
    let [sum] = sums_in::<I, _, _, _>([x, gy], |[x, g]| {
        let (square, double) = sines::<I, T>(alpha * x);
        [g * inverse * (x * double - square * inverse)]
    });
    sum
}

dispatch! {
    fn value_row<T>(alpha: T, x: &[T], y: &mut [T]) = value_body;
    fn input_row<T>(alpha: T, x: &[T], gy: &[T], dx: &mut [T]) = input_body;
    fn alpha_row<T>(alpha: T, x: &[T], gy: &[T]) -> f64 = alpha_body;
}

/// `x + sin²(αx) / α` for rows of `width` elements, one for each channel in turn.
pub(crate) fn value<T: Float>(x: &[T], alpha: &[T], width: usize) -> Vec<T> {
    let mut y = uninit(x.len());
    let rows = y.par_chunks_mut(width).zip(x.par_chunks(width)).enumerate();
    rows.for_each(|(row, (y, x))| value_row(alpha[row % alpha.len()], x, y));
    y
}

/// The gradient of the input.
pub(crate) fn input_gradient<T: Float>(x: &[T], alpha: &[T], gy: &[T], width: usize) -> Vec<T> {
    let mut dx = uninit(x.len());
    let rows = dx.par_chunks_mut(width).zip(x.par_chunks(width)).zip(gy.par_chunks(width)).enumerate();
    rows.for_each(|(row, ((d, x), g))| input_row(alpha[row % alpha.len()], x, g, d));
    dx
}

/// The gradient of α, added up over the rows of each channel in their order.
pub(crate) fn alpha_gradient<T: Float>(x: &[T], alpha: &[T], gy: &[T], width: usize) -> Vec<T> {
    let rows: Vec<f64> = x
        .par_chunks(width)
        .zip(gy.par_chunks(width))
        .enumerate()
        .map(|(row, (x, g))| alpha_row(alpha[row % alpha.len()], x, g))
        .collect();
    (0..alpha.len()).map(|c| T::of(rows.iter().skip(c).step_by(alpha.len()).sum())).collect()
}
