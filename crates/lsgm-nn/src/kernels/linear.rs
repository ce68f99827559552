//! `x · wᵀ + bias` and its gradients.

use rayon::prelude::*;

use super::{Float, Mat, add_up, gemm, uninit};

/// Rows of one task: about `2^22` multiplications, whatever the number of threads.
fn rows_per_task(rows: usize, inputs: usize, outputs: usize) -> usize {
    ((1 << 22) / (inputs * outputs)).next_multiple_of(16).min(rows).max(1)
}

/// `x · wᵀ + bias`.
pub(crate) fn forward<T: Float>(x: &[T], w: &[T], bias: Option<&[T]>, inputs: usize, outputs: usize) -> Vec<T> {
    let rows = x.len() / inputs;
    let task = rows_per_task(rows, inputs, outputs);
    let mut y = uninit(rows * outputs);
    y.par_chunks_mut(task * outputs).zip(x.par_chunks(task * inputs)).for_each(|(y, x)| {
        let m = x.len() / inputs;
        if let Some(bias) = bias {
            y.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(bias));
        }
        gemm(m, outputs, inputs, Mat::rows(x, inputs), Mat::rows(w, inputs).t(), y, outputs, bias.is_some());
    });
    y
}

/// `gy · w`.
pub(crate) fn data_gradient<T: Float>(gy: &[T], w: &[T], inputs: usize, outputs: usize) -> Vec<T> {
    let rows = gy.len() / outputs;
    let task = rows_per_task(rows, inputs, outputs);
    let mut dx = uninit(rows * inputs);
    dx.par_chunks_mut(task * inputs).zip(gy.par_chunks(task * outputs)).for_each(|(dx, gy)| {
        let m = gy.len() / outputs;
        gemm(m, inputs, outputs, Mat::rows(gy, outputs), Mat::rows(w, inputs), dx, inputs, false);
    });
    dx
}

/// `gyᵀ · x`.
pub(crate) fn weight_gradient<T: Float>(x: &[T], gy: &[T], inputs: usize, outputs: usize) -> Vec<T> {
    let rows = x.len() / inputs;
    let task = outputs.div_ceil(8).next_multiple_of(16);
    let mut dw = uninit(outputs * inputs);
    dw.par_chunks_mut(task * inputs).enumerate().for_each(|(i, dw)| {
        let m = dw.len() / inputs;
        let gy = Mat { data: &gy[i * task..], row: outputs, col: 1 }.t();
        gemm(m, inputs, rows, gy, Mat::rows(x, inputs), dw, inputs, false);
    });
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
