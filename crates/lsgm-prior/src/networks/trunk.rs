//! The blocks between the tokens that enter a transformer and those that leave it.

use std::sync::Arc;

use candle_core::{D, Tensor};
use lsgm_core::{Error, Init, Params, Pass, Result};
use lsgm_nn::ops::{gated_sum, gelu, modulated_layer_norm, silu};
use lsgm_nn::{Dropout, Linear, MultiHeadAttention, TimeEmbedding, checkpoint_in, init, lower_precision};

use super::TransformerConfig;

/// Longest wave of the rotary embedding, as in Su et al. (2021).
const LONGEST_WAVE: f64 = 10_000.0;
/// What is added to the variance in layer norms.
const EPS: f64 = 1e-6;

/// Positions, blocks with adaptive layer norm on the time, and a last adaptive layer norm: tokens `[B, L, channels]` to
/// tokens of the same shape.
#[derive(Debug)]
pub(super) struct Trunk {
    features: TimeEmbedding,
    time: [Linear; 2],
    position: Tensor,
    blocks: Vec<Arc<Block>>,
    modulation: Linear,
}

impl Trunk {
    /// For `count` tokens.
    pub(super) fn new(config: &TransformerConfig, count: usize, params: &Params) -> Result<Self> {
        let width = config.channels;
        let open = config.open_gates;
        let time = |inputs, name: &str| {
            let weight = if open { init::glorot_uniform(inputs, width) } else { Init::Normal(0.02) };
            Linear::new_with(inputs, width, Some(init::zeros()), weight, &params.pp(name))
        };
        // As large as the tokens, so that the layer norm does not hide the tokens' length.
        let position = Init::Normal(if open { 0.3 } else { 0.02 });
        Ok(Self {
            features: TimeEmbedding { scale: config.embedding_scale, ..TimeEmbedding::new(config.embedding) },
            time: [time(config.embedding, "t_embedder.mlp.0")?, time(width, "t_embedder.mlp.2")?],
            position: params.get("pos_embed", (1, count, width), position)?,
            blocks: (0..config.blocks)
                .map(|i| Ok(Arc::new(Block::new(config, &params.pp("blocks").pp(i))?)))
                .collect::<Result<_>>()?,
            modulation: zero_linear(width, 2 * width, &params.pp("final_layer.adaLN_modulation.1"))?,
        })
    }

    /// Tokens in full precision to tokens in that of activations.
    pub(super) fn forward(&self, tokens: &Tensor, t: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        // Gradients are summed in full precision: the embedding's over blocks, the positions' over items.
        let embedding = self.embed(t, tokens)?;
        let mut x = lower_precision(&tokens.broadcast_add(&self.position)?)?;
        for block in &self.blocks {
            let block = Arc::clone(block);
            x = checkpoint_in(pass, &[&x, &embedding], move |inputs, pass| {
                block.forward(&inputs[0], &inputs[1], pass)
            })?;
        }
        let parts = modulations(&self.modulation, &embedding, 2, &x)?;
        let [shift, scale] = parts.as_slice() else { return Err(wrong_modulation()) };
        modulated_layer_norm(&x, scale, shift, EPS)
    }

    /// The activated time embedding `[B, channels]`, in the type and on the device of `like`.
    fn embed(&self, t: &Tensor, like: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.time;
        silu(&second.forward(&silu(&first.forward(&self.features.forward_like(t, like)?)?)?)?)
    }
}

/// Attention and a feed-forward layer, each scaled, shifted and gated by the time; the identity at the start, unless the
/// gates are open.
#[derive(Debug)]
struct Block {
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
        let attention = MultiHeadAttention::new(width, config.heads, &params.pp("attn"))?;
        Ok(Self {
            attention: if config.rotary { attention.with_rotary(LONGEST_WAVE) } else { attention },
            feed_forward: [linear(width, wide, "mlp.fc1")?, linear(wide, width, "mlp.fc2")?],
            modulation: zero_linear(width, 6 * width, &params.pp("adaLN_modulation.1"))?,
            dropout: Dropout { p: config.dropout },
            open: f64::from(u8::from(config.open_gates)),
        })
    }

    fn forward(&self, x: &Tensor, embedding: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let parts = modulations(&self.modulation, embedding, 6, x)?;
        let [shift1, scale1, gate1, shift2, scale2, gate2] = parts.as_slice() else { return Err(wrong_modulation()) };
        let mixed = self.attention.forward(&modulated_layer_norm(x, scale1, shift1, EPS)?)?;
        let x = gated_sum(x, &mixed, &(gate1 + self.open)?)?;
        let [first, second] = &self.feed_forward;
        let wide = gelu(&first.forward(&modulated_layer_norm(&x, scale2, shift2, EPS)?)?)?;
        let fed = second.forward(&self.dropout.forward(&wide, pass)?)?;
        gated_sum(&x, &fed, &(gate2 + self.open)?)
    }
}

/// A layer that starts at zero.
pub(super) fn zero_linear(inputs: usize, outputs: usize, params: &Params) -> Result<Linear> {
    Linear::new_with(inputs, outputs, Some(init::zeros()), init::zeros(), params)
}

/// `count` tensors `[B, 1, D]` of the embedding, in the type of `like`.
fn modulations(layer: &Linear, embedding: &Tensor, count: usize, like: &Tensor) -> Result<Vec<Tensor>> {
    Ok(layer.forward(embedding)?.to_dtype(like.dtype())?.unsqueeze(1)?.chunk(count, D::Minus1)?)
}

fn wrong_modulation() -> Error {
    Error::contract("transformer", "a modulation of another width")
}
