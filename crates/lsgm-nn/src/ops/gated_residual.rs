//! The end of a residual cell with squeeze-and-excitation.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;

use super::composed;
use super::custom::{Op, View, apply3, fault, has_kernel};
use crate::kernels::Float;
use crate::kernels::resample::{add_gated, gate_gradient, scaled_gate};

/// `skip + scale · sigmoid(gate) · x` for `skip` and `x: [B, C, ..]` and one gate `[B, C]` for each channel of each item.
///
/// # Errors
/// Shapes that do not fit.
pub fn gated_residual(skip: &Tensor, x: &Tensor, gate_logits: &Tensor, scale: f64) -> Result<Tensor> {
    if x.rank() < 2 || x.dims()[..2] != *gate_logits.dims() || skip.dims() != x.dims() {
        let (skip, x, gate) = (skip.dims(), x.dims(), gate_logits.dims());
        let message =
            format!("skip {skip:?} and input {x:?} must have one shape [B, C, ..], and gates {gate:?} [B, C]");
        return Err(fault("gated_residual", message));
    }
    if !has_kernel(x) {
        return composed::gated_residual(skip, x, gate_logits, scale);
    }
    apply3(GatedResidual { scale }, [skip, x, gate_logits])
}

struct GatedResidual {
    scale: f64,
}

impl Op<3> for GatedResidual {
    const NAME: &'static str = "gated_residual";

    fn forward<T: Float>(&self, [skip, x, logits]: [View<'_, T>; 3]) -> (Vec<T>, Shape) {
        (add_gated(skip.data, x.data, logits.data, T::of(self.scale)), x.dims.into())
    }

    fn backward<T: Float>(
        &self,
        [_, x, logits]: [View<'_, T>; 3],
        _: View<'_, T>,
        gy: &[T],
        needed: [bool; 3],
    ) -> [Option<Vec<T>>; 3] {
        let scale = T::of(self.scale);
        let dlogits = || gate_gradient(x.data, logits.data, gy).into_iter().map(|d| d * scale).collect();
        [
            needed[0].then(|| gy.to_vec()),
            needed[1].then(|| scaled_gate(gy, logits.data, scale)),
            needed[2].then(dlogits),
        ]
    }
}
