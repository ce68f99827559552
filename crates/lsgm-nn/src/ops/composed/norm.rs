use candle_core::{D, Tensor};
use lsgm_core::Result;

use super::{in_full_precision, over_channels};
use crate::full_precision;
use crate::kernels::device::serves;
use crate::ops::{Activation, device};

/// Scale, shift and activation of `[B, C, P]`, in the shape of `like`.
fn finish(y: &Tensor, gamma: &Tensor, beta: &Tensor, activation: Activation, like: &Tensor) -> Result<Tensor> {
    let y = y.broadcast_mul(&over_channels(gamma, 3)?)?.broadcast_add(&over_channels(beta, 3)?)?;
    let y = match activation {
        Activation::Identity => y,
        Activation::Silu => y.silu()?,
    };
    Ok(y.reshape(like.shape())?)
}

/// `centred / √(variance + eps)`.
fn scaled(centred: &Tensor, variance: &Tensor, eps: f64) -> Result<Tensor> {
    Ok(centred.broadcast_div(&(variance + eps)?.sqrt()?)?)
}

pub(crate) fn group_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    if serves(x) {
        return device::group_norm(x, gamma, beta, groups, eps, activation);
    }
    in_full_precision(x, |x| {
        let batch = x.dim(0)?;
        let rows = x.reshape((batch, groups, ()))?;
        let centred = rows.broadcast_sub(&rows.mean_keepdim(2)?)?;
        let y = scaled(&centred, &centred.sqr()?.mean_keepdim(2)?, eps)?;
        finish(&y.reshape((batch, gamma.elem_count(), ()))?, gamma, beta, activation, x)
    })
}

pub(crate) fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    if serves(x) {
        return device::layer_norm(x, gamma, beta, eps);
    }
    in_full_precision(x, |x| Ok(layer_normalised(x, eps)?.broadcast_mul(gamma)?.broadcast_add(beta)?))
}

/// Layer norm without scale and shift.
pub(super) fn layer_normalised(x: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    scaled(&centred, &centred.sqr()?.mean_keepdim(D::Minus1)?, eps)
}

pub(crate) fn rms_norm(x: &Tensor, gamma: &Tensor, eps: f64) -> Result<Tensor> {
    if serves(x) {
        return device::rms_norm(x, gamma, eps);
    }
    in_full_precision(x, |x| Ok(scaled(x, &x.sqr()?.mean_keepdim(D::Minus1)?, eps)?.broadcast_mul(gamma)?))
}

/// `y`, and mean and variance of the batch as constants.
pub(crate) fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    activation: Activation,
) -> Result<(Tensor, Tensor, Tensor)> {
    if serves(x) {
        return device::batch_norm_train(x, gamma, beta, eps, activation);
    }
    let dtype = x.dtype();
    let x = &full_precision(x)?;
    let rows = planes(x, gamma)?;
    let mean = rows.mean_keepdim((0, 2))?;
    let centred = rows.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim((0, 2))?;
    let y = finish(&scaled(&centred, &variance, eps)?, gamma, beta, activation, x)?;
    Ok((y.to_dtype(dtype)?, mean.flatten_all()?.detach(), variance.flatten_all()?.detach()))
}

pub(crate) fn batch_norm_eval(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    [mean, variance]: [&Tensor; 2],
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    if serves(x) {
        return device::batch_norm_eval(x, gamma, beta, [mean, variance], eps, activation);
    }
    in_full_precision(x, |x| {
        let constant = |t: &Tensor| over_channels(&t.to_dtype(x.dtype())?.detach(), 3);
        let centred = planes(x, gamma)?.broadcast_sub(&constant(mean)?)?;
        finish(&scaled(&centred, &constant(variance)?, eps)?, gamma, beta, activation, x)
    })
}

/// `[B, C, ..]` as `[B, C, P]`.
fn planes(x: &Tensor, gamma: &Tensor) -> Result<Tensor> {
    Ok(x.reshape((x.dim(0)?, gamma.elem_count(), ()))?)
}
