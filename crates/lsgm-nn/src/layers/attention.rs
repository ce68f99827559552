use candle_core::Tensor;
use lsgm_core::{Error, Params, Result};

use super::{Conv2d, GroupNorm, Linear, groups_for};
use crate::init;
use crate::ops::{self, Activation, Conv2dConfig};

fn head_size(part: &str, channels: usize, heads: usize) -> Result<usize> {
    if heads == 0 || !channels.is_multiple_of(heads) {
        return Err(Error::contract(part, format!("{heads} heads do not divide {channels} channels")));
    }
    Ok(channels / heads)
}

/// Self-attention over a sequence (Vaswani et al. 2017).
///
/// Parameters: `qkv.*` `[3·channels, channels]` and `out.*` `[channels, channels]`, linear layers with bias.
#[derive(Debug, Clone)]
pub struct MultiHeadAttention {
    qkv: Linear,
    out: Linear,
    heads: usize,
    head_size: usize,
    rotary: Option<f64>,
}

impl MultiHeadAttention {
    /// Build it.
    ///
    /// # Errors
    /// Heads that do not divide the channels, or a store that has a parameter with another shape.
    pub fn new(channels: usize, heads: usize, params: &Params) -> Result<Self> {
        Ok(Self {
            head_size: head_size("multi-head attention", channels, heads)?,
            heads,
            qkv: Linear::new(channels, 3 * channels, true, &params.pp("qkv"))?,
            out: Linear::new(channels, channels, true, &params.pp("out"))?,
            rotary: None,
        })
    }

    /// With queries and keys turned by their positions ([`ops::rotary`]), `base` the longest wave.
    pub fn with_rotary(self, base: f64) -> Self {
        Self { rotary: Some(base), ..self }
    }

    /// `[B, L, channels]` to the same shape.
    ///
    /// # Errors
    /// Another number of dimensions or channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let scale = 1.0 / (self.head_size as f64).sqrt();
        self.out.forward(&ops::self_attention(&self.qkv.forward(x)?, self.heads, scale, self.rotary)?)
    }
}

/// A residual block of self-attention over the positions of a plane (Ho et al. 2020):
/// `x + out(attention(norm(x)))`, the identity at the start.
///
/// Parameters: `norm.*`, `qkv.*` and `out.*` (1×1 convolutions with bias; `out` starts at zero).
#[derive(Debug, Clone)]
pub struct SelfAttention2d {
    norm: GroupNorm,
    qkv: Conv2d,
    out: Conv2d,
    heads: usize,
    head_size: usize,
}

impl SelfAttention2d {
    /// Build it.
    ///
    /// # Errors
    /// Heads that do not divide the channels, or a store that has a parameter with another shape.
    pub fn new(channels: usize, heads: usize, params: &Params) -> Result<Self> {
        let one = Conv2dConfig::default();
        let (zero, out) = (init::zeros(), params.pp("out"));
        Ok(Self {
            head_size: head_size("self-attention", channels, heads)?,
            heads,
            norm: GroupNorm::new(groups_for(channels), channels, 1e-6, Activation::Identity, &params.pp("norm"))?,
            qkv: Conv2d::new(channels, 3 * channels, (1, 1), one, true, &params.pp("qkv"))?,
            out: Conv2d::new_with(channels, channels, (1, 1), one, Some(zero), zero, &out)?,
        })
    }

    /// `[B, channels, H, W]` to the same shape.
    ///
    /// # Errors
    /// Another number of dimensions or channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, _, height, width) = x.dims4()?;
        let qkv = self.qkv.forward(&self.norm.forward(x)?)?;
        // [B, 3, H, D, L] -> [3, B, H, L, D]
        let qkv = qkv.reshape((batch, 3, self.heads, self.head_size, height * width))?.permute((1, 0, 2, 4, 3))?;
        let scale = 1.0 / (self.head_size as f64).sqrt();
        let y = ops::attention(&qkv.get(0)?, &qkv.get(1)?, &qkv.get(2)?, scale)?;
        let y = y.transpose(2, 3)?.reshape(x.shape())?;
        Ok((x + self.out.forward(&y)?)?)
    }
}
