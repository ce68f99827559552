//! Normalisation over groups of channels, over rows, and over a batch.

use rayon::prelude::*;

use super::{Float, Isa, add_up, dispatch, sums, uninit};
use crate::kernels::pointwise::{sigmoid, silu_derivative};
use crate::ops::Activation;

/// Mean and reciprocal standard deviation, in pairs.
pub(crate) type Moments = Vec<(f64, f64)>;

/// Gradients with respect to the input, the scale and the shift.
pub(crate) struct Gradients<T> {
    pub(crate) x: Vec<T>,
    pub(crate) gamma: Vec<T>,
    pub(crate) beta: Vec<T>,
}

// ---- pieces

#[inline(always)]
fn moments_body<I: Isa, T: Float>(x: &[T]) -> (f64, f64) {
    let n = x.len() as f64;
    let [sum] = sums([x], |[v]| [v]);
    let mean = T::of(sum / n);
    let [squares] = sums([x], |[v]| [(v - mean) * (v - mean)]);
    (mean.to_f64(), squares)
}

#[inline(always)]
fn square_mean_body<I: Isa, T: Float>(x: &[T]) -> f64 {
    let [s] = sums([x], |[v]| [v * v]);
    s / x.len() as f64
}

#[inline(always)]
fn affine_body<I: Isa, T: Float>(x: &[T], scale: T, shift: T, activation: Activation, y: &mut [T]) {
    match activation {
        Activation::Identity => {
            for (y, x) in y.iter_mut().zip(x) {
                *y = I::fma(*x, scale, shift);
            }
        }
        Activation::Silu => {
            for (y, x) in y.iter_mut().zip(x) {
                let z = I::fma(*x, scale, shift);
                *y = z * sigmoid::<I, T>(z);
            }
        }
    }
}

/// Gradient of the affine map's output in `d`, and `(Σ d, Σ d · (x − mean) · rstd)`.
#[inline(always)]
fn affine_gradient_body<I: Isa, T: Float>(
    x: &[T],
    gy: &[T],
    (scale, shift): (T, T),
    (mean, rstd): (T, T),
    activation: Activation,
    d: &mut [T],
) -> (f64, f64) {
    match activation {
        Activation::Identity => d.copy_from_slice(gy),
        Activation::Silu => {
            for ((d, x), g) in d.iter_mut().zip(x).zip(gy) {
                *d = *g * silu_derivative::<I, T>(I::fma(*x, scale, shift));
            }
        }
    }
    let [sum, product] = sums([x, d], |[x, d]| [d, d * ((x - mean) * rstd)]);
    (sum, product)
}

/// `d ← a · d + b · x + c`.
#[inline(always)]
fn combine_body<I: Isa, T: Float>(x: &[T], a: T, b: T, c: T, d: &mut [T]) {
    for (d, x) in d.iter_mut().zip(x) {
        *d = I::fma(a, *d, I::fma(b, *x, c));
    }
}

#[inline(always)]
fn row_body<I: Isa, T: Float>(x: &[T], (mean, rstd): (T, T), gamma: &[T], beta: Option<&[T]>, y: &mut [T]) {
    match beta {
        Some(beta) => {
            for (((y, x), g), b) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
                *y = I::fma((*x - mean) * rstd, *g, *b);
            }
        }
        None => {
            for ((y, x), g) in y.iter_mut().zip(x).zip(gamma) {
                *y = (*x - mean) * rstd * *g;
            }
        }
    }
}

/// One row's input gradient; its contribution to the gradients of `gamma` and `beta` is added.
#[inline(always)]
fn row_gradient_body<I: Isa, T: Float>(
    x: &[T],
    gy: &[T],
    (mean, rstd): (T, T),
    gamma: &[T],
    centered: bool,
    dx: &mut [T],
    dgamma: &mut [T],
    dbeta: &mut [T],
) {
    let n = x.len() as f64;
    let [sum, product] = sums([x, gy, gamma], |[x, gy, gamma]| {
        let g = gy * gamma;
        [g, g * ((x - mean) * rstd)]
    });
    let (sum, product) = (T::of(if centered { sum / n } else { 0.0 }), T::of(product / n));
    for ((dx, x), (gy, gamma)) in dx.iter_mut().zip(x).zip(gy.iter().zip(gamma)) {
        let normal = (*x - mean) * rstd;
        *dx = rstd * (*gy * *gamma - sum - normal * product);
    }
    for ((dg, db), (x, gy)) in dgamma.iter_mut().zip(dbeta).zip(x.iter().zip(gy)) {
        *dg += *gy * ((*x - mean) * rstd);
        *db += *gy;
    }
}

