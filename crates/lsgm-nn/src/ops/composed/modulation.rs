use candle_core::Tensor;
use lsgm_core::Result;

use super::in_full_precision;
use crate::full_precision;
use crate::kernels::device::serves;
use crate::ops::device;

pub(crate) fn modulated_layer_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, eps: f64) -> Result<Tensor> {
    if serves(x) {
        return device::modulated_layer_norm(x, scale, shift, eps);
    }
    in_full_precision(x, |x| {
        let factors = (full_precision(scale)? + 1.0)?;
        Ok(super::norm::layer_normalised(x, eps)?.broadcast_mul(&factors)?.broadcast_add(&full_precision(shift)?)?)
    })
}

pub(crate) fn gated_sum(x: &Tensor, branch: &Tensor, gate: &Tensor) -> Result<Tensor> {
    if serves(x) {
        return device::gated_sum(x, branch, gate);
    }
    in_full_precision(x, |x| Ok((x + full_precision(branch)?.broadcast_mul(&full_precision(gate)?)?)?))
}
