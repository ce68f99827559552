//! The ops where the kernels of the CPU do not serve: by kernels of a GPU ([`super::device`]) if there are some, else as
//! compositions of tensor operations.
//!
//! Each function has the shapes and the formula of its namesake in [`crate::ops`], which has checked its inputs. Gradients
//! are candle's; operations of candle with a wrong gradient are left aside (see the workspace's `clippy.toml`).

mod conv;
mod functions;
mod gaussians;
mod likelihood;
mod modulation;
mod norm;
mod products;
mod resample;
mod tables;
mod weights;

pub(super) use conv::{conv, conv_transpose};
pub(super) use functions::{elu, gelu, log_softmax, relu, sigmoid, silu, snake, softmax, softplus};
pub(super) use gaussians::{component_shares, diffused_gaussians, expected_factors};
pub(super) use likelihood::{bernoulli_log_prob, discretized_logistic_log_prob, logistic_mixture_log_prob};
pub(super) use modulation::{gated_sum, modulated_layer_norm};
pub(super) use norm::{batch_norm_eval, batch_norm_train, group_norm, layer_norm, rms_norm};
pub(super) use products::{attention, linear};
pub(super) use resample::{
    avg_pool, gated_residual, global_avg_pool, squeeze_excite, upsample_bilinear, upsample_nearest,
};
pub(super) use tables::{embedding, pick, rotary};
pub(super) use weights::{spectral_norms, weight_norm};

use candle_core::Tensor;
use lsgm_core::{Result, upload};

use crate::full_precision;

/// `f` in single precision where activations have less.
fn in_full_precision(x: &Tensor, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    Ok(f(&full_precision(x)?)?.to_dtype(x.dtype())?)
}

/// A tensor like `x` with every element `value`.
fn filled(x: &Tensor, value: f64) -> Result<Tensor> {
    Ok((x.zeros_like()? + value)?)
}

/// `f64` constants of a shape, in the type and on the device of `like`.
fn constant(values: Vec<f64>, shape: impl Into<candle_core::Shape>, like: &Tensor) -> Result<Tensor> {
    let host = Tensor::from_vec(values, shape.into(), &candle_core::Device::Cpu)?;
    upload(&host.to_dtype(like.dtype())?, like.device())
}

/// `[C]` as `[1, C, 1, ..]`, to be broadcast over `[B, C, ..]` of `rank` dimensions.
fn over_channels(x: &Tensor, rank: usize) -> Result<Tensor> {
    let mut dims = vec![1; rank];
    dims[1] = x.elem_count();
    Ok(x.reshape(dims)?)
}