dispatch! {
    /// Mean and sum of squared deviations of a slice.
    fn moments<T>(x: &[T]) -> (f64, f64) = moments_body;
    fn square_mean<T>(x: &[T]) -> f64 = square_mean_body;
    fn affine<T>(x: &[T], scale: T, shift: T, activation: Activation, y: &mut [T]) = affine_body;
    fn affine_gradient<T>(
        x: &[T], gy: &[T], affine: (T, T), moments: (T, T), activation: Activation, d: &mut [T]
    ) -> (f64, f64) = affine_gradient_body;
    fn combine<T>(x: &[T], a: T, b: T, c: T, d: &mut [T]) = combine_body;
    fn row<T>(x: &[T], moments: (T, T), gamma: &[T], beta: Option<&[T]>, y: &mut [T]) = row_body;
    fn row_gradient<T>(
        x: &[T], gy: &[T], moments: (T, T), gamma: &[T], centered: bool, dx: &mut [T], dgamma: &mut [T], dbeta: &mut [T]
    ) = row_gradient_body;
}

/// `scale` and `shift` of the affine map that normalises and then applies `gamma` and `beta`.
fn fold<T: Float>((mean, rstd): (f64, f64), gamma: T, beta: T) -> (T, T) {
    let scale = rstd * gamma.to_f64();
    (T::of(scale), T::of(beta.to_f64() - mean * scale))
}

fn narrow<T: Float>((mean, rstd): (f64, f64)) -> (T, T) {
    (T::of(mean), T::of(rstd))
}

// ---- groups of channels

/// Sizes of a group normalisation of `[batch, channels, positions]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups {
    pub(crate) channels: usize,
    pub(crate) positions: usize,
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    pub(crate) activation: Activation,
}

impl Groups {
    fn per_group(&self) -> usize {
        self.channels / self.groups
    }
    fn image(&self) -> usize {
        self.channels * self.positions
    }
    /// Images of one task.
    fn images(&self) -> usize {
        (32 * 1024 / self.image()).max(1)
    }
}

/// `activation(gamma · (x − mean) / sd + beta)` with the moments of each group of each image.
pub(crate) fn group_forward<T: Float>(s: &Groups, x: &[T], gamma: &[T], beta: &[T]) -> (Vec<T>, Moments) {
    let mut y = uninit(x.len());
    let mut moments_of = vec![(0.0, 0.0); x.len() / s.image() * s.groups];
    let size = s.per_group() * s.positions;
    y.par_chunks_mut(s.images() * s.image())
        .zip(x.par_chunks(s.images() * s.image()))
        .zip(moments_of.par_chunks_mut(s.images() * s.groups))
        .for_each(|((y, x), saved)| {
            for (i, ((y, x), saved)) in y.chunks_exact_mut(size).zip(x.chunks_exact(size)).zip(saved).enumerate() {
                let (mean, squares) = moments(x);
                *saved = (mean, 1.0 / (squares / size as f64 + s.eps).sqrt());
                let first = i % s.groups * s.per_group();
                for (c, (y, x)) in y.chunks_exact_mut(s.positions).zip(x.chunks_exact(s.positions)).enumerate() {
                    let (scale, shift) = fold(*saved, gamma[first + c], beta[first + c]);
                    affine(x, scale, shift, s.activation, y);
                }
            }
        });
    (y, moments_of)
}

/// The gradients of [`group_forward`].
pub(crate) fn group_backward<T: Float>(
    s: &Groups,
    x: &[T],
    gamma: &[T],
    beta: &[T],
    saved: &[(f64, f64)],
    gy: &[T],
) -> Gradients<T> {
    let mut dx = uninit(x.len());
    let task = s.images() * s.image();
    let parts: Vec<(Vec<T>, Vec<T>)> = dx
        .par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .zip(gy.par_chunks(task))
        .zip(saved.par_chunks(s.images() * s.groups))
        .map(|(((dx, x), gy), saved)| {
            let (mut dgamma, mut dbeta) = (vec![T::ZERO; s.channels], vec![T::ZERO; s.channels]);
            group_backward_images(s, x, gamma, beta, saved, gy, dx, &mut dgamma, &mut dbeta);
            (dgamma, dbeta)
        })
        .collect();
    let (gammas, betas) = parts.into_iter().unzip();
    Gradients { x: dx, gamma: add_up(gammas), beta: add_up(betas) }
}

