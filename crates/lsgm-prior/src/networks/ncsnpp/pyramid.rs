//! The progressive input and output paths of NCSN++.

use candle_core::Tensor;
use lsgm_core::{Params, Result};
use lsgm_nn::ops::{Activation, Conv2dConfig};
use lsgm_nn::{Conv2d, GroupNorm, init};
use serde::{Deserialize, Serialize};

use super::block::{Shared, conv, norm, zero_conv};
use crate::networks::plane::Plane;

/// How the input enters below the first level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProgressiveInput {
    /// Not at all.
    #[default]
    None,
    /// The downsampled input is combined with each level.
    InputSkip,
    /// A convolved, downsampled copy of the input is added and carried on.
    Residual,
}

/// How the output is gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progressive {
    /// From the first level alone.
    #[default]
    None,
    /// As a sum of outputs of all levels, upsampled.
    OutputSkip,
    /// As a residual path that is convolved and upsampled from level to level.
    Residual,
}

/// How `input-skip` combines the input with a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProgressiveCombine {
    /// Sum.
    #[default]
    Sum,
    /// Concatenation over channels.
    Cat,
}

/// One level's way in.
#[derive(Debug)]
pub(crate) enum Input {
    None,
    Skip { conv: Conv2d, combine: ProgressiveCombine },
    Residual(StridedConv),
}

impl Input {
    /// The level's features with the input pyramid taken in, and the pyramid at this level. `plane` is the grid above.
    pub(crate) fn forward(
        &self,
        h: Tensor,
        pyramid: Tensor,
        plane: Plane,
        shared: &Shared,
    ) -> Result<(Tensor, Tensor)> {
        match self {
            Self::None => Ok((h, pyramid)),
            Self::Skip { conv, combine } => {
                let pyramid = shared.resampler.down(plane, &pyramid)?;
                let entering = conv.forward(&pyramid)?;
                let h = match combine {
                    ProgressiveCombine::Sum => (entering + h)?,
                    ProgressiveCombine::Cat => Tensor::cat(&[entering, h], 1)?,
                };
                Ok((h, pyramid))
            }
            Self::Residual(conv) => {
                let pyramid = shared.join(&conv.forward(&pyramid, plane, shared)?, &h)?;
                Ok((pyramid.clone(), pyramid))
            }
        }
    }
}

/// A convolution that halves the size.
#[derive(Debug)]
pub(crate) struct StridedConv(Conv2d);

impl StridedConv {
    pub(crate) fn new(inputs: usize, outputs: usize, shared: &Shared, fir: bool, params: &Params) -> Result<Self> {
        let plane = shared.plane;
        let (height, width) = plane.kernel(3);
        let area = height * width;
        let weight = init::variance_scaling(1.0, inputs * area, outputs * area);
        let config = Conv2dConfig::default().with_stride(plane.kernel(2));
        let params = params.pp(if fir { "Conv2d_0" } else { "Conv_0" });
        let bias = Some(init::zeros());
        Ok(Self(Conv2d::new_with(inputs, outputs, (height, width), config, bias, weight, &params)?))
    }

    fn forward(&self, x: &Tensor, plane: Plane, shared: &Shared) -> Result<Tensor> {
        self.0.forward(&shared.resampler.before_strided_conv(plane, x)?)
    }
}

/// Normalisation, activation, convolution: what ends a path.
#[derive(Debug)]
pub(crate) struct Head {
    norm: GroupNorm,
    conv: Conv2d,
}

impl Head {
    /// Takes two places in the list of modules. It starts at zero where it makes an output of the network.
    pub(crate) fn new(inputs: usize, outputs: usize, zero: bool, plane: Plane, places: [Params; 2]) -> Result<Self> {
        let [first, second] = places;
        let conv =
            if zero { zero_conv(inputs, outputs, plane, &second)? } else { conv(inputs, outputs, 3, plane, &second)? };
        Ok(Self { norm: norm(inputs, Activation::Silu, &first)?, conv })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv.forward(&self.norm.forward(x)?)
    }
}

/// One level's way out.
#[derive(Debug)]
pub(crate) enum Output {
    None,
    /// Adds this level's output to the upsampled sum of those below.
    Skip(Head),
    /// Starts the residual path.
    ResidualStart(Head),
    /// Upsamples and convolves the residual path, and joins it with this level.
    Residual(Conv2d),
}

impl Output {
    /// The level's features and the output pyramid after this level, whose grid is `plane`.
    pub(crate) fn forward(
        &self,
        h: Tensor,
        pyramid: Option<Tensor>,
        plane: Plane,
        shared: &Shared,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let above = |pyramid: Option<Tensor>| pyramid.map(|p| shared.resampler.up(plane, &p)).transpose();
        match self {
            Self::None => Ok((h, pyramid)),
            Self::Skip(head) => {
                let own = head.forward(&h)?;
                let sum = match above(pyramid)? {
                    Some(pyramid) => (pyramid + own)?,
                    None => own,
                };
                Ok((h, Some(sum)))
            }
            Self::ResidualStart(head) => {
                let start = head.forward(&h)?;
                Ok((h, Some(start)))
            }
            Self::Residual(conv) => match above(pyramid)? {
                Some(pyramid) => {
                    let joined = shared.join(&conv.forward(&pyramid)?, &h)?;
                    Ok((joined.clone(), Some(joined)))
                }
                None => Ok((h, None)),
            },
        }
    }
}
