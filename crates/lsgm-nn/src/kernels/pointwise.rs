//! Elementwise functions with their derivatives, and plain sums.

use rayon::prelude::*;

use super::{BLOCK, Float, Isa, dispatch, register_sums, sums_in, uninit};

/// A function of one variable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Function {
    Relu,
    Silu,
    Gelu,
    Elu,
    Softplus,
    Sigmoid,
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn sigmoid<I: Isa, T: Float>(x: T) -> T {
    T::ONE / (T::ONE + (T::ZERO - x).exp::<I>())
}

/// `ln(1 + exp(x))`, stable for every `x`.
#[inline(always)]
pub(crate) fn softplus<I: Isa, T: Float>(x: T) -> T {
    let tail = (T::ZERO - x.abs()).exp::<I>().ln_1p_unit::<I>();
    (if x > T::ZERO { x } else { T::ZERO }) + tail
}

/// The standard Normal distribution function.
#[inline(always)]
fn normal_cdf<I: Isa, T: Float>(x: T) -> T {
    T::of(0.5) * (T::ONE + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf::<I>())
}

/// `exp(x) - 1` for `x <= 0`; near zero the difference would lose its digits.
#[inline(always)]
fn exp_m1<I: Isa, T: Float>(x: T) -> T {
    let series = x * (T::ONE + x * (T::of(0.5) + x * (T::of(1.0 / 6.0) + x * T::of(1.0 / 24.0))));
    if x > T::of(-1e-2) && T::DTYPE == candle_core::DType::F32 { series } else { x.exp::<I>() - T::ONE }
}

#[inline(always)]
fn map<I: Isa, T: Float>(x: &[T], y: &mut [T], f: impl Fn(T) -> T) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = f(*x);
    }
}

#[inline(always)]
fn value_body<I: Isa, T: Float>(function: Function, x: &[T], y: &mut [T]) {
    match function {
        Function::Relu => map::<I, T>(x, y, |x| if x < T::ZERO { T::ZERO } else { x }),
        Function::Silu => map::<I, T>(x, y, |x| x * sigmoid::<I, T>(x)),
        Function::Gelu => map::<I, T>(x, y, |x| x * normal_cdf::<I, T>(x)),
        Function::Elu => map::<I, T>(x, y, |x| if x > T::ZERO { x } else { exp_m1::<I, T>(x) }),
        Function::Softplus => map::<I, T>(x, y, softplus::<I, T>),
        Function::Sigmoid => map::<I, T>(x, y, sigmoid::<I, T>),
    }
}

#[inline(always)]
fn chain<I: Isa, T: Float>(x: &[T], gy: &[T], dx: &mut [T], f: impl Fn(T) -> T) {
    for ((d, x), g) in dx.iter_mut().zip(x).zip(gy) {
        *d = *g * f(*x);
    }
}

/// The derivative of `x · sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu_derivative<I: Isa, T: Float>(x: T) -> T {
    let s = sigmoid::<I, T>(x);
    s * (T::ONE + x * (T::ONE - s))
}

#[inline(always)]
fn gradient_body<I: Isa, T: Float>(function: Function, x: &[T], gy: &[T], dx: &mut [T]) {
    match function {
        Function::Relu => chain::<I, T>(x, gy, dx, |x| {
            if x > T::ZERO {
                T::ONE
            } else if x.is_nan() {
                x
            } else {
                T::ZERO
            }
        }),
        Function::Silu => chain::<I, T>(x, gy, dx, silu_derivative::<I, T>),
        Function::Gelu => chain::<I, T>(x, gy, dx, |x| {
            let density = (x * x * T::of(-0.5)).exp::<I>() * T::of(0.398_942_280_401_432_7);
            normal_cdf::<I, T>(x) + x * density
        }),
        Function::Elu => chain::<I, T>(x, gy, dx, |x| if x > T::ZERO { T::ONE } else { x.exp::<I>() }),
        Function::Softplus => chain::<I, T>(x, gy, dx, sigmoid::<I, T>),
        Function::Sigmoid => chain::<I, T>(x, gy, dx, |x| {
            let s = sigmoid::<I, T>(x);
            s * (T::ONE - s)
        }),
    }
}

#[inline(always)]
fn total_body<I: Isa, T: Float>(x: &[T]) -> f64 {
    let [total] = register_sums::<I, T, _, _>([x], [T::ZERO], |simd, [x], [sum]| [T::plus(simd, sum, x)]);
    total
}

#[inline(always)]
pub(super) fn dot_body<I: Isa, T: Float>(x: &[T], y: &[T]) -> f64 {
    let [total] = register_sums::<I, T, _, _>([x, y], [T::ZERO; 2], |simd, [x, y], [sum]| [T::fma(simd, x, y, sum)]);
    total
}

#[inline(always)]
pub(super) fn square_sum_body<I: Isa, T: Float>(x: &[T]) -> f64 {
    let [total] = register_sums::<I, T, _, _>([x], [T::ZERO], |simd, [x], [sum]| [T::fma(simd, x, x, sum)]);
    total
}

#[inline(always)]
fn bernoulli_body<I: Isa, T: Float>(logits: &[T], x: &[T]) -> f64 {
    let [s] = sums_in::<I, _, _, _>([logits, x], |[l, x]| [x * l - softplus::<I, T>(l)]);
    s
}

#[inline(always)]
fn bernoulli_logits_body<I: Isa, T: Float>(logits: &[T], x: &[T], g: T, d: &mut [T]) {
    for ((d, l), x) in d.iter_mut().zip(logits).zip(x) {
        *d = g * (*x - sigmoid::<I, T>(*l));
    }
}

dispatch! {
    fn value_block<T>(function: Function, x: &[T], y: &mut [T]) = value_body;
    fn gradient_block<T>(function: Function, x: &[T], gy: &[T], dx: &mut [T]) = gradient_body;
    /// The sum of a slice.
    fn total<T>(x: &[T]) -> f64 = total_body;
    /// The scalar product of two slices.
    fn dot<T>(x: &[T], y: &[T]) -> f64 = dot_body;
    /// The sum of squares of a slice.
    fn square_sum<T>(x: &[T]) -> f64 = square_sum_body;
    /// `Σ x·l − softplus(l)` of a slice.
    fn bernoulli_block<T>(logits: &[T], x: &[T]) -> f64 = bernoulli_body;
    /// `g · (x − sigmoid(l))`.
    fn bernoulli_logits_block<T>(logits: &[T], x: &[T], g: T, d: &mut [T]) = bernoulli_logits_body;
}

/// `f(x)` elementwise.
pub(crate) fn value<T: Float>(function: Function, x: &[T]) -> Vec<T> {
    let mut y = uninit(x.len());
    y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| value_block(function, x, y));
    y
}

/// `gy · f'(x)` elementwise.
pub(crate) fn gradient<T: Float>(function: Function, x: &[T], gy: &[T]) -> Vec<T> {
    let mut dx = uninit(x.len());
    dx.par_chunks_mut(BLOCK)
        .zip(x.par_chunks(BLOCK))
        .zip(gy.par_chunks(BLOCK))
        .for_each(|((d, x), g)| gradient_block(function, x, g, d));
    dx
}

/// The sum of squares in `f64`, the same for any number of threads.
pub(crate) fn square_norm<T: Float>(x: &[T]) -> f64 {
    let blocks: Vec<f64> = x.par_chunks(BLOCK).map(square_sum).collect();
    blocks.iter().sum()
}