#[allow(clippy::too_many_arguments)]
fn group_backward_images<T: Float>(
    s: &Groups,
    x: &[T],
    gamma: &[T],
    beta: &[T],
    saved: &[(f64, f64)],
    gy: &[T],
    dx: &mut [T],
    dgamma: &mut [T],
    dbeta: &mut [T],
) {
    let (p, size) = (s.positions, s.per_group() * s.positions);
    for (i, saved) in saved.iter().enumerate() {
        let first = i % s.groups * s.per_group();
        let (mean, rstd) = narrow::<T>(*saved);
        let (mut sum, mut product) = (0.0, 0.0);
        for c in first..first + s.per_group() {
            let at = i * size + (c - first) * p..i * size + (c - first + 1) * p;
            let (x, gy, d) = (&x[at.clone()], &gy[at.clone()], &mut dx[at]);
            let folded = fold(*saved, gamma[c], beta[c]);
            let (b, g) = affine_gradient(x, gy, folded, (mean, rstd), s.activation, d);
            dbeta[c] += T::of(b);
            dgamma[c] += T::of(g);
            sum += b * gamma[c].to_f64();
            product += g * gamma[c].to_f64();
        }
        let (sum, product) = (T::of(sum / size as f64), T::of(product / size as f64));
        for c in first..first + s.per_group() {
            let at = i * size + (c - first) * p..i * size + (c - first + 1) * p;
            let slope = T::ZERO - rstd * rstd * product;
            combine(&x[at.clone()], rstd * gamma[c], slope, T::ZERO - rstd * sum - slope * mean, &mut dx[at]);
        }
    }
}

// ---- rows

/// Sizes of a normalisation of each row of `[rows, width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) width: usize,
    pub(crate) eps: f64,
    /// Whether the mean is subtracted (layer normalisation) or not (root-mean-square normalisation).
    pub(crate) centered: bool,
}

impl Rows {
    fn block(&self) -> usize {
        (32 * 1024 / self.width).max(1)
    }
}

/// `gamma · (x − mean) / sd + beta` for each row.
pub(crate) fn row_forward<T: Float>(s: &Rows, x: &[T], gamma: &[T], beta: Option<&[T]>) -> (Vec<T>, Moments) {
    let mut y = uninit(x.len());
    let mut saved = vec![(0.0, 0.0); x.len() / s.width];
    let task = s.block() * s.width;
    y.par_chunks_mut(task).zip(x.par_chunks(task)).zip(saved.par_chunks_mut(s.block())).for_each(|((y, x), saved)| {
        for ((y, x), saved) in y.chunks_exact_mut(s.width).zip(x.chunks_exact(s.width)).zip(saved) {
            let (mean, variance) = if s.centered {
                let (mean, squares) = moments(x);
                (mean, squares / s.width as f64)
            } else {
                (0.0, square_mean(x))
            };
            *saved = (mean, 1.0 / (variance + s.eps).sqrt());
            row(x, narrow(*saved), gamma, beta, y);
        }
    });
    (y, saved)
}

/// The gradients of [`row_forward`].
pub(crate) fn row_backward<T: Float>(s: &Rows, x: &[T], gamma: &[T], saved: &[(f64, f64)], gy: &[T]) -> Gradients<T> {
    let mut dx = uninit(x.len());
    let task = s.block() * s.width;
    let parts: Vec<(Vec<T>, Vec<T>)> = dx
        .par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .zip(gy.par_chunks(task))
        .zip(saved.par_chunks(s.block()))
        .map(|(((dx, x), gy), saved)| {
            let (mut dgamma, mut dbeta) = (vec![T::ZERO; s.width], vec![T::ZERO; s.width]);
            for (i, saved) in saved.iter().enumerate() {
                let at = i * s.width..(i + 1) * s.width;
                let (x, gy, dx) = (&x[at.clone()], &gy[at.clone()], &mut dx[at]);
                row_gradient(x, gy, narrow(*saved), gamma, s.centered, dx, &mut dgamma, &mut dbeta);
            }
            (dgamma, dbeta)
        })
        .collect();
    let (gammas, betas) = parts.into_iter().unzip();
    Gradients { x: dx, gamma: add_up(gammas), beta: add_up(betas) }
}

