use candle_core::{DType, Device, Tensor, Var};
use lsgm_core::{Error, ParamStore, Params, Result, Rng};
use lsgm_nn::ops::{Activation, Conv2dConfig, global_avg_pool};
use lsgm_nn::{Conv2d, GroupNorm, Linear, groups_for};

/// Channels of the first convolution, and of all others: the length of a feature vector.
const FIRST: usize = 32;
pub(crate) const FEATURES: usize = 64;
/// Sides at which a plane is not halved any more.
const SMALLEST: usize = 8;

/// A small convolutional classifier of planes `[B, C, H, W]`. Its features are the mean over all positions of the last
/// convolution's output, as everything below the linear head.
pub(crate) struct Network {
    mean: Var,
    scale: Var,
    levels: Vec<(Conv2d, GroupNorm)>,
    head: Linear,
}

impl Network {
    /// For planes of `channels` × `height` × `width` and so many classes.
    pub(crate) fn new(plane: (usize, usize, usize), classes: usize, params: &Params) -> Result<Self> {
        let (channels, height, width) = plane;
        if channels * height * width == 0 {
            return Err(Error::contract("features", format!("planes of {channels}×{height}×{width} are empty")));
        }
        let side = height.min(width);
        let mut levels = vec![level(channels, FIRST, 5, side > SMALLEST, &params.pp("levels").pp(0))?];
        let mut side = if side > SMALLEST { side.div_ceil(2) } else { side };
        while side > SMALLEST {
            let inputs = if levels.len() == 1 { FIRST } else { FEATURES };
            levels.push(level(inputs, FEATURES, 3, true, &params.pp("levels").pp(levels.len()))?);
            side = side.div_ceil(2);
        }
        let inputs = if levels.len() == 1 { FIRST } else { FEATURES };
        levels.push(level(inputs, FEATURES, 3, false, &params.pp("levels").pp(levels.len()))?);
        Ok(Self {
            mean: params.buffer("mean", (1, channels, 1, 1), 0.0)?,
            scale: params.buffer("scale", (1, channels, 1, 1), 1.0)?,
            levels,
            head: Linear::new(FEATURES, classes, true, &params.pp("head"))?,
        })
    }

    /// A store of fresh parameters, drawn from a seed of the toolkit's own.
    pub(crate) fn store(device: &Device) -> ParamStore {
        ParamStore::new(DType::F32, device, Rng::new(0).fork("features"))
    }

    /// Take the mean and the spread of each channel of some planes out of what the network sees.
    pub(crate) fn standardize(&self, planes: &Tensor) -> Result<()> {
        let mean = planes.mean_keepdim((0, 2, 3))?;
        let variance = planes.broadcast_sub(&mean)?.sqr()?.mean_keepdim((0, 2, 3))?;
        self.mean.set(&mean)?;
        Ok(self.scale.set(&(variance + 1e-6)?.sqrt()?.recip()?)?)
    }

    /// `[B, C, H, W]` to `[B, FEATURES]`.
    pub(crate) fn features(&self, planes: &Tensor) -> Result<Tensor> {
        let mut x = planes.broadcast_sub(self.mean.as_tensor())?.broadcast_mul(self.scale.as_tensor())?;
        for (conv, norm) in &self.levels {
            x = norm.forward(&conv.forward(&x)?)?;
        }
        global_avg_pool(&x)
    }

    /// Features to the logits of the classes, `[B, K]`.
    pub(crate) fn logits(&self, features: &Tensor) -> Result<Tensor> {
        self.head.forward(features)
    }
}

fn level(inputs: usize, outputs: usize, kernel: usize, halve: bool, params: &Params) -> Result<(Conv2d, GroupNorm)> {
    let stride = if halve { (2, 2) } else { (1, 1) };
    let config = Conv2dConfig { stride, padding: (kernel / 2, kernel / 2), ..Conv2dConfig::default() };
    Ok((
        Conv2d::new(inputs, outputs, (kernel, kernel), config, true, &params.pp("conv"))?,
        GroupNorm::new(groups_for(outputs), outputs, 1e-5, Activation::Silu, &params.pp("norm"))?,
    ))
}
