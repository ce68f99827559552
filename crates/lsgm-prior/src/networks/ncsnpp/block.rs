use std::sync::Arc;

use candle_core::{D, Tensor};
use lsgm_core::{Init, Params, Pass, Result};
use lsgm_nn::ops::{Activation, attention, linear};
use lsgm_nn::{Conv2d, Dropout, GroupNorm, Linear, checkpoint_in, groups_for, init};

use super::resample::Resampler;
use crate::networks::plane::Plane;

/// A change of size within a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Keep,
    /// From this grid to half of it.
    Down(Plane),
    /// From half of this grid to it.
    Up(Plane),
}

/// What the parts of one network share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) plane: Plane,
    pub(crate) embedding: usize,
    pub(crate) dropout: f64,
    pub(crate) skip_rescale: bool,
    pub(crate) resampler: Resampler,
}

impl Shared {
    /// `a + b`, divided by √2 where skips are rescaled.
    pub(crate) fn join(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let sum = (a + b)?;
        Ok(if self.skip_rescale { (sum * std::f64::consts::FRAC_1_SQRT_2)? } else { sum })
    }
}

/// The number of groups that divide the channels, `min(channels / 4, 32)`.
pub(crate) fn norm(channels: usize, activation: Activation, params: &Params) -> Result<GroupNorm> {
    GroupNorm::new(groups_for(channels), channels, 1e-6, activation, params)
}

/// A convolution with the published initialisation: uniform of variance `2 / (fan_in + fan_out)`, bias zero.
pub(crate) fn conv(inputs: usize, outputs: usize, k: usize, plane: Plane, params: &Params) -> Result<Conv2d> {
    let (height, width) = plane.kernel(k);
    let area = height * width;
    let weight = init::variance_scaling(1.0, inputs * area, outputs * area);
    Conv2d::new_with(inputs, outputs, (height, width), plane.conv(k, 1), Some(init::zeros()), weight, params)
}

/// A convolution of extent 3 whose output is 0 at the start.
pub(crate) fn zero_conv(inputs: usize, outputs: usize, plane: Plane, params: &Params) -> Result<Conv2d> {
    let zero = init::zeros();
    Conv2d::new_with(inputs, outputs, plane.kernel(3), plane.conv(3, 1), Some(zero), zero, params)
}

/// A linear layer with the published initialisation.
pub(crate) fn dense(inputs: usize, outputs: usize, params: &Params) -> Result<Linear> {
    let weight = init::variance_scaling(1.0, inputs, outputs);
    Linear::new_with(inputs, outputs, Some(init::zeros()), weight, params)
}

/// The BigGAN-style residual block of NCSN++.
#[derive(Debug)]
pub(crate) struct Block(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    norm0: GroupNorm,
    conv0: Conv2d,
    dense: Linear,
    norm1: GroupNorm,
    conv1: Conv2d,
    conv2: Option<Conv2d>,
    change: Change,
}

impl Block {
    pub(crate) fn new(inputs: usize, outputs: usize, change: Change, shared: &Shared, params: &Params) -> Result<Self> {
        let plane = shared.plane;
        let projected = inputs != outputs || change != Change::Keep;
        Ok(Self(Arc::new(Parts {
            norm0: norm(inputs, Activation::Silu, &params.pp("GroupNorm_0"))?,
            conv0: conv(inputs, outputs, 3, plane, &params.pp("Conv_0"))?,
            dense: dense(shared.embedding, outputs, &params.pp("Dense_0"))?,
            norm1: norm(outputs, Activation::Silu, &params.pp("GroupNorm_1"))?,
            conv1: zero_conv(outputs, outputs, plane, &params.pp("Conv_1"))?,
            conv2: projected.then(|| conv(inputs, outputs, 1, plane, &params.pp("Conv_2"))).transpose()?,
            change,
        })))
    }

    /// `x` `[B, C, H, W]`; `embedding` `[B, E]`, activated already, in full precision, as its gradient is a sum over all
    /// blocks.
    ///
    /// A segment of its own in a checkpointed pass.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        embedding: &Tensor,
        shared: &Shared,
        pass: &mut Pass<'_>,
    ) -> Result<Tensor> {
        let (parts, shared) = (Arc::clone(&self.0), shared.clone());
        checkpoint_in(pass, &[x, embedding], move |inputs, pass| parts.forward(&inputs[0], &inputs[1], &shared, pass))
    }
}

impl Parts {
    fn forward(&self, x: &Tensor, embedding: &Tensor, shared: &Shared, pass: &mut Pass<'_>) -> Result<Tensor> {
        let resample = |x: &Tensor| match self.change {
            Change::Keep => Ok(x.clone()),
            Change::Down(plane) => shared.resampler.down(plane, x),
            Change::Up(plane) => shared.resampler.up(plane, x),
        };
        let h = self.conv0.forward(&resample(&self.norm0.forward(x)?)?)?;
        let time = self.dense.forward(embedding)?.to_dtype(h.dtype())?.unsqueeze(D::Minus1)?.unsqueeze(D::Minus1)?;
        let h = self.norm1.forward(&h.broadcast_add(&time)?)?;
        let h = self.conv1.forward(&Dropout { p: shared.dropout }.forward(&h, pass)?)?;
        let x = resample(x)?;
        match &self.conv2 {
            Some(conv) => shared.join(&conv.forward(&x)?, &h),
            None => shared.join(&x, &h),
        }
    }
}

/// Single-head self-attention over all positions.
#[derive(Debug)]
pub(crate) struct Attention {
    norm: GroupNorm,
    nin: [Nin; 4],
}

/// A linear layer over channels with its weight stored `[inputs, outputs]`.
#[derive(Debug)]
struct Nin {
    weight: Tensor,
    bias: Tensor,
}

impl Nin {
    fn new(channels: usize, weight: Init, params: &Params) -> Result<Self> {
        Ok(Self {
            weight: params.get("W", (channels, channels), weight)?,
            bias: params.get("b", channels, init::zeros())?,
        })
    }

    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        linear(tokens, &self.weight.t()?, Some(&self.bias))
    }
}

impl Attention {
    pub(crate) fn new(channels: usize, params: &Params) -> Result<Self> {
        let start = init::variance_scaling(0.1, channels, channels);
        let nin = |i: usize, weight: Init| Nin::new(channels, weight, &params.pp(format!("NIN_{i}")));
        Ok(Self {
            norm: norm(channels, Activation::Identity, &params.pp("GroupNorm_0"))?,
            nin: [nin(0, start)?, nin(1, start)?, nin(2, start)?, nin(3, init::zeros())?],
        })
    }

    pub(crate) fn forward(&self, x: &Tensor, shared: &Shared) -> Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let tokens = self.norm.forward(x)?.flatten_from(2)?.transpose(1, 2)?;
        let [q, k, v, out] = &self.nin;
        let head = |nin: &Nin| -> Result<Tensor> { Ok(nin.forward(&tokens)?.unsqueeze(1)?) };
        let mixed = attention(&head(q)?, &head(k)?, &head(v)?, 1.0 / (channels as f64).sqrt())?;
        let h = out.forward(&mixed.squeeze(1)?)?.transpose(1, 2)?.reshape((batch, channels, height, width))?;
        shared.join(x, &h)
    }
}
