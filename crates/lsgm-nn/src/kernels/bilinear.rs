//! Bilinear interpolation.

use rayon::prelude::*;

use super::{Float, uninit};

/// Where each of `outputs` positions lies between `inputs` ones, first on first and last on last: the neighbour below,
/// the one above, and the share of the latter.
pub(crate) fn stencil<T: Float>(inputs: usize, outputs: usize) -> Vec<(usize, usize, T)> {
    let step = (inputs - 1) as f64 / (outputs - 1).max(1) as f64;
    (0..outputs)
        .map(|i| {
            let at = step * i as f64;
            let below = (at.floor() as usize).min(inputs - 1);
            (below, (below + 1).min(inputs - 1), T::of(at - below as f64))
        })
        .collect()
}

/// Planes of `h × w` to planes of `factor·h × factor·w`.
pub(crate) fn spread<T: Float>(x: &[T], (h, w): (usize, usize), factor: usize) -> Vec<T> {
    let (rows, columns) = (stencil::<T>(h, factor * h), stencil::<T>(w, factor * w));
    let mut y = uninit(x.len() * factor * factor);
    y.par_chunks_mut(h * w * factor * factor).zip(x.par_chunks(h * w)).for_each(|(y, x)| {
        let mut wide = Vec::with_capacity(h * columns.len());
        for row in x.chunks_exact(w) {
            wide.extend(columns.iter().map(|&(a, b, share)| row[a] + (row[b] - row[a]) * share));
        }
        let line = |i: usize| &wide[i * columns.len()..][..columns.len()];
        for (y, &(a, b, share)) in y.chunks_exact_mut(columns.len()).zip(&rows) {
            for ((y, a), b) in y.iter_mut().zip(line(a)).zip(line(b)) {
                *y = *a + (*b - *a) * share;
            }
        }
    });
    y
}

/// The gradient of [`spread`]: its transpose.
pub(crate) fn gather<T: Float>(gy: &[T], (h, w): (usize, usize), factor: usize) -> Vec<T> {
    let (rows, columns) = (stencil::<T>(h, factor * h), stencil::<T>(w, factor * w));
    let mut dx = vec![T::ZERO; gy.len() / (factor * factor)];
    dx.par_chunks_mut(h * w).zip(gy.par_chunks(h * w * factor * factor)).for_each(|(dx, gy)| {
        let width = columns.len();
        let mut wide = vec![T::ZERO; h * width];
        for (gy, &(a, b, share)) in gy.chunks_exact(width).zip(&rows) {
            for (to, share) in [(a, T::ONE - share), (b, share)] {
                for (d, g) in wide[to * width..][..width].iter_mut().zip(gy) {
                    *d += *g * share;
                }
            }
        }
        for (dx, line) in dx.chunks_exact_mut(w).zip(wide.chunks_exact(width)) {
            for (g, &(a, b, share)) in line.iter().zip(&columns) {
                dx[a] += *g * (T::ONE - share);
                dx[b] += *g * share;
            }
        }
    });
    dx
}
