//! A branch that is added with a gate for each of its channels.

use rayon::prelude::*;

use super::{Float, Isa, dispatch, uninit};

#[inline(always)]
fn add_gated_body<I: Isa, T: Float>(x: &[T], branch: &[T], gate: &[T], y: &mut [T]) {
    let rows = y.chunks_exact_mut(gate.len()).zip(x.chunks_exact(gate.len())).zip(branch.chunks_exact(gate.len()));
    for ((y, x), branch) in rows {
        for (((y, x), b), g) in y.iter_mut().zip(x).zip(branch).zip(gate) {
            *y = I::fma(*b, *g, *x);
        }
    }
}

/// Write the gradient of the branch, add that of the gate.
#[inline(always)]
fn gradients_body<I: Isa, T: Float>(branch: &[T], gate: &[T], gy: &[T], d_branch: &mut [T], d_gate: &mut [T]) {
    let n = gate.len();
    let rows = d_branch.chunks_exact_mut(n).zip(branch.chunks_exact(n)).zip(gy.chunks_exact(n));
    for ((d_branch, branch), gy) in rows {
        for ((((d_b, d_g), b), g), gy) in d_branch.iter_mut().zip(d_gate.iter_mut()).zip(branch).zip(gate).zip(gy) {
            *d_b = *gy * *g;
            *d_g = I::fma(*gy, *b, *d_g);
        }
    }
}

dispatch! {
    fn add_gated_rows<T>(x: &[T], branch: &[T], gate: &[T], y: &mut [T]) = add_gated_body;
    fn gradients_of_rows<T>(
        branch: &[T], gate: &[T], gy: &[T], d_branch: &mut [T], d_gate: &mut [T]
    ) = gradients_body;
}

/// `x + branch · gate` for `[B, L, width]` and gates `[B, width]`.
pub(crate) fn add_gated<T: Float>(x: &[T], branch: &[T], gate: &[T], width: usize) -> Vec<T> {
    let item = x.len() / (gate.len() / width);
    let mut y = uninit(x.len());
    y.par_chunks_mut(item)
        .zip(x.par_chunks(item).zip(branch.par_chunks(item)))
        .zip(gate.par_chunks(width))
        .for_each(|((y, (x, branch)), gate)| add_gated_rows(x, branch, gate, y));
    y
}

/// The gradients of [`add_gated`] with respect to the branch and the gates.
pub(crate) fn add_gated_gradients<T: Float>(branch: &[T], gate: &[T], gy: &[T], width: usize) -> (Vec<T>, Vec<T>) {
    let item = gy.len() / (gate.len() / width);
    let (mut d_branch, mut d_gate) = (uninit(gy.len()), vec![T::ZERO; gate.len()]);
    d_branch
        .par_chunks_mut(item)
        .zip(d_gate.par_chunks_mut(width))
        .zip(branch.par_chunks(item).zip(gy.par_chunks(item)))
        .zip(gate.par_chunks(width))
        .for_each(|(((d_branch, d_gate), (branch, gy)), gate)| gradients_of_rows(branch, gate, gy, d_branch, d_gate));
    (d_branch, d_gate)
}
