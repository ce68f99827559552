//! Gaussians on their way to N(0, I), in the form in which their logarithms are linear, with the derivatives.

use rayon::prelude::*;

use super::{Float, Isa, dispatch, uninit};

/// Precisions that are multiplied before a logarithm is taken: so many of any that `f32` can hold stay within `f64`.
const FACTORS: usize = 8;

/// Rows of one task.
const ROWS: usize = 128;

/// A moment of the diffusion: `m_t` and `σ_t²`.
pub(crate) type Moment = (f64, f64);

#[inline(always)]
fn exp_body<I: Isa, T: Float>(x: &[T], y: &mut [T]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = x.exp::<I>();
    }
}

/// `m c / v`, `1 / v` and `ln π - ½ Σ (m² c² / v + ln v)`, one after another, of one Gaussian at one moment.
#[inline(always)]
fn value_body<I: Isa, T: Float>((m, noise): Moment, means: &[T], variances: &[T], log_share: T, y: &mut [T]) {
    let (m, noise, square) = (T::of(m), T::of(noise), T::of(m * m));
    let (pulls, rest) = y.split_at_mut(means.len());
    let (precisions, offset) = rest.split_at_mut(means.len());
    let mut squares = T::ZERO;
    for (((pull, precision), c), v) in pulls.iter_mut().zip(precisions.iter_mut()).zip(means).zip(variances) {
        *precision = T::ONE / I::fma(square, *v, noise);
        *pull = m * *c * *precision;
        squares = I::fma(m * *c, *pull, squares);
    }
    let product = |p: &[T]| p.iter().map(|p| p.to_f64()).product::<f64>();
    let log_precision: f64 = precisions.chunks(FACTORS).map(|p| product(p).ln()).sum();
    offset[0] = T::of(log_share.to_f64() + 0.5 * (log_precision - squares.to_f64()));
}

/// What the gradient `g` of a value `y` adds to those of the means and of the logarithms of the variances.
#[inline(always)]
fn gradient_body<I: Isa, T: Float>((m, _): Moment, y: &[T], g: &[T], variances: &[T], d: (&mut [T], &mut [T])) {
    let (m, square, width) = (T::of(m), T::of(m * m), variances.len());
    let (pulls, precisions) = (&y[..width], &y[width..2 * width]);
    let (of_pulls, of_precisions, of_offset) = (&g[..width], &g[width..2 * width], g[2 * width]);
    let half = T::of(0.5) * of_offset;
    for i in 0..width {
        let (pull, p) = (pulls[i], precisions[i]);
        d.0[i] += m * I::fma(T::ZERO - of_offset, pull, of_pulls[i] * p);
        // By the variance of the diffused Gaussian.
        let by_variance = half * I::fma(pull, pull, T::ZERO - p) - p * I::fma(of_pulls[i], pull, of_precisions[i] * p);
        d.1[i] += by_variance * square * variances[i];
    }
}

dispatch! {
    fn exp_row<T>(x: &[T], y: &mut [T]) = exp_body;
    fn value_row<T>(moment: Moment, means: &[T], variances: &[T], log_share: T, y: &mut [T]) = value_body;
    fn gradient_row<T>(moment: Moment, y: &[T], g: &[T], variances: &[T], d: (&mut [T], &mut [T])) = gradient_body;
}

fn exponentials<T: Float>(x: &[T]) -> Vec<T> {
    let mut y = uninit(x.len());
    exp_row(x, &mut y);
    y
}

/// Rows of `2 · width + 1` for every moment and Gaussian, from means and logarithms of variances `[K, width]`.
pub(crate) fn value<T: Float>(
    means: &[T],
    log_variance: &[T],
    log_shares: &[T],
    moments: &[Moment],
    width: usize,
) -> Vec<T> {
    let (count, columns) = (log_shares.len(), 2 * width + 1);
    let variances = exponentials(log_variance);
    let mut y = uninit(moments.len() * count * columns);
    y.par_chunks_mut(columns).enumerate().with_min_len(ROWS).for_each(|(row, y)| {
        let (moment, k) = (moments[row / count], row % count);
        let places = k * width..(k + 1) * width;
        value_row(moment, &means[places.clone()], &variances[places], log_shares[k], y);
    });
    y
}

/// The gradients of means, logarithms of variances, and logarithms of shares.
pub(crate) fn gradients<T: Float>(
    log_variance: &[T],
    y: &[T],
    g: &[T],
    moments: &[Moment],
    width: usize,
) -> (Vec<T>, Vec<T>, Vec<T>) {
    let (count, columns) = (log_variance.len() / width, 2 * width + 1);
    let variances = exponentials(log_variance);
    let mut means = vec![T::ZERO; count * width];
    let mut logs = vec![T::ZERO; count * width];
    let mut shares = vec![T::ZERO; count];
    let rows = means.par_chunks_mut(width).zip(logs.par_chunks_mut(width)).zip(&mut shares);
    rows.enumerate().with_min_len(ROWS).for_each(|(k, ((means, logs), share))| {
        let variances = &variances[k * width..(k + 1) * width];
        for (b, moment) in moments.iter().enumerate() {
            let places = (b * count + k) * columns..(b * count + k + 1) * columns;
            let (y, g) = (&y[places.clone()], &g[places]);
            gradient_row(*moment, y, g, variances, (&mut *means, &mut *logs));
            *share += g[columns - 1];
        }
    });
    (means, logs, shares)
}
