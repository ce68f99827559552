use candle_core::{D, Tensor};
use lsgm_core::Result;

use super::over_channels;
use crate::ops::Activation;
#[cfg(feature = "cuda")]
use crate::ops::fused_norm;

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
    #[cfg(feature = "cuda")]
    if fused_norm::serves(x) {
        return Ok(fused_norm::apply(x, gamma, beta, groups, eps, activation)?.0);
    }
    let batch = x.dim(0)?;
    let rows = x.reshape((batch, groups, ()))?;
    let centred = rows.broadcast_sub(&rows.mean_keepdim(2)?)?;
    let y = scaled(&centred, &centred.sqr()?.mean_keepdim(2)?, eps)?;
    finish(&y.reshape((batch, gamma.elem_count(), ()))?, gamma, beta, activation, x)
}

pub(crate) fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let y = scaled(&centred, &centred.sqr()?.mean_keepdim(D::Minus1)?, eps)?;
    Ok(y.broadcast_mul(gamma)?.broadcast_add(beta)?)
}

pub(crate) fn rms_norm(x: &Tensor, gamma: &Tensor, eps: f64) -> Result<Tensor> {
    Ok(scaled(x, &x.sqr()?.mean_keepdim(D::Minus1)?, eps)?.broadcast_mul(gamma)?)
}

/// `y`, and mean and variance of the batch as constants.
pub(crate) fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    activation: Activation,
) -> Result<(Tensor, Tensor, Tensor)> {
    #[cfg(feature = "cuda")]
    if fused_norm::serves(x) {
        let (y, stats) = fused_norm::apply(x, gamma, beta, 0, eps, activation)?;
        let variance = (stats.narrow(1, 1, 1)?.sqr()?.recip()? - eps)?;
        return Ok((y, stats.narrow(1, 0, 1)?.flatten_all()?, variance.flatten_all()?));
    }
    let rows = planes(x, gamma)?;
    let mean = rows.mean_keepdim((0, 2))?;
    let centred = rows.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim((0, 2))?;
    let y = finish(&scaled(&centred, &variance, eps)?, gamma, beta, activation, x)?;
    Ok((y, mean.flatten_all()?.detach(), variance.flatten_all()?.detach()))
}

pub(crate) fn batch_norm_eval(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    [mean, variance]: [&Tensor; 2],
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let constant = |t: &Tensor| over_channels(&t.to_dtype(x.dtype())?.detach(), 3);
    let centred = planes(x, gamma)?.broadcast_sub(&constant(mean)?)?;
    finish(&scaled(&centred, &constant(variance)?, eps)?, gamma, beta, activation, x)
}

/// `[B, C, ..]` as `[B, C, P]`.
fn planes(x: &Tensor, gamma: &Tensor) -> Result<Tensor> {
    Ok(x.reshape((x.dim(0)?, gamma.elem_count(), ()))?)
}
