//! Self-attention of queries, keys and values that lie beside each other, as one linear layer makes them.

use std::sync::OnceLock;

use candle_core::{Shape, Tensor};
use lsgm_core::Result;
use rayon::prelude::*;

use super::attention::attention;
use super::custom::{Op, View, apply1, fault, has_kernel};
use super::rotary::{Rotary, rotary};
use crate::kernels::attention::{Sizes, backward, forward};
use crate::kernels::{Float, uninit};

/// `softmax(scale · q · kᵀ) · v` of each head for `qkv: [B, L, 3·H·D]`, where a position has its queries, then its keys, then
/// its values, those of each of `heads` together: `[B, L, H·D]`. With a base, queries and keys are turned by their positions
/// first ([`rotary`](super::rotary())).
///
/// It is [`attention`](super::attention()) without the copies that cut a tensor in three and put the gradients together.
///
/// # Errors
/// Another number of dimensions, or a last one that `3·heads` does not divide; with a base also an odd `D`.
pub fn self_attention(qkv: &Tensor, heads: usize, scale: f64, rotary_base: Option<f64>) -> Result<Tensor> {
    let rows = match *qkv.dims() {
        [_, length, width] if heads > 0 && width.is_multiple_of(3 * heads) => {
            Rows { heads, length, dim: width / (3 * heads) }
        }
        _ => {
            let message = format!("input {:?} must be [B, L, 3·H·D] with {heads} heads", qkv.dims());
            return Err(fault("self_attention", message));
        }
    };
    if rotary_base.is_some() && !rows.dim.is_multiple_of(2) {
        let message = format!("heads of {} channels have no halves to turn ({:?})", rows.dim, qkv.dims());
        return Err(fault("self_attention", message));
    }
    if !has_kernel(qkv) {
        return composed(qkv, &rows, scale, rotary_base);
    }
    let turn = rotary_base.map(|base| Rotary::new(rows.length, rows.dim, base));
    apply1(SelfAttention { rows, scale, turn, log_sums: OnceLock::new() }, [qkv])
}

fn composed(qkv: &Tensor, rows: &Rows, scale: f64, rotary_base: Option<f64>) -> Result<Tensor> {
    let Rows { heads, length, dim } = *rows;
    // [B, L, 3, H, D] -> [3, B, H, L, D]
    let parts = qkv.reshape(((), length, 3, heads, dim))?.permute((2, 0, 3, 1, 4))?;
    let turned = |x: Tensor| rotary_base.map_or_else(|| Ok(x.clone()), |base| rotary(&x, base));
    let y = attention(&turned(parts.get(0)?)?, &turned(parts.get(1)?)?, &parts.get(2)?, scale)?;
    Ok(y.transpose(1, 2)?.reshape(((), length, heads * dim))?)
}

/// How heads lie in rows `[B, L, N, H, D]` of `N` parts.
#[derive(Debug, Clone, Copy)]
struct Rows {
    heads: usize,
    length: usize,
    dim: usize,
}

impl Rows {
    /// One of `parts` parts by its heads, `[B, H, L, D]`.
    fn take<T: Float>(&self, rows: &[T], part: usize, parts: usize) -> Vec<T> {
        let width = parts * self.heads * self.dim;
        let mut heads = uninit(rows.len() / parts);
        heads.par_chunks_mut(self.length * self.dim).enumerate().for_each(|(i, head)| {
            let (item, h) = (i / self.heads, i % self.heads);
            let first = item * self.length * width + (part * self.heads + h) * self.dim;
            for (l, to) in head.chunks_exact_mut(self.dim).enumerate() {
                to.copy_from_slice(&rows[first + l * width..][..self.dim]);
            }
        });
        heads
    }

    /// Rows of parts `[B, H, L, D]`.
    fn join<T: Float>(&self, parts: &[Vec<T>]) -> Vec<T> {
        let mut rows = uninit(parts.iter().map(Vec::len).sum());
        rows.par_chunks_mut(parts.len() * self.heads * self.dim).enumerate().for_each(|(i, row)| {
            let (item, l) = (i / self.length, i % self.length);
            for (place, to) in row.chunks_exact_mut(self.dim).enumerate() {
                let head = item * self.heads + place % self.heads;
                let from = &parts[place / self.heads][(head * self.length + l) * self.dim..];
                to.copy_from_slice(&from[..self.dim]);
            }
        });
        rows
    }
}

struct SelfAttention {
    rows: Rows,
    scale: f64,
    turn: Option<Rotary>,
    /// Logarithm of the sum of exponentials of each row of scores, kept for the backward pass.
    log_sums: OnceLock<Vec<f64>>,
}

impl SelfAttention {
    fn sizes(&self) -> Sizes {
        Sizes { queries: self.rows.length, keys: self.rows.length, dim: self.rows.dim, scale: self.scale }
    }

    /// Queries, keys and values by their heads.
    fn parts<T: Float>(&self, qkv: &[T]) -> [Vec<T>; 3] {
        let [q, k, v] = [0, 1, 2].map(|part| self.rows.take(qkv, part, 3));
        match &self.turn {
            Some(turn) => [turn.turn(&q, 1.0), turn.turn(&k, 1.0), v],
            None => [q, k, v],
        }
    }
}

impl Op<1> for SelfAttention {
    const NAME: &'static str = "self_attention";

    fn forward<T: Float>(&self, [qkv]: [View<'_, T>; 1]) -> (Vec<T>, Shape) {
        let [q, k, v] = self.parts(qkv.data);
        let (y, log_sums) = forward(&self.sizes(), &q, &k, &v);
        self.log_sums.get_or_init(|| log_sums.into_iter().map(T::to_f64).collect());
        let shape = (qkv.dims[0], self.rows.length, self.rows.heads * self.rows.dim);
        (self.rows.join(&[y]), shape.into())
    }

    fn backward<T: Float>(
        &self,
        [qkv]: [View<'_, T>; 1],
        y: View<'_, T>,
        gy: &[T],
        _: [bool; 1],
    ) -> [Option<Vec<T>>; 1] {
        let log_sums: Vec<T> = self.log_sums.get_or_init(Vec::new).iter().map(|v| T::of(*v)).collect();
        let [q, k, v] = self.parts(qkv.data);
        let (y, gy) = (self.rows.take(y.data, 0, 1), self.rows.take(gy, 0, 1));
        let (dq, dk, dv) = backward(&self.sizes(), [&q, &k, &v], &y, &log_sums, &gy);
        let parts = match &self.turn {
            Some(turn) => [turn.turn(&dq, -1.0), turn.turn(&dk, -1.0), dv],
            None => [dq, dk, dv],
        };
        [Some(self.rows.join(&parts))]
    }
}
