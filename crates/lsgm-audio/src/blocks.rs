use candle_core::Tensor;
use lsgm_core::{Init, Params, Result};
use lsgm_nn::ops::{self, Conv1dConfig, ConvTranspose1dConfig};
use lsgm_nn::{Conv1d, ConvTranspose1d, GroupNorm, init};

use crate::config::Activation;

/// A convolution of extent 3 that keeps the length.
pub(crate) fn conv3(inputs: usize, outputs: usize, params: &Params) -> Result<Conv1d> {
    Conv1d::new(inputs, outputs, 3, Conv1dConfig::same(3), true, params)
}

/// The same, beginning at zero: what it adds to is there alone at first.
pub(crate) fn silent_conv3(inputs: usize, outputs: usize, params: &Params) -> Result<Conv1d> {
    Conv1d::new_with(inputs, outputs, 3, Conv1dConfig::same(3), Some(init::zeros()), init::zeros(), params)
}

/// A convolution that shortens by an even factor, its windows overlapping by half.
pub(crate) fn shorten(inputs: usize, outputs: usize, stride: usize, params: &Params) -> Result<Conv1d> {
    let config = Conv1dConfig { stride, padding: stride / 2, ..Default::default() };
    Conv1d::new(inputs, outputs, 2 * stride, config, true, params)
}

/// A transposed convolution that lengthens by an even factor.
pub(crate) fn lengthen(inputs: usize, outputs: usize, stride: usize, params: &Params) -> Result<ConvTranspose1d> {
    // Two windows meet in each output.
    lengthen_with(inputs, outputs, stride, init::uniform_fan_in(2 * inputs), params)
}

/// The same with another initialisation of its weights.
pub(crate) fn lengthen_with(
    inputs: usize,
    outputs: usize,
    stride: usize,
    weight: Init,
    params: &Params,
) -> Result<ConvTranspose1d> {
    let config = ConvTranspose1dConfig { stride, padding: stride / 2, ..Default::default() };
    ConvTranspose1d::new_with(inputs, outputs, 2 * stride, config, Some(init::zeros()), weight, params)
}

/// What stands between two convolutions.
pub(crate) enum Activate {
    NormSilu(GroupNorm),
    /// One logarithm of α for each channel, `[C]`.
    Snake(Tensor),
}

impl Activate {
    pub(crate) fn new(kind: Activation, channels: usize, params: &Params) -> Result<Self> {
        Ok(match kind {
            Activation::Silu => {
                let groups = (1..=8usize).rev().find(|g| channels.is_multiple_of(*g)).unwrap_or(1);
                Self::NormSilu(GroupNorm::new(groups, channels, 1e-5, ops::Activation::Silu, params)?)
            }
            Activation::Snake => Self::Snake(params.get("log_alpha", channels, init::zeros())?),
        })
    }

    /// `[B, C, L]` to the same shape.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::NormSilu(norm) => norm.forward(x),
            Self::Snake(log_alpha) => ops::snake(x, &log_alpha.exp()?),
        }
    }
}

/// Two activated convolutions around a skip connection, the first of them dilated. It starts as the identity: the last
/// convolution is initialised with zeros.
pub(crate) struct ResidualBlock {
    activate1: Activate,
    conv1: Conv1d,
    activate2: Activate,
    conv2: Conv1d,
}

impl ResidualBlock {
    fn new(channels: usize, dilation: usize, activation: Activation, params: &Params) -> Result<Self> {
        let dilated = Conv1dConfig { padding: dilation, dilation, ..Default::default() };
        Ok(Self {
            activate1: Activate::new(activation, channels, &params.pp("activation1"))?,
            conv1: Conv1d::new(channels, channels, 3, dilated, true, &params.pp("conv1"))?,
            activate2: Activate::new(activation, channels, &params.pp("activation2"))?,
            conv2: silent_conv3(channels, channels, &params.pp("conv2"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.conv1.forward(&self.activate1.forward(x)?)?;
        let h = self.conv2.forward(&self.activate2.forward(&h)?)?;
        Ok((x + h)?)
    }
}

/// Residual blocks one after another, their dilations 1, 3, 9 and again from 1.
pub(crate) struct Stack(Vec<ResidualBlock>);

impl Stack {
    pub(crate) fn new(count: usize, channels: usize, activation: Activation, params: &Params) -> Result<Self> {
        let block = |i: usize| ResidualBlock::new(channels, 3usize.pow((i % 3) as u32), activation, &params.pp(i));
        (0..count).map(block).collect::<Result<_>>().map(Self)
    }

    pub(crate) fn forward(&self, x: Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(x, |x, block| block.forward(&x))
    }
}
