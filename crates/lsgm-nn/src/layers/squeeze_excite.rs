use candle_core::Tensor;
use lsgm_core::{Params, Result};

use super::Linear;
use crate::ops;

/// Squeeze-and-excitation (Hu et al. 2018): each channel is scaled by a gate computed from the means of all channels.
///
/// Parameters: `reduce.*` and `expand.*`, two linear layers with a rectifier between them.
#[derive(Debug, Clone)]
pub struct SqueezeExcite {
    reduce: Linear,
    expand: Linear,
}

impl SqueezeExcite {
    /// With `hidden` features between the layers.
    ///
    /// # Errors
    /// When the store has a parameter with another shape.
    pub fn new(channels: usize, hidden: usize, params: &Params) -> Result<Self> {
        Ok(Self {
            reduce: Linear::new(channels, hidden, true, &params.pp("reduce"))?,
            expand: Linear::new(hidden, channels, true, &params.pp("expand"))?,
        })
    }

    /// `[B, channels, ..]` to the same shape.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = ops::relu(&self.reduce.forward(&ops::global_avg_pool(x)?)?)?;
        ops::squeeze_excite(x, &self.expand.forward(&hidden)?)
    }
}
