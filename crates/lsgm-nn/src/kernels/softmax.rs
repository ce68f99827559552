//! Softmax and its logarithm over rows.

use rayon::prelude::*;

use super::{Float, Isa, dispatch, max, sums, uninit};

/// Softmax in place; returns the logarithm of the sum of exponentials.
#[inline(always)]
fn softmax_body<I: Isa, T: Float>(x: &mut [T]) -> T {
    let shift = max(x);
    exp_shifted_body::<I, T>(x, shift);
    let [total] = sums([&*x], |[v]| [v]);
    let total = T::of(total);
    let scale = T::ONE / total;
    for v in x.iter_mut() {
        *v *= scale;
    }
    shift + total.ln()
}

/// The logarithm of the sum of exponentials.
#[inline(always)]
fn log_sum_exp_body<I: Isa, T: Float>(x: &[T]) -> T {
    let shift = max(x);
    let [total] = sums([x], |[v]| [(v - shift).exp::<I>()]);
    shift + T::of(total).ln()
}

#[inline(always)]
fn softmax_gradient_body<I: Isa, T: Float>(y: &[T], gy: &[T], dx: &mut [T]) {
    let [dot] = sums([y, gy], |[y, g]| [y * g]);
    let dot = T::of(dot);
    for ((d, y), g) in dx.iter_mut().zip(y).zip(gy) {
        *d = *y * (*g - dot);
    }
}

#[inline(always)]
fn log_softmax_gradient_body<I: Isa, T: Float>(y: &[T], gy: &[T], dx: &mut [T]) {
    let [total] = sums([gy], |[g]| [g]);
    let total = T::of(total);
    for ((d, y), g) in dx.iter_mut().zip(y).zip(gy) {
        *d = *g - y.exp::<I>() * total;
    }
}

/// `x ← exp(x − shift)`.
#[inline(always)]
fn exp_shifted_body<I: Isa, T: Float>(x: &mut [T], shift: T) {
    for v in x.iter_mut() {
        *v = (*v - shift).exp::<I>();
    }
}

dispatch! {
    /// Softmax of a row in place; returns the logarithm of the sum of exponentials.
    fn softmax_row<T>(x: &mut [T]) -> T = softmax_body;
    fn log_sum_exp<T>(x: &[T]) -> T = log_sum_exp_body;
    fn softmax_gradient_row<T>(y: &[T], gy: &[T], dx: &mut [T]) = softmax_gradient_body;
    fn log_softmax_gradient_row<T>(y: &[T], gy: &[T], dx: &mut [T]) = log_softmax_gradient_body;
    fn exp_shifted<T>(x: &mut [T], shift: T) = exp_shifted_body;
}

fn task(width: usize) -> usize {
    (super::BLOCK / width).max(1) * width
}

/// Softmax of each row.
pub(crate) fn softmax<T: Float>(x: &[T], width: usize) -> Vec<T> {
    let mut y = uninit(x.len());
    y.par_chunks_mut(task(width)).zip(x.par_chunks(task(width))).for_each(|(y, x)| {
        y.copy_from_slice(x);
        for row in y.chunks_exact_mut(width) {
            softmax_row(row);
        }
    });
    y
}

/// Logarithm of the softmax of each row.
pub(crate) fn log_softmax<T: Float>(x: &[T], width: usize) -> Vec<T> {
    let mut y = uninit(x.len());
    y.par_chunks_mut(task(width)).zip(x.par_chunks(task(width))).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let total = log_sum_exp(x);
            y.iter_mut().zip(x).for_each(|(y, x)| *y = *x - total);
        }
    });
    y
}

/// The gradient of [`softmax`] from its result.
pub(crate) fn softmax_gradient<T: Float>(y: &[T], gy: &[T], width: usize) -> Vec<T> {
    rows(y, gy, width, softmax_gradient_row)
}

/// The gradient of [`log_softmax`] from its result.
pub(crate) fn log_softmax_gradient<T: Float>(y: &[T], gy: &[T], width: usize) -> Vec<T> {
    rows(y, gy, width, log_softmax_gradient_row)
}

fn rows<T: Float>(y: &[T], gy: &[T], width: usize, f: fn(&[T], &[T], &mut [T])) -> Vec<T> {
    let mut dx = uninit(y.len());
    let task = task(width);
    dx.par_chunks_mut(task).zip(y.par_chunks(task)).zip(gy.par_chunks(task)).for_each(|((d, y), g)| {
        for ((d, y), g) in d.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(g.chunks_exact(width)) {
            f(y, g, d);
        }
    });
    dx
}
