//! A transformer with adaptive layer norm on the time (Peebles and Xie 2023, "Scalable diffusion models with
//! transformers", DiT with adaLN-Zero).

use candle_core::{D, Tensor};
use lsgm_core::{Error, Init, LatentShape, Params, Pass, Result, Spatial};
use lsgm_nn::ops::{gelu, layer_norm, silu};
use lsgm_nn::{Dropout, Linear, MultiHeadAttention, TimeEmbedding, init};
use serde::{Deserialize, Serialize};

use super::ScoreNetwork;

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
    features: TimeEmbedding,
    time: [Linear; 2],
    enter: Linear,
    position: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    modulation: Linear,
    leave: Linear,
}

impl Transformer {
    /// Build the network; `config` is taken to be valid.
    pub fn new(config: &TransformerConfig, shape: LatentShape, params: &Params) -> Result<Self> {
        let patches = Patches::new(&shape, config.patch);
        let width = config.channels;
        let linear = |inputs, outputs, name: &str| {
            let weight = init::glorot_uniform(inputs, outputs);
            Linear::new_with(inputs, outputs, Some(init::zeros()), weight, &params.pp(name))
        };
        let open = config.open_gates;
        let time = |inputs, name: &str| {
            let weight = if open { init::glorot_uniform(inputs, width) } else { Init::Normal(0.02) };
            Linear::new_with(inputs, width, Some(init::zeros()), weight, &params.pp(name))
        };
        // As large as the tokens, so that the layer norm does not hide the tokens' length.
        let position = Init::Normal(if open { 0.3 } else { 0.02 });
        Ok(Self {
            patches,
            features: TimeEmbedding { scale: config.embedding_scale, ..TimeEmbedding::new(config.embedding) },
            time: [time(config.embedding, "t_embedder.mlp.0")?, time(width, "t_embedder.mlp.2")?],
            enter: linear(patches.width(), width, "x_embedder")?,
            position: params.get("pos_embed", (1, patches.count(), width), position)?,
            blocks: (0..config.blocks)
                .map(|i| Block::new(config, &params.pp("blocks").pp(i)))
                .collect::<Result<_>>()?,
            norm: Norm::new(width, params)?,
            modulation: zero_linear(width, 2 * width, &params.pp("final_layer.adaLN_modulation.1"))?,
            leave: zero_linear(width, patches.width(), &params.pp("final_layer.linear"))?,
        })
    }

    /// The activated time embedding `[B, channels]`.
    fn embed(&self, t: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.time;
        silu(&second.forward(&silu(&first.forward(&self.features.forward(t)?)?)?)?)
    }
}

impl ScoreNetwork for Transformer {
    fn forward(&self, z_t: &Tensor, t: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let embedding = self.embed(t)?;
        let mut x = self.enter.forward(&self.patches.split(z_t)?)?.broadcast_add(&self.position)?;
        for block in &self.blocks {
            x = block.forward(&x, &embedding, pass)?;
        }
        let parts = modulations(&self.modulation, &embedding, 2)?;
        let [shift, scale] = parts.as_slice() else { return Err(wrong_modulation()) };
        self.patches.merge(&self.leave.forward(&self.norm.modulated(&x, shift, scale)?)?, z_t.dim(0)?)
    }
}

/// Attention and a feed-forward layer, each scaled, shifted and gated by the time; the identity at the start, unless the
/// gates are open.
#[derive(Debug)]
struct Block {
    norm: Norm,
    attention: MultiHeadAttention,
    feed_forward: [Linear; 2],
    modulation: Linear,
    dropout: Dropout,
    /// What is added to both gates.
    open: f64,
}

impl Block {
    fn new(config: &TransformerConfig, params: &Params) -> Result<Self> {
        let (width, wide) = (config.channels, config.channels * config.expansion);
        let linear = |inputs, outputs, name: &str| {
            let weight = init::glorot_uniform(inputs, outputs);
            Linear::new_with(inputs, outputs, Some(init::zeros()), weight, &params.pp(name))
        };
        Ok(Self {
            norm: Norm::new(width, params)?,
            attention: MultiHeadAttention::new(width, config.heads, &params.pp("attn"))?,
            feed_forward: [linear(width, wide, "mlp.fc1")?, linear(wide, width, "mlp.fc2")?],
            modulation: zero_linear(width, 6 * width, &params.pp("adaLN_modulation.1"))?,
            dropout: Dropout { p: config.dropout },
            open: f64::from(u8::from(config.open_gates)),
        })
    }

