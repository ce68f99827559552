use candle_core::{D, Tensor};
use lsgm_core::Result;

use super::{filled, over_channels};

pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    // candle's own has the derivative 1 at 0. NaN is not below 0 and passes.
    let zeros = x.zeros_like()?;
    Ok(x.le(&zeros)?.where_cond(&zeros, x)?)
}

pub(crate) fn silu(x: &Tensor) -> Result<Tensor> {
    Ok(x.silu()?)
}

pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    // candle's own keeps six digits of its gradient.
    let distribution = (((x / std::f64::consts::SQRT_2)?.erf()? + 1.0)? * 0.5)?;
    Ok((x * distribution)?)
}

pub(crate) fn elu(x: &Tensor) -> Result<Tensor> {
    Ok(x.elu(1.0)?)
}

/// `ln(exp(−m) + exp(x − m)) + m`, which does not depend on `m`: for the constant `m = max(x, 0)` nothing overflows, on
/// the way back neither.
pub(crate) fn softplus(x: &Tensor) -> Result<Tensor> {
    let m = x.relu()?.detach();
    Ok(((m.neg()?.exp()? + (x - &m)?.exp()?)?.log()? + m)?)
}

pub(crate) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((((x * 0.5)?.tanh()? + 1.0)? * 0.5)?)
}

pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    let e = below_largest(x)?.exp()?;
    Ok(e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?)
}

pub(crate) fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let x = below_largest(x)?;
    Ok(x.broadcast_sub(&x.exp()?.sum_keepdim(D::Minus1)?.log()?)?)
}

/// `x` less its largest element of each row. Neither softmax depends on that shift: it is a constant.
fn below_largest(x: &Tensor) -> Result<Tensor> {
    Ok(x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?)
}

/// `ln Σ exp(x)` over dimension `dim`.
pub(super) fn log_sum_exp(x: &Tensor, dim: usize) -> Result<Tensor> {
    let largest = x.max_keepdim(dim)?.detach();
    let sum = x.broadcast_sub(&largest)?.exp()?.sum(dim)?;
    Ok((sum.log()? + largest.squeeze(dim)?)?)
}

pub(crate) fn snake(x: &Tensor, alpha: &Tensor) -> Result<Tensor> {
    let alpha = over_channels(alpha, x.rank())?;
    let squares = x.broadcast_mul(&alpha)?.sin()?.sqr()?;
    Ok((x + squares.broadcast_div(&alpha)?)?)
}

/// `max(x, least)`, without a gradient where it is `least`.
pub(super) fn at_least(x: &Tensor, least: f64) -> Result<Tensor> {
    let bound = filled(x, least)?;
    Ok(x.lt(&bound)?.where_cond(&bound, x)?)
}
