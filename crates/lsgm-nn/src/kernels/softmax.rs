//! Softmax and its logarithm over rows.

use rayon::prelude::*;

use super::{Float, Isa, dispatch, max, sums_in, uninit};

/// Divide exponentials by their sum; returns the sum.
#[inline(always)]
fn normalise<I: Isa, T: Float>(exponentials: &mut [T]) -> T {
    let [total] = sums_in::<I, _, _, _>([&*exponentials], |[v]| [v]);
    let total = T::of(total);
    let scale = T::ONE / total;
    for v in exponentials.iter_mut() {
        *v *= scale;
    }
    total
}

#[inline(always)]
fn softmax_body<I: Isa, T: Float>(x: &[T], width: usize, y: &mut [T]) {
    for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let shift = max::<I, T>(x);
        for (y, x) in y.iter_mut().zip(x) {
            *y = (*x - shift).exp::<I>();
        }
        normalise::<I, T>(y);
    }
}

#[inline(always)]
fn softmax_in_place_body<I: Isa, T: Float>(x: &mut [T], width: usize, scale: T, log_sums: &mut [T]) {
    for (x, log_sum) in x.chunks_exact_mut(width).zip(log_sums) {
        for v in x.iter_mut() {
            *v *= scale;
        }
        let shift = max::<I, T>(x);
        for v in x.iter_mut() {
            *v = (*v - shift).exp::<I>();
        }
        *log_sum = shift + normalise::<I, T>(x).ln();
    }
}

#[inline(always)]
fn log_softmax_body<I: Isa, T: Float>(x: &[T], width: usize, y: &mut [T]) {
    for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let shift = max::<I, T>(x);
        let [total] = sums_in::<I, _, _, _>([x], |[v]| [(v - shift).exp::<I>()]);
        let total = shift + T::of(total).ln();
        for (y, x) in y.iter_mut().zip(x) {
            *y = *x - total;
        }
    }
}

#[inline(always)]
fn softmax_gradient_body<I: Isa, T: Float>(y: &[T], gy: &[T], width: usize, dx: &mut [T]) {
    for ((d, y), gy) in dx.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(gy.chunks_exact(width)) {
        let [dot] = sums_in::<I, _, _, _>([y, gy], |[y, g]| [y * g]);
        let dot = T::of(dot);
        for ((d, y), g) in d.iter_mut().zip(y).zip(gy) {
            *d = *y * (*g - dot);
        }
    }
}

#[inline(always)]
fn log_softmax_gradient_body<I: Isa, T: Float>(y: &[T], gy: &[T], width: usize, dx: &mut [T]) {
    for ((d, y), gy) in dx.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(gy.chunks_exact(width)) {
        let [total] = sums_in::<I, _, _, _>([gy], |[g]| [g]);
        let total = T::of(total);
        for ((d, y), g) in d.iter_mut().zip(y).zip(gy) {
            *d = *g - y.exp::<I>() * total;
        }
    }
}

#[inline(always)]
fn exp_scaled_body<I: Isa, T: Float>(x: &mut [T], width: usize, scale: T, log_sums: &[T]) {
    for (x, log_sum) in x.chunks_exact_mut(width).zip(log_sums) {
        for v in x.iter_mut() {
            *v = (scale * *v - *log_sum).exp::<I>();
        }
    }
}

#[inline(always)]
fn score_gradient_body<I: Isa, T: Float>(
    p: &[T],
    width: usize,
    (y, gy): (&[T], &[T]),
    dim: usize,
    scale: T,
    dp: &mut [T],
) {
    let rows = dp.chunks_exact_mut(width).zip(p.chunks_exact(width));
    for ((dp, p), (y, gy)) in rows.zip(y.chunks_exact(dim).zip(gy.chunks_exact(dim))) {
        let [dot] = sums_in::<I, _, _, _>([y, gy], |[y, g]| [y * g]);
        let dot = T::of(dot);
        for (dp, p) in dp.iter_mut().zip(p) {
            *dp = *p * (*dp - dot) * scale;
        }
    }
}

dispatch! {
    fn softmax_rows<T>(x: &[T], width: usize, y: &mut [T]) = softmax_body;
    /// `softmax(scale · x)` of each row in place, and the logarithm of its sum of exponentials.
    fn softmax_in_place<T>(x: &mut [T], width: usize, scale: T, log_sums: &mut [T]) = softmax_in_place_body;
    fn log_softmax_rows<T>(x: &[T], width: usize, y: &mut [T]) = log_softmax_body;
    /// The gradient of the softmax of each row, from its result.
    fn softmax_gradient_rows<T>(y: &[T], gy: &[T], width: usize, dx: &mut [T]) = softmax_gradient_body;
    fn log_softmax_gradient_rows<T>(y: &[T], gy: &[T], width: usize, dx: &mut [T]) = log_softmax_gradient_body;
    /// `exp(scale · x − log_sum)` of each row in place: the softmax again, from its logarithm of the sum.
    fn exp_scaled<T>(x: &mut [T], width: usize, scale: T, log_sums: &[T]) = exp_scaled_body;
    /// `dp ← scale · p · (dp − y·gy)` for each row: the gradient of the scores of an attention from that of its
    /// weights `p`, with the `dim` elements of its output `y` and of the output's gradient `gy`.
    fn score_gradient<T>(
        p: &[T], width: usize, output: (&[T], &[T]), dim: usize, scale: T, dp: &mut [T]
    ) = score_gradient_body;
}

/// Elements of a task: whole rows.
fn task(width: usize) -> usize {
    (super::BLOCK / width).max(1) * width
}

/// Softmax of each row.
pub(crate) fn softmax<T: Float>(x: &[T], width: usize) -> Vec<T> {
    let mut y = uninit(x.len());
    y.par_chunks_mut(task(width)).zip(x.par_chunks(task(width))).for_each(|(y, x)| softmax_rows(x, width, y));
    y
}

/// Logarithm of the softmax of each row.
pub(crate) fn log_softmax<T: Float>(x: &[T], width: usize) -> Vec<T> {
    let mut y = uninit(x.len());
    y.par_chunks_mut(task(width)).zip(x.par_chunks(task(width))).for_each(|(y, x)| log_softmax_rows(x, width, y));
    y
}

/// The gradient of [`softmax`] from its result.
pub(crate) fn softmax_gradient<T: Float>(y: &[T], gy: &[T], width: usize) -> Vec<T> {
    blocks(y, gy, width, softmax_gradient_rows)
}

/// The gradient of [`log_softmax`] from its result.
pub(crate) fn log_softmax_gradient<T: Float>(y: &[T], gy: &[T], width: usize) -> Vec<T> {
    blocks(y, gy, width, log_softmax_gradient_rows)
}

fn blocks<T: Float>(y: &[T], gy: &[T], width: usize, f: fn(&[T], &[T], usize, &mut [T])) -> Vec<T> {
    let mut dx = uninit(y.len());
    let task = task(width);
    dx.par_chunks_mut(task)
        .zip(y.par_chunks(task))
        .zip(gy.par_chunks(task))
        .for_each(|((d, y), gy)| f(y, gy, width, d));
    dx
}