    fn forward(&self, x: &Tensor, embedding: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let parts = modulations(&self.modulation, embedding, 6)?;
        let [shift1, scale1, gate1, shift2, scale2, gate2] = parts.as_slice() else { return Err(wrong_modulation()) };
        let mixed = self.attention.forward(&self.norm.modulated(x, shift1, scale1)?)?;
        let x = (x + mixed.broadcast_mul(&(gate1 + self.open)?)?)?;
        let [first, second] = &self.feed_forward;
        let wide = gelu(&first.forward(&self.norm.modulated(&x, shift2, scale2)?)?)?;
        let fed = second.forward(&self.dropout.forward(&wide, pass)?)?;
        Ok((&x + fed.broadcast_mul(&(gate2 + self.open)?)?)?)
    }
}

/// Layer norm without parameters of its own.
#[derive(Debug)]
struct Norm {
    one: Tensor,
    zero: Tensor,
}

impl Norm {
    fn new(width: usize, params: &Params) -> Result<Self> {
        let one = Tensor::ones(width, params.dtype(), &params.device())?;
        Ok(Self { zero: one.zeros_like()?, one })
    }

    /// `norm(x) · (1 + scale) + shift` for `x` `[B, L, D]` and `[B, 1, D]` of each of the others.
    fn modulated(&self, x: &Tensor, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let x = layer_norm(x, &self.one, &self.zero, 1e-6)?;
        Ok(x.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(shift)?)
    }
}

fn zero_linear(inputs: usize, outputs: usize, params: &Params) -> Result<Linear> {
    Linear::new_with(inputs, outputs, Some(init::zeros()), init::zeros(), params)
}

/// `count` tensors `[B, 1, D]` of the embedding.
fn modulations(layer: &Linear, embedding: &Tensor, count: usize) -> Result<Vec<Tensor>> {
    Ok(layer.forward(embedding)?.unsqueeze(1)?.chunk(count, D::Minus1)?)
}

fn wrong_modulation() -> Error {
    Error::contract("transformer", "a modulation of another width")
}

/// How latents are cut to tokens, row by row.
#[derive(Debug, Clone, Copy)]
struct Patches {
    channels: usize,
    spatial: Spatial,
    side: usize,
}

impl Patches {
    fn new(shape: &LatentShape, side: usize) -> Self {
        Self { channels: shape.channels, spatial: shape.spatial, side }
    }

    /// Number of tokens.
    fn count(self) -> usize {
        match self.spatial {
            Spatial::Line(length) => length / self.side,
            Spatial::Plane(height, width) => (height / self.side) * (width / self.side),
        }
    }

    /// Latent values in a token.
    fn width(self) -> usize {
        match self.spatial {
            Spatial::Line(_) => self.channels * self.side,
            Spatial::Plane(..) => self.channels * self.side * self.side,
        }
    }

    /// Latents to tokens `[B, count, width]`.
    fn split(self, z: &Tensor) -> Result<Tensor> {
        let (batch, channels, p) = (z.dim(0)?, self.channels, self.side);
        let cut = match self.spatial {
            Spatial::Line(length) => z.reshape((batch, channels, length / p, p))?.permute((0, 2, 1, 3))?,
            Spatial::Plane(height, width) => {
                z.reshape(vec![batch, channels, height / p, p, width / p, p])?.permute(vec![0, 2, 4, 1, 3, 5])?
            }
        };
        Ok(cut.reshape((batch, self.count(), self.width()))?)
    }

    /// Tokens back to latents.
    fn merge(self, tokens: &Tensor, batch: usize) -> Result<Tensor> {
        let (channels, p) = (self.channels, self.side);
        Ok(match self.spatial {
            Spatial::Line(length) => tokens
                .reshape((batch, length / p, channels, p))?
                .permute((0, 2, 1, 3))?
                .reshape((batch, channels, length))?,
            Spatial::Plane(height, width) => tokens
                .reshape(vec![batch, height / p, width / p, channels, p, p])?
                .permute(vec![0, 3, 1, 4, 2, 5])?
                .reshape((batch, channels, height, width))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use lsgm_core::Rng;

    #[test]
    fn cutting_to_patches_loses_nothing() {
        for (shape, side, count) in [(LatentShape::plane(3, 4, 6), 2, 6), (LatentShape::line(3, 6), 3, 2)] {
            let patches = Patches::new(&shape, side);
            let z = Rng::new(1).normal_tensor(shape.dims(2), DType::F64, &Device::Cpu).unwrap();
            let tokens = patches.split(&z).unwrap();
            assert_eq!(tokens.dims(), [2, count, patches.width()]);
            let back = patches.merge(&tokens, 2).unwrap();
            assert_eq!(
                back.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
                z.flatten_all().unwrap().to_vec1::<f64>().unwrap()
            );
        }
    }
}
