use candle_core::{Tensor, Var};
use lsgm_core::{Params, Result};

use crate::checkpoint::runs_again;
use crate::init;
use crate::ops::{self, Activation};

/// The number of groups that NCSN++ takes for `channels`: `min(channels / 4, 32)`, or the next smaller divisor.
pub fn groups_for(channels: usize) -> usize {
    (1..=(channels / 4).clamp(1, 32)).rev().find(|g| channels.is_multiple_of(*g)).unwrap_or(1)
}

/// Group normalisation with a fused activation; see [`ops::group_norm`].
///
/// Parameters: `weight` `[channels]` (ones), `bias` `[channels]` (zeros).
#[derive(Debug, Clone)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
    activation: Activation,
}

impl GroupNorm {
    /// `eps` is 1e-5 in PyTorch and 1e-6 in NCSN++.
    ///
    /// # Errors
    /// When the store has a parameter with another shape.
    pub fn new(groups: usize, channels: usize, eps: f64, activation: Activation, params: &Params) -> Result<Self> {
        Ok(Self {
            weight: params.get("weight", channels, init::ones())?,
            bias: params.get("bias", channels, init::zeros())?,
            groups,
            eps,
            activation,
        })
    }

    /// `[B, channels, ..]` to the same shape.
    ///
    /// # Errors
    /// Another number of channels, or groups that do not divide it.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::group_norm(x, &self.weight, &self.bias, self.groups, self.eps, self.activation)
    }
}

/// Layer normalisation of the last dimension; see [`ops::layer_norm`].
///
/// Parameters: `weight` `[dim]` (ones), `bias` `[dim]` (zeros).
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Build it.
    ///
    /// # Errors
    /// When the store has a parameter with another shape.
    pub fn new(dim: usize, eps: f64, params: &Params) -> Result<Self> {
        Ok(Self {
            weight: params.get("weight", dim, init::ones())?,
            bias: params.get("bias", dim, init::zeros())?,
            eps,
        })
    }

    /// `[.., dim]` to the same shape.
    ///
    /// # Errors
    /// Another last dimension.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// Root-mean-square normalisation of the last dimension; see [`ops::rms_norm`].
///
/// Parameter: `weight` `[dim]` (ones).
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// Build it.
    ///
    /// # Errors
    /// When the store has a parameter with another shape.
    pub fn new(dim: usize, eps: f64, params: &Params) -> Result<Self> {
        Ok(Self { weight: params.get("weight", dim, init::ones())?, eps })
    }

    /// `[.., dim]` to the same shape.
    ///
    /// # Errors
    /// Another last dimension.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm(x, &self.weight, self.eps)
    }
}

/// Batch normalisation with a fused activation and running statistics.
///
/// Parameters: `weight` `[channels]` (ones), `bias` `[channels]` (zeros). Buffers, which no optimizer sees:
/// `running_mean` (zeros) and `running_var` (ones), `[channels]` each.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Var,
    running_var: Var,
    eps: f64,
    momentum: f64,
    activation: Activation,
}

impl BatchNorm {
    /// `momentum` is the weight of a new batch in the running statistics: 0.1 in PyTorch, 0.05 in NVAE.
    ///
    /// # Errors
    /// When the store has a parameter or buffer with another shape.
    pub fn new(channels: usize, eps: f64, momentum: f64, activation: Activation, params: &Params) -> Result<Self> {
        Ok(Self {
            weight: params.get("weight", channels, init::ones())?,
            bias: params.get("bias", channels, init::zeros())?,
            running_mean: params.buffer("running_mean", channels, 0.0)?,
            running_var: params.buffer("running_var", channels, 1.0)?,
            eps,
            momentum,
            activation,
        })
    }

    /// `[B, channels, ..]` to the same shape. In training the batch's statistics normalise and move the running ones
    /// (the variance without bias, as in PyTorch); else the running ones normalise.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor> {
        let (weight, bias) = (&self.weight, &self.bias);
        if !training {
            let (mean, var) = (self.running_mean.as_tensor(), self.running_var.as_tensor());
            return ops::batch_norm_eval(x, weight, bias, mean, var, self.eps, self.activation);
        }
        let (y, mean, var) = ops::batch_norm_train(x, weight, bias, self.eps, self.activation)?;
        if runs_again() {
            return Ok(y);
        }
        let n = (x.elem_count() / mean.elem_count()) as f64;
        let unbias = if n > 1.0 { n / (n - 1.0) } else { 1.0 };
        self.follow(&self.running_mean, &mean, 1.0)?;
        self.follow(&self.running_var, &var, unbias)?;
        Ok(y)
    }

    fn follow(&self, running: &Var, batch: &Tensor, scale: f64) -> Result<()> {
        let kept = (running.as_detached_tensor() * (1.0 - self.momentum))?;
        running.set(&(kept + (batch * (scale * self.momentum))?)?)?;
        Ok(())
    }
}
