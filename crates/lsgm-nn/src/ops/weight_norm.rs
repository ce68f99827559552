//! Weight normalisation.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;
use rayon::prelude::*;

use super::composed;
use super::custom::{Op, View, apply2, fault, has_kernel, keep};
use crate::kernels::pointwise::{dot, square_norm};
use crate::kernels::{Float, uninit};

/// `g · v / (|v| + eps)` for each row of `v: [O, ..]` with lengths `g: [O]` (Salimans & Kingma 2016).
///
/// # Errors
/// Shapes that do not fit.
pub fn weight_norm(v: &Tensor, g: &Tensor, eps: f64) -> Result<Tensor> {
    match v.dims() {
        [rows, ..] if g.dims() == [*rows] && !has_kernel(v) => composed::weight_norm(v, g, eps),
        [rows, ..] if g.dims() == [*rows] => apply2(WeightNorm { eps }, [v, g]),
        dims => Err(fault("weight_norm", format!("lengths {:?} must be one for each row of {dims:?}", g.dims()))),
    }
}

struct WeightNorm {
    eps: f64,
}

impl Op<2> for WeightNorm {
    const NAME: &'static str = "weight_norm";

    fn forward<T: Float>(&self, [v, g]: [View<'_, T>; 2]) -> (Vec<T>, Shape) {
        let width = v.data.len() / g.data.len();
        let mut w = uninit(v.data.len());
        w.par_chunks_mut(width).zip(v.data.par_chunks(width)).zip(g.data).for_each(|((w, v), g)| {
            let scale = T::of(g.to_f64() / (square_norm(v).sqrt() + self.eps));
            w.iter_mut().zip(v).for_each(|(w, v)| *w = *v * scale);
        });
        (w, v.dims.into())
    }

    fn backward<T: Float>(
        &self,
        [v, g]: [View<'_, T>; 2],
        _: View<'_, T>,
        gw: &[T],
        needed: [bool; 2],
    ) -> [Option<Vec<T>>; 2] {
        let width = v.data.len() / g.data.len();
        let (mut dv, mut dg) = (uninit(v.data.len()), uninit(g.data.len()));
        dv.par_chunks_mut(width)
            .zip(&mut dg)
            .zip(v.data.par_chunks(width).zip(gw.par_chunks(width)))
            .zip(g.data)
            .for_each(|(((dv, dg), (v, gw)), g)| {
                let norm = square_norm(v).sqrt();
                let inner = dot(v, gw);
                *dg = T::of(inner / (norm + self.eps));
                let scale = g.to_f64() / (norm + self.eps);
                // The derivative of |v| is v/|v|; at v = 0 the row's norm has none, and we take 0.
                let pull = if norm == 0.0 { 0.0 } else { scale * inner / (norm * (norm + self.eps)) };
                let (scale, pull) = (T::of(scale), T::of(pull));
                for ((dv, v), gw) in dv.iter_mut().zip(v).zip(gw) {
                    *dv = *gw * scale - *v * pull;
                }
            });
        keep(needed, [dv, dg])
    }
}
