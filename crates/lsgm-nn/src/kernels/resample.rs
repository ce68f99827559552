//! Nearest up-sampling and average pooling: each is the other's transpose up to a factor.

use rayon::prelude::*;

use super::pointwise::{dot, sigmoid, total};
use super::{BLOCK, Float, Plain, uninit};

/// Every element of the `rows × width` planes repeated `factor.0` times down and `factor.1` times across, times
/// `weight`.
pub(crate) fn spread<T: Float>(x: &[T], (rows, width): (usize, usize), factor: (usize, usize), weight: T) -> Vec<T> {
    let (plane, wide) = (rows * width, width * factor.1);
    let large = rows * factor.0 * wide;
    let mut y = uninit(x.len() * factor.0 * factor.1);
    let planes = (BLOCK / large).max(1);
    y.par_chunks_mut(planes * large).zip(x.par_chunks(planes * plane)).for_each(|(y, x)| {
        for (block, row) in y.chunks_exact_mut(factor.0 * wide).zip(x.chunks_exact(width)) {
            let (first, others) = block.split_at_mut(wide);
            for (to, v) in first.chunks_exact_mut(factor.1).zip(row) {
                to.fill(*v * weight);
            }
            others.chunks_exact_mut(wide).for_each(|to| to.copy_from_slice(first));
        }
    });
    y
}

/// The sum over each `factor.0 × factor.1` window of the `rows × width` planes, times `weight`.
pub(crate) fn pool<T: Float>(x: &[T], (rows, width): (usize, usize), factor: (usize, usize), weight: T) -> Vec<T> {
    let (plane, narrow) = (rows * width, width / factor.1);
    let small = rows / factor.0 * narrow;
    let mut y = uninit(x.len() / (factor.0 * factor.1));
    let planes = (BLOCK / plane).max(1);
    y.par_chunks_mut(planes * small).zip(x.par_chunks(planes * plane)).for_each(|(y, x)| {
        for (to, block) in y.chunks_exact_mut(narrow).zip(x.chunks_exact(factor.0 * width)) {
            to.fill(T::ZERO);
            for row in block.chunks_exact(width) {
                for (to, window) in to.iter_mut().zip(row.chunks_exact(factor.1)) {
                    if factor.1 < 16 {
                        window.iter().for_each(|v| *to += *v);
                    } else {
                        *to += T::of(total(window));
                    }
                }
            }
            to.iter_mut().for_each(|v| *v *= weight);
        }
    });
    y
}

/// `x · sigmoid(logit)` with one logit for each of equally long runs of `x`.
pub(crate) fn gate<T: Float>(x: &[T], logits: &[T]) -> Vec<T> {
    scaled_gate(x, logits, T::ONE)
}

/// `scale · x · sigmoid(logit)`.
pub(crate) fn scaled_gate<T: Float>(x: &[T], logits: &[T], scale: T) -> Vec<T> {
    let p = x.len() / logits.len();
    let planes = (BLOCK / p).max(1);
    let mut y = uninit(x.len());
    y.par_chunks_mut(planes * p).zip(x.par_chunks(planes * p)).zip(logits.par_chunks(planes)).for_each(
        |((y, x), logits)| {
            for ((y, x), l) in y.chunks_exact_mut(p).zip(x.chunks_exact(p)).zip(logits) {
                let s = scale * sigmoid::<Plain, T>(*l);
                y.iter_mut().zip(x).for_each(|(y, x)| *y = *x * s);
            }
        },
    );
    y
}

/// `skip + scale · x · sigmoid(logit)`.
pub(crate) fn add_gated<T: Float>(skip: &[T], x: &[T], logits: &[T], scale: T) -> Vec<T> {
    let p = x.len() / logits.len();
    let planes = (BLOCK / p).max(1);
    let mut y = uninit(x.len());
    y.par_chunks_mut(planes * p)
        .zip(skip.par_chunks(planes * p).zip(x.par_chunks(planes * p)))
        .zip(logits.par_chunks(planes))
        .for_each(|((y, (skip, x)), logits)| {
            let runs = y.chunks_exact_mut(p).zip(skip.chunks_exact(p)).zip(x.chunks_exact(p));
            for (((y, skip), x), l) in runs.zip(logits) {
                let s = scale * sigmoid::<Plain, T>(*l);
                y.iter_mut().zip(skip).zip(x).for_each(|((y, skip), x)| *y = *skip + *x * s);
            }
        });
    y
}

/// The gradient of [`gate`] with respect to the logits.
pub(crate) fn gate_gradient<T: Float>(x: &[T], logits: &[T], gy: &[T]) -> Vec<T> {
    let p = x.len() / logits.len();
    let planes = (BLOCK / p).max(1);
    let mut d = uninit(logits.len());
    d.par_chunks_mut(planes)
        .zip(logits.par_chunks(planes))
        .zip(x.par_chunks(planes * p).zip(gy.par_chunks(planes * p)))
        .for_each(|((d, logits), (x, gy))| {
            for (((d, l), x), gy) in d.iter_mut().zip(logits).zip(x.chunks_exact(p)).zip(gy.chunks_exact(p)) {
                let s = sigmoid::<Plain, T>(*l);
                *d = T::of(dot(x, gy)) * s * (T::ONE - s);
            }
        });
    d
}
