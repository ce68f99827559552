//! Convolutions and batch norms that the penalty of the training knows about.

use std::cell::RefCell;
use std::fmt::Display;

use candle_core::{Tensor, Var};
use lsgm_core::{Init, Params, Result};
use lsgm_nn::ops::{self, Activation, Conv2dConfig};
use lsgm_nn::{BatchNorm, init};

use crate::published::SPECTRAL_STATE;

/// Steps of power iteration for each training step.
const POWER_ITERATIONS: usize = 4;

/// Added to the length of a weight before it is divided by it.
const WEIGHT_NORM_EPS: f64 = 1e-5;

/// What spectral and batch-norm regularisation are about: every convolution, and the scales of every batch norm.
#[derive(Default)]
pub(super) struct Penalty {
    convolutions: Vec<Conv>,
    scales: Vec<Tensor>,
}

impl Penalty {
    /// `Σ σ_max(W) + Σ max |γ|` (NVAE, section 3.2): the largest singular value of each weight as the convolution uses it,
    /// and the largest scale of each batch norm.
    pub(super) fn value(&self) -> Result<Option<Tensor>> {
        let largest = self.scales.iter().map(|scale| Ok(scale.abs()?.max(0)?)).collect::<Result<Vec<Tensor>>>()?;
        let mut total: Option<Tensor> = None;
        for term in largest.into_iter().chain(self.spectral_norms()?) {
            total = Some(match total {
                None => term,
                Some(t) => (t + term)?,
            });
        }
        Ok(total)
    }

    /// Of each convolution; the vectors move on.
    fn spectral_norms(&self) -> Result<Vec<Tensor>> {
        let kernels = self.convolutions.iter().map(Conv::kernel).collect::<Result<Vec<_>>>()?;
        let starts: Vec<Tensor> = self.convolutions.iter().map(|conv| conv.spectral.as_detached_tensor()).collect();
        let weights: Vec<_> = kernels.iter().zip(&starts).collect();
        let found = ops::spectral_norms(&weights, POWER_ITERATIONS)?;
        let moved = self.convolutions.iter().zip(found).map(|(conv, (norm, next))| {
            conv.spectral.set(&next)?;
            Ok(norm)
        });
        moved.collect()
    }
}

/// A place among the parameters, and the penalty that the layers built there belong to.
#[derive(Clone)]
pub(super) struct Site<'a> {
    pub(super) params: Params,
    penalty: &'a RefCell<Penalty>,
}

impl<'a> Site<'a> {
    pub(super) fn new(params: Params, penalty: &'a RefCell<Penalty>) -> Self {
        Self { params, penalty }
    }

    /// The place `name` below this one.
    pub(super) fn pp(&self, name: impl Display) -> Self {
        Self { params: self.params.pp(name), penalty: self.penalty }
    }

    /// Batch norm with the constants of NVAE.
    pub(super) fn batch_norm(&self, channels: usize, activation: Activation) -> Result<BatchNorm> {
        let norm = BatchNorm::new(channels, 1e-5, 0.05, activation, &self.params)?;
        let scale = self.params.get("weight", channels, init::ones())?;
        self.penalty.borrow_mut().scales.push(scale);
        Ok(norm)
    }
}

/// What a convolution is like; [`Plan::build`] makes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
    bias: bool,
    weight_norm: bool,
}

impl Plan {
    /// A square kernel at stride 1 that keeps the size, with bias and weight normalisation.
    pub(super) fn new(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self { inputs, outputs, kernel, stride: 1, groups: 1, bias: true, weight_norm: true }
    }

    pub(super) fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    pub(super) fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    pub(super) fn without_bias(self) -> Self {
        Self { bias: false, ..self }
    }

    pub(super) fn without_weight_norm(self) -> Self {
        Self { weight_norm: false, ..self }
    }

    /// Shape of the weight.
    pub(super) fn weight_dims(&self) -> [usize; 4] {
        [self.outputs, self.inputs / self.groups, self.kernel, self.kernel]
    }

    pub(super) fn build(self, site: &Site<'_>) -> Result<Conv> {
        self.build_masked(None, 1.0, site)
    }

    /// Build with a factor for each element of the weight, and the convolution's response at the start times `scale`.
    pub(super) fn build_masked(self, mask: Option<Vec<f32>>, scale: f64, site: &Site<'_>) -> Result<Conv> {
        let dims = self.weight_dims();
        let fan_in: usize = dims[1..].iter().product();
        let params = &site.params;
        let start = init::uniform_fan_in(fan_in);
        // The weight starts uniform in ±1/√fan: a row with a share s of its elements in use is about √(s/3) long.
        let used = mask.as_ref().map_or(1.0, |m| m.iter().map(|f| f64::from(*f)).sum::<f64>() / m.len() as f64);
        let log_length = Init::Const(((used / 3.0).sqrt() + 1e-2).ln() + scale.ln());
        let conv = Conv {
            weight: params.get("weight", dims.as_slice(), start)?,
            log_norm: self
                .weight_norm
                .then(|| params.get("log_weight_norm", (self.outputs, 1, 1, 1), log_length))
                .transpose()?,
            bias: self.bias.then(|| params.get("bias", self.outputs, start)).transpose()?,
            mask,
            config: Conv2dConfig::same((self.kernel, self.kernel))
                .with_stride((self.stride, self.stride))
                .with_groups(self.groups),
            spectral: params.buffer(SPECTRAL_STATE, self.outputs, 0.0)?,
        };
        site.penalty.borrow_mut().convolutions.push(conv.clone());
        Ok(conv)
    }
}

/// A convolution whose weight can be normalised (Salimans and Kingma 2016) and masked.
///
/// Parameters: `weight`, `bias` `[outputs]`, `log_weight_norm` `[outputs, 1, 1, 1]`. Buffer: `spectral_u` `[outputs]`.
#[derive(Clone)]
pub(super) struct Conv {
    weight: Tensor,
    log_norm: Option<Tensor>,
    bias: Option<Tensor>,
    mask: Option<Vec<f32>>,
    config: Conv2dConfig,
    spectral: Var,
}

impl Conv {
    /// The weight that the convolution uses.
    pub(super) fn kernel(&self) -> Result<Tensor> {
        let weight = match &self.mask {
            None => self.weight.clone(),
            Some(mask) => ops::mask(&self.weight, mask.clone())?,
        };
        match &self.log_norm {
            None => Ok(weight),
            Some(log_norm) => ops::weight_norm(&weight, &log_norm.flatten_all()?.exp()?, WEIGHT_NORM_EPS),
        }
    }

    pub(super) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::conv2d(x, &self.kernel()?, self.bias(), &self.config)
    }
}