// ---- a batch

/// Mean and (biased) variance of each channel of `[batch, channels, positions]`.
pub(crate) fn channel_moments<T: Float>(x: &[T], channels: usize, positions: usize) -> Vec<(f64, f64)> {
    let batch = x.len() / (channels * positions);
    let n = positions as f64;
    (0..channels)
        .into_par_iter()
        .map(|c| {
            let plane = |b: usize| moments(&x[(b * channels + c) * positions..][..positions]);
            let planes: Vec<(f64, f64)> = (0..batch).map(plane).collect();
            let mean = planes.iter().map(|(m, _)| m).sum::<f64>() / batch as f64;
            let squares: f64 = planes.iter().map(|(m, s)| s + n * (m - mean) * (m - mean)).sum();
            (mean, squares / (n * batch as f64))
        })
        .collect()
}

/// `activation(gamma · (x − mean) · rstd + beta)` with given moments of each channel.
pub(crate) fn channel_forward<T: Float>(
    x: &[T],
    positions: usize,
    gamma: &[T],
    beta: &[T],
    saved: &[(f64, f64)],
    activation: Activation,
) -> Vec<T> {
    let channels = gamma.len();
    let mut y = uninit(x.len());
    let task = planes_per_task(positions);
    y.par_chunks_mut(task * positions).zip(x.par_chunks(task * positions)).enumerate().for_each(|(t, (y, x))| {
        for (i, (y, x)) in y.chunks_exact_mut(positions).zip(x.chunks_exact(positions)).enumerate() {
            let c = (t * task + i) % channels;
            let (scale, shift) = fold(saved[c], gamma[c], beta[c]);
            affine(x, scale, shift, activation, y);
        }
    });
    y
}

fn planes_per_task(positions: usize) -> usize {
    (super::BLOCK / positions).max(1)
}

/// The gradients of [`channel_forward`]; `batch_statistics` says whether the moments depend on `x`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn channel_backward<T: Float>(
    x: &[T],
    positions: usize,
    gamma: &[T],
    beta: &[T],
    saved: &[(f64, f64)],
    activation: Activation,
    batch_statistics: bool,
    gy: &[T],
) -> Gradients<T> {
    let channels = gamma.len();
    let n = (x.len() / channels) as f64;
    let mut dx = uninit(x.len());
    let task = planes_per_task(positions);
    // The gradient of the affine map's output, and each plane's two sums.
    let sums: Vec<(f64, f64)> = dx
        .par_chunks_mut(task * positions)
        .zip(x.par_chunks(task * positions))
        .zip(gy.par_chunks(task * positions))
        .enumerate()
        .flat_map_iter(|(t, ((d, x), gy))| {
            let planes = d.chunks_exact_mut(positions).zip(x.chunks_exact(positions)).zip(gy.chunks_exact(positions));
            planes.enumerate().map(move |(i, ((d, x), gy))| {
                let c = (t * task + i) % channels;
                affine_gradient(x, gy, fold(saved[c], gamma[c], beta[c]), narrow(saved[c]), activation, d)
            })
        })
        .collect();
    let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
    for (i, (b, g)) in sums.iter().enumerate() {
        dbeta[i % channels] += b;
        dgamma[i % channels] += g;
    }
    dx.par_chunks_mut(task * positions).zip(x.par_chunks(task * positions)).enumerate().for_each(|(t, (d, x))| {
        for (i, (d, x)) in d.chunks_exact_mut(positions).zip(x.chunks_exact(positions)).enumerate() {
            let c = (t * task + i) % channels;
            let (mean, rstd) = saved[c];
            let scale = rstd * gamma[c].to_f64();
            let (slope, shift) = if batch_statistics {
                let slope = -scale * rstd * dgamma[c] / n;
                (slope, -scale * dbeta[c] / n - slope * mean)
            } else {
                (0.0, 0.0)
            };
            if batch_statistics {
                combine(x, T::of(scale), T::of(slope), T::of(shift), d);
            } else {
                let scale = T::of(scale);
                d.iter_mut().for_each(|d| *d *= scale);
            }
        }
    });
    let narrow = |v: Vec<f64>| v.into_iter().map(T::of).collect();
    Gradients { x: dx, gamma: narrow(dgamma), beta: narrow(dbeta) }
}
