//! `x · wᵀ + bias` and its gradients.

use rayon::prelude::*;

use super::{Float, Mat, add_up, parallel_gemm, uninit};

/// `x · wᵀ + bias`.
pub(crate) fn forward<T: Float>(x: &[T], w: &[T], bias: Option<&[T]>, inputs: usize, outputs: usize) -> Vec<T> {
    let rows = x.len() / inputs;
    let mut y = uninit(rows * outputs);
    if let Some(bias) = bias {
        let task = super::BLOCK.div_ceil(outputs) * outputs;
        y.par_chunks_mut(task).flat_map_iter(|y| y.chunks_exact_mut(outputs)).for_each(|row| row.copy_from_slice(bias));
    }
    let (x, w) = (Mat::rows(x, inputs), Mat::rows(w, inputs).t());
    parallel_gemm(rows, outputs, inputs, x, w, &mut y, outputs, bias.is_some());
    y
}

/// `gy · w`.
pub(crate) fn data_gradient<T: Float>(gy: &[T], w: &[T], inputs: usize, outputs: usize) -> Vec<T> {
    let rows = gy.len() / outputs;
    let mut dx = uninit(rows * inputs);
    let (gy, w) = (Mat::rows(gy, outputs), Mat::rows(w, inputs));
    parallel_gemm(rows, inputs, outputs, gy, w, &mut dx, inputs, false);
    dx
}

/// `gyᵀ · x`.
pub(crate) fn weight_gradient<T: Float>(x: &[T], gy: &[T], inputs: usize, outputs: usize) -> Vec<T> {
    let rows = x.len() / inputs;
    let mut dw = uninit(outputs * inputs);
    let (gy, x) = (Mat::rows(gy, outputs).t(), Mat::rows(x, inputs));
    parallel_gemm(outputs, inputs, rows, gy, x, &mut dw, inputs, false);
    dw
}

/// Sum of each of `columns` columns.
pub(crate) fn column_sums<T: Float>(y: &[T], columns: usize) -> Vec<T> {
    let rows = (super::BLOCK / columns).max(1);
    let parts = y
        .par_chunks(rows * columns)
        .map(|block| {
            let mut sums = vec![T::ZERO; columns];
            for row in block.chunks_exact(columns) {
                sums.iter_mut().zip(row).for_each(|(s, v)| *s += *v);
            }
            sums
        })
        .collect();
    add_up(parts)
}
