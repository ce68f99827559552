//! A transformer with adaptive layer norm on the time (Peebles and Xie 2023, "Scalable diffusion models with
//! transformers", DiT with adaLN-Zero).

use candle_core::Tensor;
use lsgm_core::{Error, LatentShape, Params, Pass, Result, Spatial};
use lsgm_nn::{Linear, full_precision, init};
use serde::{Deserialize, Serialize};

use super::ScoreNetwork;
use super::patches::Patches;
use super::trunk::{Trunk, zero_linear};

/// Config of [`Transformer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformerConfig {
    /// Width of a token.
    pub channels: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Attention heads.
    pub heads: usize,
    /// Side of the patch that makes a token; it must divide the size of the latent.
    pub patch: usize,
    /// Width of the feed-forward layer as a multiple of `channels`.
    pub expansion: usize,
    /// Dropout probability in the feed-forward layers.
    pub dropout: f64,
    /// Number of sinusoidal features of the time; an even number of at least 4.
    pub embedding: usize,
    /// What `t` is multiplied with before its sinusoidal features.
    pub embedding_scale: f64,
    /// Let the blocks take part from the first step: their gates start at 1, and the embeddings of times and positions at
    /// full size. Published DiTs have their blocks grow in from nothing, which takes longer than a short training lasts.
    /// Either way the network starts as zero.
    pub open_gates: bool,
    /// Turn queries and keys by their positions along the line (Su et al. 2021), so that what stands how far from what is
    /// at hand from the first step. For latents `[B, C, L]`.
    pub rotary: bool,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            channels: 192,
            blocks: 6,
            heads: 6,
            patch: 1,
            expansion: 4,
            dropout: 0.0,
            embedding: 256,
            embedding_scale: 1000.0,
            open_gates: false,
            rotary: false,
        }
    }
}

impl TransformerConfig {
    /// # Errors
    /// [`Error::Config`] with a key below `key`.
    pub fn validate(&self, key: &str, shape: &LatentShape) -> Result<()> {
        let refuse = |field: &str, message: String| Err(Error::config(format!("{key}.{field}"), message));
        if self.channels == 0 || self.heads == 0 || !self.channels.is_multiple_of(self.heads) {
            return refuse("heads", format!("{} heads do not divide {} channels", self.heads, self.channels));
        }
        for (field, value) in [("blocks", self.blocks), ("patch", self.patch), ("expansion", self.expansion)] {
            if value == 0 {
                return refuse(field, "must be positive".into());
            }
        }
        let sides = match shape.spatial {
            Spatial::Line(length) => vec![length],
            Spatial::Plane(height, width) => vec![height, width],
        };
        if sides.iter().any(|side| !side.is_multiple_of(self.patch)) {
            let message =
                format!("{} does not divide the latent's size {sides:?}: use 1, or a common divisor", self.patch);
            return refuse("patch", message);
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout", format!("{} must be at least 0 and below 1", self.dropout));
        }
        if self.rotary && matches!(shape.spatial, Spatial::Plane(..)) {
            return refuse("rotary", format!("a latent of {sides:?} is no line: leave it out"));
        }
        if self.rotary && !(self.channels / self.heads).is_multiple_of(2) {
            return refuse("rotary", format!("wants an even number of channels in each of {} heads", self.heads));
        }
        if self.embedding < 4 || !self.embedding.is_multiple_of(2) {
            return refuse("embedding", format!("{} must be an even number of at least 4", self.embedding));
        }
        if !(self.embedding_scale > 0.0 && self.embedding_scale.is_finite()) {
            return refuse("embedding_scale", "must be above 0; 1000 is usual".into());
        }
        Ok(())
    }
}

/// The transformer score network for latents `[B, C, L]` or `[B, C, H, W]`.
#[derive(Debug)]
pub struct Transformer {
    patches: Patches,
    enter: Linear,
    trunk: Trunk,
    leave: Linear,
}

impl Transformer {
    /// Build the network; `config` is taken to be valid.
    pub fn new(config: &TransformerConfig, shape: LatentShape, params: &Params) -> Result<Self> {
        let patches = Patches::new(&shape, config.patch);
        let (inputs, width) = (patches.width(), config.channels);
        let weight = init::glorot_uniform(inputs, width);
        Ok(Self {
            enter: Linear::new_with(inputs, width, Some(init::zeros()), weight, &params.pp("x_embedder"))?,
            trunk: Trunk::new(config, patches.count(), params)?,
            leave: zero_linear(width, inputs, &params.pp("final_layer.linear"))?,
            patches,
        })
    }
}

impl ScoreNetwork for Transformer {
    fn forward(&self, z_t: &Tensor, t: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let tokens = self.enter.forward(&self.patches.split(z_t)?)?;
        let noise = self.leave.forward(&self.trunk.forward(&tokens, t, pass)?)?;
        full_precision(&self.patches.merge(&noise, z_t.dim(0)?)?)
    }
}
