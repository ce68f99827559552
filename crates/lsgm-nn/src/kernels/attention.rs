//! Scaled-dot-product attention over blocks of queries: the `[L, L]` scores of a head never exist as a whole.
//!
//! The forward pass keeps the logarithm of each row's sum; the backward pass computes the scores again from it
//! (Dao et al. 2022, FlashAttention, algorithm 4, without the tiling over keys).

use rayon::prelude::*;

use super::softmax::{exp_scaled, score_gradient, softmax_in_place};
use super::{Float, Mat, gemm, uninit};

/// Queries of a block.
const QUERIES: usize = 64;

/// Sizes of an attention: `heads` (batch times heads) of `[queries, dim]` against `[keys, dim]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) dim: usize,
    pub(crate) scale: f64,
}

impl Sizes {
    /// `q · kᵀ` of a block of queries.
    fn scores<T: Float>(&self, q: &[T], k: &[T], scores: &mut [T]) {
        let rows = q.len() / self.dim;
        gemm(rows, self.keys, self.dim, Mat::rows(q, self.dim), Mat::rows(k, self.dim).t(), scores, self.keys, false);
    }
}

/// `softmax(scale · q · kᵀ) · v` for each head, and the logarithm of each row's sum.
pub(crate) fn forward<T: Float>(s: &Sizes, q: &[T], k: &[T], v: &[T]) -> (Vec<T>, Vec<T>) {
    let mut y = uninit(q.len());
    let mut log_sums = uninit(q.len() / s.dim);
    let head = s.queries * s.dim;
    y.par_chunks_mut(head)
        .zip(log_sums.par_chunks_mut(s.queries))
        .zip(q.par_chunks(head))
        .zip(k.par_chunks(s.keys * s.dim).zip(v.par_chunks(s.keys * s.dim)))
        .for_each(|(((y, log_sums), q), (k, v))| {
            y.par_chunks_mut(QUERIES * s.dim)
                .zip(log_sums.par_chunks_mut(QUERIES))
                .zip(q.par_chunks(QUERIES * s.dim))
                .for_each(|((y, log_sums), q)| {
                    let mut scores = uninit(log_sums.len() * s.keys);
                    s.scores(q, k, &mut scores);
                    softmax_in_place(&mut scores, s.keys, T::of(s.scale), log_sums);
                    let rows = log_sums.len();
                    gemm(rows, s.dim, s.keys, Mat::rows(&scores, s.keys), Mat::rows(v, s.dim), y, s.dim, false);
                });
        });
    (y, log_sums)
}

/// What the backward pass reads of one head.
struct Head<'a, T> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    y: &'a [T],
    log_sums: &'a [T],
    gy: &'a [T],
}

/// Gradients with respect to queries, keys and values.
pub(crate) fn backward<T: Float>(
    s: &Sizes,
    [q, k, v]: [&[T]; 3],
    y: &[T],
    log_sums: &[T],
    gy: &[T],
) -> (Vec<T>, Vec<T>, Vec<T>) {
    let (mut dq, mut dk, mut dv) = (uninit(q.len()), vec![T::ZERO; k.len()], vec![T::ZERO; v.len()]);
    let (query_head, key_head) = (s.queries * s.dim, s.keys * s.dim);
    dq.par_chunks_mut(query_head)
        .zip(dk.par_chunks_mut(key_head).zip(dv.par_chunks_mut(key_head)))
        .enumerate()
        .for_each(|(i, (dq, (dk, dv)))| {
            let queries = i * query_head..(i + 1) * query_head;
            let keys = i * key_head..(i + 1) * key_head;
            let head = Head {
                q: &q[queries.clone()],
                k: &k[keys.clone()],
                v: &v[keys],
                y: &y[queries.clone()],
                log_sums: &log_sums[i * s.queries..(i + 1) * s.queries],
                gy: &gy[queries],
            };
            head_backward(s, &head, dq, dk, dv);
        });
    (dq, dk, dv)
}

fn head_backward<T: Float>(s: &Sizes, h: &Head<'_, T>, dq: &mut [T], dk: &mut [T], dv: &mut [T]) {
    let (d, keys, scale) = (s.dim, s.keys, T::of(s.scale));
    let block = QUERIES.min(s.queries);
    let (mut p, mut dp) = (uninit::<T>(block * keys), uninit::<T>(block * keys));
    for start in (0..s.queries).step_by(QUERIES) {
        let rows = QUERIES.min(s.queries - start);
        let at = start * d..(start + rows) * d;
        let (q, y, gy) = (&h.q[at.clone()], &h.y[at.clone()], &h.gy[at.clone()]);
        s.scores(q, h.k, &mut p);
        exp_scaled(&mut p, keys, scale, &h.log_sums[start..start + rows]);
        gemm(keys, d, rows, Mat::rows(&p, keys).t(), Mat::rows(gy, d), dv, d, true);
        gemm(rows, keys, d, Mat::rows(gy, d), Mat::rows(h.v, d).t(), &mut dp, keys, false);
        score_gradient(&p, keys, (y, gy), d, scale, &mut dp);
        gemm(rows, d, keys, Mat::rows(&dp, keys), Mat::rows(h.k, d), &mut dq[at], d, false);
        gemm(keys, d, rows, Mat::rows(&dp, keys).t(), Mat::rows(q, d), dk, d, true);
    }
}
