//! Normalisation over groups of channels, over rows, and over a batch.

use rayon::prelude::*;

use super::{Float, Isa, add_up, dispatch, register_sums, uninit};
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
    let [sum] = register_sums::<I, T, _, _>([x], [T::ZERO], |simd, [x], [sum]| [T::plus(simd, sum, x)]);
    let mean = T::of(sum / n);
    let [squares] = register_sums::<I, T, _, _>([x], [mean], |simd, [x], [sum]| {
        let d = T::minus(simd, x, T::splat(simd, mean));
        [T::fma(simd, d, d, sum)]
    });
    (mean.to_f64(), squares)
}

#[inline(always)]
fn square_mean_body<I: Isa, T: Float>(x: &[T]) -> f64 {
    let [sum] = register_sums::<I, T, _, _>([x], [T::ZERO], |simd, [x], [sum]| [T::fma(simd, x, x, sum)]);
    sum / x.len() as f64
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

/// `(Σ d, Σ d · (x − mean) · rstd)` for the gradient `d` of the affine map's output: with an activation it is written to
/// `d`, else it is `gy` itself and `d` is left alone.
#[inline(always)]
fn affine_gradient_body<I: Isa, T: Float>(
    x: &[T],
    gy: &[T],
    (scale, shift): (T, T),
    (mean, rstd): (T, T),
    activation: Activation,
    d: &mut [T],
) -> (f64, f64) {
    let d: &[T] = match activation {
        Activation::Identity => gy,
        Activation::Silu => {
            for ((d, x), g) in d.iter_mut().zip(x).zip(gy) {
                *d = *g * silu_derivative::<I, T>(I::fma(*x, scale, shift));
            }
            d
        }
    };
    let [sum, product] = register_sums::<I, T, _, _>([x, d], [mean, T::ZERO], |simd, [x, d], [sum, product]| {
        let deviation = T::minus(simd, x, T::splat(simd, mean));
        [T::plus(simd, sum, d), T::fma(simd, d, deviation, product)]
    });
    (sum, product * rstd.to_f64())
}

/// `d ← a · g + b · x + c` where `g` is what [`affine_gradient_body`] has left: `d` with an activation, else `gy`.
#[inline(always)]
fn combine_body<I: Isa, T: Float>(x: &[T], gy: &[T], activation: Activation, (a, b, c): (T, T, T), d: &mut [T]) {
    match activation {
        Activation::Identity => {
            for ((d, x), g) in d.iter_mut().zip(x).zip(gy) {
                *d = I::fma(a, *g, I::fma(b, *x, c));
            }
        }
        Activation::Silu => {
            for (d, x) in d.iter_mut().zip(x) {
                *d = I::fma(a, *d, I::fma(b, *x, c));
            }
        }
    }
}

/// `d ← a · g`, see [`combine_body`]: an infinite `x` does not count.
#[inline(always)]
fn scale_body<I: Isa, T: Float>(gy: &[T], activation: Activation, a: T, d: &mut [T]) {
    match activation {
        Activation::Identity => d.iter_mut().zip(gy).for_each(|(d, g)| *d = *g * a),
        Activation::Silu => d.iter_mut().for_each(|d| *d *= a),
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
    let filler = [mean, T::ZERO, T::ZERO];
    let [sum, product] = register_sums::<I, T, _, _>([x, gy, gamma], filler, |simd, [x, gy, gamma], [sum, product]| {
        let g = T::times(simd, gy, gamma);
        let deviation = T::minus(simd, x, T::splat(simd, mean));
        [T::plus(simd, sum, g), T::fma(simd, g, deviation, product)]
    });
    let (sum, product) = (T::of(if centered { sum / n } else { 0.0 }), T::of(product * rstd.to_f64() / n));
    let inputs = x.iter().zip(gy).zip(gamma);
    for (((x, gy), gamma), ((dx, dg), db)) in inputs.zip(dx.iter_mut().zip(dgamma).zip(dbeta)) {
        let normal = (*x - mean) * rstd;
        *dx = rstd * (*gy * *gamma - sum - normal * product);
        *dg += *gy * normal;
        *db += *gy;
    }
}

dispatch! {
    /// Mean and sum of squared deviations of a slice.
    fn moments<T>(x: &[T]) -> (f64, f64) = moments_body;
    fn group_forward_images<T>(
        s: &Groups, x: &[T], affine: [&[T]; 2], saved: &mut [(f64, f64)], y: &mut [T]
    ) = group_forward_body;
    fn group_backward_images<T>(
        s: &Groups, x: &[T], affine: [&[T]; 2], saved: &[(f64, f64)], gy: &[T], dx: &mut [T], sums: [&mut [T]; 2]
    ) = group_backward_body;
    fn row_forward_block<T>(
        s: &Rows, x: &[T], gamma: &[T], beta: Option<&[T]>, saved: &mut [(f64, f64)], y: &mut [T]
    ) = row_forward_body;
    fn row_backward_block<T>(
        s: &Rows, x: &[T], gamma: &[T], saved: &[(f64, f64)], gy: &[T], dx: &mut [T], sums: [&mut [T]; 2]
    ) = row_backward_body;
    fn channel_forward_planes<T>(
        s: &Channels<'_>, x: &[T], affine: [&[T]; 2], first: usize, y: &mut [T]
    ) = channel_forward_body;
    fn channel_sums_planes<T>(
        s: &Channels<'_>, x: &[T], affine: [&[T]; 2], gy: &[T], first: usize, d: &mut [T], sums: &mut [(f64, f64)]
    ) = channel_sums_body;
    fn channel_backward_planes<T>(
        s: &Channels<'_>, x: &[T], gy: &[T], slopes: &[(T, T, T)], first: usize, d: &mut [T]
    ) = channel_backward_body;
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

#[inline(always)]
fn group_forward_body<I: Isa, T: Float>(
    s: &Groups,
    x: &[T],
    [gamma, beta]: [&[T]; 2],
    saved: &mut [(f64, f64)],
    y: &mut [T],
) {
    let size = s.per_group() * s.positions;
    for (i, ((y, x), saved)) in y.chunks_exact_mut(size).zip(x.chunks_exact(size)).zip(saved).enumerate() {
        let (mean, squares) = moments_body::<I, T>(x);
        *saved = (mean, 1.0 / (squares / size as f64 + s.eps).sqrt());
        let first = i % s.groups * s.per_group();
        for (c, (y, x)) in y.chunks_exact_mut(s.positions).zip(x.chunks_exact(s.positions)).enumerate() {
            let (scale, shift) = fold(*saved, gamma[first + c], beta[first + c]);
            affine_body::<I, T>(x, scale, shift, s.activation, y);
        }
    }
}

/// `activation(gamma · (x − mean) / sd + beta)` with the moments of each group of each image.
pub(crate) fn group_forward<T: Float>(s: &Groups, x: &[T], gamma: &[T], beta: &[T]) -> (Vec<T>, Moments) {
    let mut y = uninit(x.len());
    let mut saved = vec![(0.0, 0.0); x.len() / s.image() * s.groups];
    let task = s.images() * s.image();
    y.par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .zip(saved.par_chunks_mut(s.images() * s.groups))
        .for_each(|((y, x), saved)| group_forward_images(s, x, [gamma, beta], saved, y));
    (y, saved)
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
            group_backward_images(s, x, [gamma, beta], saved, gy, dx, [&mut dgamma, &mut dbeta]);
            (dgamma, dbeta)
        })
        .collect();
    let (gammas, betas) = parts.into_iter().unzip();
    Gradients { x: dx, gamma: add_up(gammas), beta: add_up(betas) }
}

#[inline(always)]
fn group_backward_body<I: Isa, T: Float>(
    s: &Groups,
    x: &[T],
    [gamma, beta]: [&[T]; 2],
    saved: &[(f64, f64)],
    gy: &[T],
    dx: &mut [T],
    [dgamma, dbeta]: [&mut [T]; 2],
) {
    let (p, size) = (s.positions, s.per_group() * s.positions);
    let groups = dx.chunks_exact_mut(size).zip(x.chunks_exact(size)).zip(gy.chunks_exact(size)).zip(saved);
    for (i, (((dx, x), gy), saved)) in groups.enumerate() {
        let first = i % s.groups * s.per_group();
        let (mean, rstd) = narrow::<T>(*saved);
        let (mut sum, mut product) = (0.0, 0.0);
        let planes = dx.chunks_exact_mut(p).zip(x.chunks_exact(p)).zip(gy.chunks_exact(p));
        for (c, ((d, x), gy)) in (first..).zip(planes) {
            let folded = fold(*saved, gamma[c], beta[c]);
            let (b, g) = affine_gradient_body::<I, T>(x, gy, folded, (mean, rstd), s.activation, d);
            dbeta[c] += T::of(b);
            dgamma[c] += T::of(g);
            sum += b * gamma[c].to_f64();
            product += g * gamma[c].to_f64();
        }
        let (sum, product) = (T::of(sum / size as f64), T::of(product / size as f64));
        let slope = T::ZERO - rstd * rstd * product;
        let shift = T::ZERO - rstd * sum - slope * mean;
        let planes = dx.chunks_exact_mut(p).zip(x.chunks_exact(p)).zip(gy.chunks_exact(p));
        for (c, ((d, x), gy)) in (first..).zip(planes) {
            combine_body::<I, T>(x, gy, s.activation, (rstd * gamma[c], slope, shift), d);
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

#[inline(always)]
fn row_forward_body<I: Isa, T: Float>(
    s: &Rows,
    x: &[T],
    gamma: &[T],
    beta: Option<&[T]>,
    saved: &mut [(f64, f64)],
    y: &mut [T],
) {
    for ((y, x), saved) in y.chunks_exact_mut(s.width).zip(x.chunks_exact(s.width)).zip(saved) {
        let (mean, variance) = if s.centered {
            let (mean, squares) = moments_body::<I, T>(x);
            (mean, squares / s.width as f64)
        } else {
            (0.0, square_mean_body::<I, T>(x))
        };
        *saved = (mean, 1.0 / (variance + s.eps).sqrt());
        row_body::<I, T>(x, narrow(*saved), gamma, beta, y);
    }
}

/// `gamma · (x − mean) / sd + beta` for each row.
pub(crate) fn row_forward<T: Float>(s: &Rows, x: &[T], gamma: &[T], beta: Option<&[T]>) -> (Vec<T>, Moments) {
    let mut y = uninit(x.len());
    let mut saved = vec![(0.0, 0.0); x.len() / s.width];
    let task = s.block() * s.width;
    y.par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .zip(saved.par_chunks_mut(s.block()))
        .for_each(|((y, x), saved)| row_forward_block(s, x, gamma, beta, saved, y));
    (y, saved)
}

#[inline(always)]
fn row_backward_body<I: Isa, T: Float>(
    s: &Rows,
    x: &[T],
    gamma: &[T],
    saved: &[(f64, f64)],
    gy: &[T],
    dx: &mut [T],
    [dgamma, dbeta]: [&mut [T]; 2],
) {
    let rows = dx.chunks_exact_mut(s.width).zip(x.chunks_exact(s.width)).zip(gy.chunks_exact(s.width));
    for (((dx, x), gy), saved) in rows.zip(saved) {
        row_gradient_body::<I, T>(x, gy, narrow(*saved), gamma, s.centered, dx, dgamma, dbeta);
    }
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
            row_backward_block(s, x, gamma, saved, gy, dx, [&mut dgamma, &mut dbeta]);
            (dgamma, dbeta)
        })
        .collect();
    let (gammas, betas) = parts.into_iter().unzip();
    Gradients { x: dx, gamma: add_up(gammas), beta: add_up(betas) }
}

/// `(1 + scale) · (x − mean) / sd + shift` for each row of items `[rows, width]` with `scale` and `shift` `[width]` each.
pub(crate) fn modulated_forward<T: Float>(s: &Rows, x: &[T], scale: &[T], shift: &[T]) -> (Vec<T>, Moments) {
    let rows = x.len() / scale.len();
    let mut y = uninit(x.len());
    let mut saved = vec![(0.0, 0.0); x.len() / s.width];
    y.par_chunks_mut(rows * s.width)
        .zip(x.par_chunks(rows * s.width))
        .zip(saved.par_chunks_mut(rows))
        .zip(scale.par_chunks(s.width).zip(shift.par_chunks(s.width)))
        .for_each(|(((y, x), saved), (scale, shift))| row_forward_block(s, x, &plus_one(scale), Some(shift), saved, y));
    (y, saved)
}

/// The gradients of [`modulated_forward`]; `gamma` and `beta` are those of `scale` and `shift`.
pub(crate) fn modulated_backward<T: Float>(
    s: &Rows,
    x: &[T],
    scale: &[T],
    saved: &[(f64, f64)],
    gy: &[T],
) -> Gradients<T> {
    let rows = x.len() / scale.len();
    let (mut dx, mut dscale, mut dshift) = (uninit(x.len()), vec![T::ZERO; scale.len()], vec![T::ZERO; scale.len()]);
    dx.par_chunks_mut(rows * s.width)
        .zip(x.par_chunks(rows * s.width).zip(gy.par_chunks(rows * s.width)))
        .zip(saved.par_chunks(rows).zip(scale.par_chunks(s.width)))
        .zip(dscale.par_chunks_mut(s.width).zip(dshift.par_chunks_mut(s.width)))
        .for_each(|(((dx, (x, gy)), (saved, scale)), (dscale, dshift))| {
            row_backward_block(s, x, &plus_one(scale), saved, gy, dx, [dscale, dshift]);
        });
    Gradients { x: dx, gamma: dscale, beta: dshift }
}

fn plus_one<T: Float>(scale: &[T]) -> Vec<T> {
    scale.iter().map(|s| *s + T::ONE).collect()
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

/// What normalises planes of `positions` elements, channel after channel.
pub(crate) struct Channels<'a> {
    positions: usize,
    saved: &'a [(f64, f64)],
    activation: Activation,
}

/// Planes of a task.
fn planes_per_task(positions: usize) -> usize {
    (super::BLOCK / positions).max(1)
}

/// Planes from number `first` on.
#[inline(always)]
fn channel_forward_body<I: Isa, T: Float>(
    s: &Channels<'_>,
    x: &[T],
    [gamma, beta]: [&[T]; 2],
    first: usize,
    y: &mut [T],
) {
    for (i, (y, x)) in (first..).zip(y.chunks_exact_mut(s.positions).zip(x.chunks_exact(s.positions))) {
        let c = i % gamma.len();
        let (scale, shift) = fold(s.saved[c], gamma[c], beta[c]);
        affine_body::<I, T>(x, scale, shift, s.activation, y);
    }
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
    let s = Channels { positions, saved, activation };
    let mut y = uninit(x.len());
    let planes = planes_per_task(positions);
    let task = planes * positions;
    y.par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .enumerate()
        .for_each(|(t, (y, x))| channel_forward_planes(&s, x, [gamma, beta], t * planes, y));
    y
}

/// Each plane's two sums; see [`affine_gradient_body`].
#[inline(always)]
fn channel_sums_body<I: Isa, T: Float>(
    s: &Channels<'_>,
    x: &[T],
    [gamma, beta]: [&[T]; 2],
    gy: &[T],
    first: usize,
    d: &mut [T],
    sums: &mut [(f64, f64)],
) {
    let planes = d.chunks_exact_mut(s.positions).zip(x.chunks_exact(s.positions)).zip(gy.chunks_exact(s.positions));
    for (i, (((d, x), gy), sums)) in (first..).zip(planes.zip(sums)) {
        let c = i % gamma.len();
        let folded = fold(s.saved[c], gamma[c], beta[c]);
        *sums = affine_gradient_body::<I, T>(x, gy, folded, narrow(s.saved[c]), s.activation, d);
    }
}

/// The input's gradient from `slopes` of each channel: the factors of the output's gradient and of the input, and a
/// constant; the last two are zero where the moments are constants.
#[inline(always)]
fn channel_backward_body<I: Isa, T: Float>(
    s: &Channels<'_>,
    x: &[T],
    gy: &[T],
    slopes: &[(T, T, T)],
    first: usize,
    d: &mut [T],
) {
    let planes = d.chunks_exact_mut(s.positions).zip(x.chunks_exact(s.positions)).zip(gy.chunks_exact(s.positions));
    for (i, ((d, x), gy)) in (first..).zip(planes) {
        match slopes[i % slopes.len()] {
            (a, b, c) if b == T::ZERO && c == T::ZERO => scale_body::<I, T>(gy, s.activation, a, d),
            slopes => combine_body::<I, T>(x, gy, s.activation, slopes, d),
        }
    }
}

/// The gradients of [`channel_forward`]; `batch_statistics` says whether the moments depend on `x`.
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
    let s = Channels { positions, saved, activation };
    let channels = gamma.len();
    let mut dx = uninit(x.len());
    let planes = planes_per_task(positions);
    let task = planes * positions;
    let mut sums = vec![(0.0, 0.0); x.len() / positions];
    dx.par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .zip(gy.par_chunks(task))
        .zip(sums.par_chunks_mut(planes))
        .enumerate()
        .for_each(|(t, (((d, x), gy), sums))| channel_sums_planes(&s, x, [gamma, beta], gy, t * planes, d, sums));
    let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
    for (i, (b, g)) in sums.iter().enumerate() {
        dbeta[i % channels] += b;
        dgamma[i % channels] += g;
    }
    let n = (x.len() / channels) as f64;
    let slopes = |c: usize| {
        let (mean, rstd) = saved[c];
        let scale = rstd * gamma[c].to_f64();
        let slope = if batch_statistics { -scale * rstd * dgamma[c] / n } else { 0.0 };
        let shift = if batch_statistics { -scale * dbeta[c] / n - slope * mean } else { 0.0 };
        (T::of(scale), T::of(slope), T::of(shift))
    };
    let slopes: Vec<(T, T, T)> = (0..channels).map(slopes).collect();
    dx.par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .zip(gy.par_chunks(task))
        .enumerate()
        .for_each(|(t, ((d, x), gy))| channel_backward_planes(&s, x, gy, &slopes, t * planes, d));
    let narrow = |v: Vec<f64>| v.into_iter().map(T::of).collect();
    Gradients { x: dx, gamma: narrow(dgamma), beta: narrow(dbeta) }
}
