use candle_core::{D, Tensor};
use lsgm_core::Result;

use super::{filled, in_full_precision, over_channels};
use crate::kernels::device::serves;
use crate::kernels::pointwise::Function;
use crate::ops::device;

macro_rules! functions {
    ($($name:ident = $variant:ident by $composed:ident;)*) => { $(
        pub(crate) fn $name(x: &Tensor) -> Result<Tensor> {
            if serves(x) {
                return device::function(x, Function::$variant);
            }
            in_full_precision(x, $composed)
        }
    )* };
}

functions! {
    relu = Relu by composed_relu;
    silu = Silu by composed_silu;
    gelu = Gelu by composed_gelu;
    elu = Elu by composed_elu;
    softplus = Softplus by composed_softplus;
    sigmoid = Sigmoid by composed_sigmoid;
}

fn composed_relu(x: &Tensor) -> Result<Tensor> {
    // candle's own has the derivative 1 at 0. NaN is not below 0 and passes.
    let zeros = x.zeros_like()?;
    Ok(x.le(&zeros)?.where_cond(&zeros, x)?)
}

fn composed_silu(x: &Tensor) -> Result<Tensor> {
    Ok(x.silu()?)
}

fn composed_gelu(x: &Tensor) -> Result<Tensor> {
    // candle's own keeps six digits of its gradient.
    let distribution = (((x / std::f64::consts::SQRT_2)?.erf()? + 1.0)? * 0.5)?;
    Ok((x * distribution)?)
}

fn composed_elu(x: &Tensor) -> Result<Tensor> {
    Ok(x.elu(1.0)?)
}

/// `ln(exp(−m) + exp(x − m)) + m`, which does not depend on `m`: for the constant `m = max(x, 0)` nothing overflows, on
/// the way back neither.
fn composed_softplus(x: &Tensor) -> Result<Tensor> {
    let m = x.relu()?.detach();
    Ok(((m.neg()?.exp()? + (x - &m)?.exp()?)?.log()? + m)?)
}

fn composed_sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((((x * 0.5)?.tanh()? + 1.0)? * 0.5)?)
}

pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    scaled_softmax(x, 1.0)
}

/// `softmax(factor · x)`.
pub(super) fn scaled_softmax(x: &Tensor, factor: f64) -> Result<Tensor> {
    if serves(x) {
        return device::softmax(x, factor, false);
    }
    in_full_precision(x, |x| {
        let e = below_largest(&(x * factor)?)?.exp()?;
        Ok(e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?)
    })
}

pub(crate) fn log_softmax(x: &Tensor) -> Result<Tensor> {
    if serves(x) {
        return device::softmax(x, 1.0, true);
    }
    in_full_precision(x, |x| {
        let x = below_largest(x)?;
        Ok(x.broadcast_sub(&x.exp()?.sum_keepdim(D::Minus1)?.log()?)?)
    })
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
    if serves(x) {
        return device::snake(x, alpha);
    }
    in_full_precision(x, |x| {
        let alpha = over_channels(alpha, x.rank())?;
        let squares = x.broadcast_mul(&alpha)?.sin()?.sqr()?;
        Ok((x + squares.broadcast_div(&alpha)?)?)
    })
}

/// `max(x, least)`, without a gradient where it is `least`.
pub(super) fn at_least(x: &Tensor, least: f64) -> Result<Tensor> {
    let bound = filled(x, least)?;
    Ok(x.lt(&bound)?.where_cond(&bound, x)?)
}
