//! Log-probabilities of discrete data from logits.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;
use rayon::prelude::*;

use super::composed;
use super::custom::{Op, View, apply1, apply2, fault, has_kernel};
use super::log_softmax;
use crate::kernels::pointwise::{bernoulli_block, bernoulli_logits_block};
use crate::kernels::{Float, uninit};

/// `Σ x·l − ln(1 + exp(l))` of each item over all dimensions but the first, in nats: `[B]`.
///
/// For `x` in {0, 1} this is the log-probability under Bernoulli distributions with logits `l`; it is finite for every
/// finite logit. `logits` and `x` have one shape `[B, ..]`.
///
/// # Errors
/// Shapes that differ.
pub fn bernoulli_log_prob(logits: &Tensor, x: &Tensor) -> Result<Tensor> {
    if logits.dims() != x.dims() || x.rank() == 0 {
        let (logits, x) = (logits.dims(), x.dims());
        return Err(fault(
            "bernoulli_log_prob",
            format!("logits {logits:?} and items {x:?} must have one shape [B, ..]"),
        ));
    }
    if !has_kernel(logits) {
        return composed::bernoulli_log_prob(logits, x);
    }
    apply2(Bernoulli, [logits, x])
}

/// `ln softmax(logits)[id]` in nats for `logits: [.., V]` and `ids: [..]` (`u32`): `[..]`.
///
/// # Errors
/// Shapes that do not fit, or an id of `V` or more.
pub fn categorical_log_prob(logits: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let op = "categorical_log_prob";
    let classes = match logits.dims() {
        [leading @ .., classes] if leading == ids.dims() => *classes,
        dims => return Err(fault(op, format!("ids {:?} do not fit logits {dims:?}", ids.dims()))),
    };
    if !has_kernel(logits) {
        return composed::pick(&log_softmax(logits)?, ids);
    }
    let ids = super::embedding::checked_ids(op, ids, classes)?;
    apply1(Pick { ids }, [&log_softmax(logits)?])
}

struct Bernoulli;

impl Op<2> for Bernoulli {
    const NAME: &'static str = "bernoulli_log_prob";

    fn forward<T: Float>(&self, [logits, x]: [View<'_, T>; 2]) -> (Vec<T>, Shape) {
        let batch = x.dims[0];
        let item = x.data.len() / batch;
        let y = logits
            .data
            .par_chunks(item)
            .zip(x.data.par_chunks(item))
            .map(|(l, x)| T::of(bernoulli_block(l, x)))
            .collect();
        (y, batch.into())
    }

    fn backward<T: Float>(
        &self,
        [logits, x]: [View<'_, T>; 2],
        _: View<'_, T>,
        gy: &[T],
        needed: [bool; 2],
    ) -> [Option<Vec<T>>; 2] {
        let item = x.data.len() / gy.len();
        let dlogits = needed[0].then(|| {
            let mut d = uninit(x.data.len());
            d.par_chunks_mut(item)
                .zip(logits.data.par_chunks(item))
                .zip(x.data.par_chunks(item))
                .zip(gy)
                .for_each(|(((d, l), x), g)| bernoulli_logits_block(l, x, *g, d));
            d
        });
        let dx = needed[1].then(|| logits.data.iter().enumerate().map(|(i, l)| *l * gy[i / item]).collect());
        [dlogits, dx]
    }
}

/// One element of each row.
struct Pick {
    ids: Vec<u32>,
}

impl Op<1> for Pick {
    const NAME: &'static str = "pick";

    fn forward<T: Float>(&self, [x]: [View<'_, T>; 1]) -> (Vec<T>, Shape) {
        let classes = x.data.len() / self.ids.len();
        let y = self.ids.iter().zip(x.data.chunks_exact(classes)).map(|(id, row)| row[*id as usize]).collect();
        (y, x.dims[..x.dims.len() - 1].into())
    }

    fn backward<T: Float>(&self, [x]: [View<'_, T>; 1], _: View<'_, T>, gy: &[T], _: [bool; 1]) -> [Option<Vec<T>>; 1] {
        let classes = x.data.len() / self.ids.len();
        let mut d = vec![T::ZERO; x.data.len()];
        for ((row, id), g) in d.chunks_exact_mut(classes).zip(&self.ids).zip(gy) {
            row[*id as usize] = *g;
        }
        [Some(d)]
    }
}
