//! Log-probabilities of finely quantised data under mixtures of logistic distributions.

use candle_core::{DType, Device, Shape, Tensor};
use lsgm_core::Result;
use rayon::prelude::*;

use super::composed;
use super::custom::{Op, View, apply1, fault, has_kernel};
use crate::kernels::logistic_mixture::{Bins, item_gradient, item_log_prob};
use crate::kernels::{Float, uninit};

/// `Σ ln p(x)` of each item in nats, `[B]`, where `p` is a mixture of `K` logistic distributions integrated over the bin
/// that `x` lies in (Salimans et al. 2017, arXiv 1701.05517).
///
/// * `params: [B, 3·K, L]`: logits of the weights, means, and logarithms of the scales, `K` of each in turn.
/// * `x: [B, L]`: data, which are constants, on the grid `−1 + 2·i / levels`, `i` from 0 to `levels − 1`. The first bin
///   takes all below it and the last all above, so that the probabilities of all levels sum to one.
///
/// # Errors
/// Shapes that do not fit, fewer than 2 levels.
pub fn logistic_mixture_log_prob(params: &Tensor, x: &Tensor, levels: usize) -> Result<Tensor> {
    let op = "logistic_mixture_log_prob";
    match (params.dims(), x.dims()) {
        ([b, channels, l], [n, m]) if b == n && l == m && *channels > 0 && channels.is_multiple_of(3) => {}
        (params, x) => {
            return Err(fault(op, format!("params {params:?} and items {x:?} must be [B, 3·K, L] and [B, L]")));
        }
    }
    if levels < 2 {
        return Err(fault(op, "give at least 2 levels"));
    }
    if !has_kernel(params) {
        return composed::logistic_mixture_log_prob(params, &x.to_dtype(params.dtype())?, levels);
    }
    let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    apply1(Mixture { x, bins: Bins { levels } }, [params])
}

struct Mixture {
    x: Vec<f64>,
    bins: Bins,
}

impl Mixture {
    fn data<T: Float>(&self) -> Vec<T> {
        self.x.iter().map(|v| T::of(*v)).collect()
    }
}

impl Op<1> for Mixture {
    const NAME: &'static str = "logistic_mixture_log_prob";

    fn forward<T: Float>(&self, [params]: [View<'_, T>; 1]) -> (Vec<T>, Shape) {
        let (batch, channels, length) = (params.dims[0], params.dims[1], params.dims[2]);
        let x = self.data::<T>();
        let items = params.data.par_chunks(channels * length).zip(x.par_chunks(length));
        (items.map(|(p, x)| T::of(item_log_prob(self.bins, p, x))).collect(), batch.into())
    }

    fn backward<T: Float>(
        &self,
        [params]: [View<'_, T>; 1],
        _: View<'_, T>,
        gy: &[T],
        _: [bool; 1],
    ) -> [Option<Vec<T>>; 1] {
        let (channels, length) = (params.dims[1], params.dims[2]);
        let x = self.data::<T>();
        let mut d = uninit(params.data.len());
        d.par_chunks_mut(channels * length)
            .zip(params.data.par_chunks(channels * length))
            .zip(x.par_chunks(length))
            .zip(gy)
            .for_each(|(((d, p), x), g)| item_gradient(self.bins, p, x, *g, d));
        [Some(d)]
    }
}
