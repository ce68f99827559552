//! Parts that the U-Net is made of.

use std::sync::Arc;

use candle_core::{D, Tensor};
use lsgm_core::{Params, Pass, Result};
use lsgm_nn::ops::{Activation, silu};
use lsgm_nn::{Conv2d, Dropout, GroupNorm, Linear, checkpoint_in, groups_for, init};
use serde::{Deserialize, Serialize};

use super::plane::Plane;

/// How a residual block takes the time in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conditioning {
    /// A bias per channel after the first convolution (Ho et al. 2020).
    #[default]
    Additive,
    /// A scale and a shift per channel after the second normalisation (Dhariwal and Nichol 2021).
    ScaleShift,
}

/// Group norm with the usual number of groups.
pub(crate) fn group_norm(channels: usize, activation: Activation, params: &Params) -> Result<GroupNorm> {
    GroupNorm::new(groups_for(channels), channels, 1e-5, activation, params)
}

/// A convolution whose output is 0 at the start.
pub(crate) fn zero_conv(inputs: usize, outputs: usize, plane: Plane, params: &Params) -> Result<Conv2d> {
    let zero = init::zeros();
    Conv2d::new_with(inputs, outputs, plane.kernel(3), plane.conv(3, 1), Some(zero), zero, params)
}

/// Values per channel `[B, C]` as `[B, C, 1, 1]`.
fn over_space(x: &Tensor) -> Result<Tensor> {
    Ok(x.unsqueeze(D::Minus1)?.unsqueeze(D::Minus1)?)
}

/// Two normalised, activated convolutions with the time in between, around a skip connection. The last convolution starts
/// at zero.
#[derive(Debug)]
pub(crate) struct ResidualBlock(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    skip: Option<Conv2d>,
    dropout: Dropout,
    conditioning: Conditioning,
}

/// What the residual blocks of a network share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockConfig {
    pub(crate) plane: Plane,
    pub(crate) embedding: usize,
    pub(crate) dropout: f64,
    pub(crate) conditioning: Conditioning,
}

impl ResidualBlock {
    pub(crate) fn new(inputs: usize, outputs: usize, config: &BlockConfig, params: &Params) -> Result<Self> {
        let BlockConfig { plane, embedding, dropout, conditioning } = *config;
        let (width, activation) = match conditioning {
            Conditioning::Additive => (outputs, Activation::Silu),
            Conditioning::ScaleShift => (2 * outputs, Activation::Identity),
        };
        let conv = |k, name| Conv2d::new(inputs, outputs, plane.kernel(k), plane.conv(k, 1), true, &params.pp(name));
        Ok(Self(Arc::new(Parts {
            norm1: group_norm(inputs, Activation::Silu, &params.pp("norm1"))?,
            conv1: conv(3, "conv1")?,
            time: Linear::new(embedding, width, true, &params.pp("time"))?,
            norm2: group_norm(outputs, activation, &params.pp("norm2"))?,
            conv2: zero_conv(outputs, outputs, plane, &params.pp("conv2"))?,
            skip: (inputs != outputs).then(|| conv(1, "skip")).transpose()?,
            dropout: Dropout { p: dropout },
            conditioning,
        })))
    }

    /// `x` `[B, C, H, W]`; `embedding` `[B, E]`, activated already, in full precision, as its gradient is a sum over all
    /// blocks.
    ///
    /// A segment of its own in a checkpointed pass.
    pub(crate) fn forward(&self, x: &Tensor, embedding: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let parts = Arc::clone(&self.0);
        checkpoint_in(pass, &[x, embedding], move |inputs, pass| parts.forward(&inputs[0], &inputs[1], pass))
    }
}

impl Parts {
    fn forward(&self, x: &Tensor, embedding: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let h = self.conv1.forward(&self.norm1.forward(x)?)?;
        let time = over_space(&self.time.forward(embedding)?.to_dtype(h.dtype())?)?;
        let h = match self.conditioning {
            Conditioning::Additive => self.norm2.forward(&h.broadcast_add(&time)?)?,
            Conditioning::ScaleShift => {
                let (scale, shift) = (time.narrow(1, 0, h.dim(1)?)?, time.narrow(1, h.dim(1)?, h.dim(1)?)?);
                silu(&self.norm2.forward(&h)?.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(&shift)?)?
            }
        };
        let h = self.conv2.forward(&self.dropout.forward(&h, pass)?)?;
        match &self.skip {
            Some(skip) => Ok((skip.forward(x)? + h)?),
            None => Ok((x + h)?),
        }
    }
}
