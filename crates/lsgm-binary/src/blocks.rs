use candle_core::Tensor;
use lsgm_core::{Params, Result};
use lsgm_nn::ops::{Activation, Conv2dConfig};
use lsgm_nn::{Conv2d, GroupNorm, init};

/// A 3×3 convolution that keeps the size.
pub(crate) fn conv3x3(inputs: usize, outputs: usize, params: &Params) -> Result<Conv2d> {
    Conv2d::new(inputs, outputs, (3, 3), Conv2dConfig::same((3, 3)), true, params)
}

/// A group norm with as many groups as fit, at most 8, followed by SiLU.
pub(crate) fn norm_silu(channels: usize, params: &Params) -> Result<GroupNorm> {
    let groups = (1..=8usize).rev().find(|g| channels.is_multiple_of(*g)).unwrap_or(1);
    GroupNorm::new(groups, channels, 1e-5, Activation::Silu, params)
}

/// Norm, SiLU, convolution, twice, around a skip connection (He et al. 2016, arXiv 1603.05027). It starts as the
/// identity: the last convolution is initialised with zeros.
pub(crate) struct ResidualBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
}

impl ResidualBlock {
    pub(crate) fn new(channels: usize, params: &Params) -> Result<Self> {
        Ok(Self {
            norm1: norm_silu(channels, &params.pp("norm1"))?,
            conv1: conv3x3(channels, channels, &params.pp("conv1"))?,
            norm2: norm_silu(channels, &params.pp("norm2"))?,
            conv2: Conv2d::new_with(
                channels,
                channels,
                (3, 3),
                Conv2dConfig::same((3, 3)),
                Some(init::zeros()),
                init::zeros(),
                &params.pp("conv2"),
            )?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.conv1.forward(&self.norm1.forward(x)?)?;
        let h = self.conv2.forward(&self.norm2.forward(&h)?)?;
        Ok((x + h)?)
    }
}

/// Residual blocks one after another.
pub(crate) fn stack(count: usize, channels: usize, params: &Params) -> Result<Vec<ResidualBlock>> {
    (0..count).map(|i| ResidualBlock::new(channels, &params.pp(i))).collect()
}

pub(crate) fn run(blocks: &[ResidualBlock], x: Tensor) -> Result<Tensor> {
    blocks.iter().try_fold(x, |x, block| block.forward(&x))
}
