//! The transformer block of encoder and decoders.

use candle_core::{D, Device, Tensor};
use lsgm_core::{Init, Params, Result, upload};
use lsgm_nn::ops::{self, gelu};
use lsgm_nn::{Linear, RmsNorm, init, lower_precision};

use crate::config::{Positions, TransformerConfig};

/// Longest wave of the rotary embedding, as in Su et al. (2021).
const ROTARY_BASE: f64 = 10_000.0;

/// Attention and a feed-forward layer, each behind an RMS norm and around a skip connection; the identity at the start.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    norms: [RmsNorm; 2],
    qkv: Linear,
    out: Linear,
    feed_forward: [Linear; 2],
    heads: usize,
    rotary: bool,
    causal: bool,
}

impl Block {
    fn new(config: &TransformerConfig, causal: bool, params: &Params) -> Result<Self> {
        let (width, wide) = (config.channels, config.channels * config.expansion);
        let norm = |name: &str| RmsNorm::new(width, 1e-6, &params.pp(name));
        let last =
            |inputs, name: &str| Linear::new_with(inputs, width, Some(init::zeros()), init::zeros(), &params.pp(name));
        Ok(Self {
            norms: [norm("norm1")?, norm("norm2")?],
            qkv: Linear::new(width, 3 * width, true, &params.pp("qkv"))?,
            out: last(width, "out")?,
            feed_forward: [Linear::new(width, wide, true, &params.pp("fc1"))?, last(wide, "fc2")?],
            heads: config.heads,
            rotary: config.positions == Positions::Rotary,
            causal,
        })
    }

    /// `[B, L, D]` to the same shape.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.norms;
        let [wide, narrow] = &self.feed_forward;
        let x = (x + self.attention(&first.forward(x)?)?)?;
        Ok((&x + narrow.forward(&gelu(&wide.forward(&second.forward(&x)?)?)?)?)?)
    }

    fn attention(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, length, width) = x.dims3()?;
        let size = width / self.heads;
        let scale = 1.0 / (size as f64).sqrt();
        let qkv = self.qkv.forward(x)?;
        if !self.causal {
            let base = self.rotary.then_some(ROTARY_BASE);
            return self.out.forward(&ops::self_attention(&qkv, self.heads, scale, base)?);
        }
        // [B, L, 3, H, D] -> [3, B, H, L, D]
        let qkv = qkv.reshape((batch, length, 3, self.heads, size))?.permute((2, 0, 3, 1, 4))?;
        let turn = |t: Tensor| if self.rotary { ops::rotary(&t, ROTARY_BASE) } else { Ok(t) };
        let y = causal_attention(&turn(qkv.get(0)?)?, &turn(qkv.get(1)?)?, &qkv.get(2)?, scale)?;
        self.out.forward(&y.transpose(1, 2)?.reshape((batch, length, width))?)
    }
}

/// Attention in which no position sees a later one, `[B, H, L, D]` each.
fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
    let length = q.dim(2)?;
    let scores = (q.contiguous()?.matmul(&k.transpose(2, 3)?.contiguous()?)? * scale)?;
    let places = upload(&Tensor::arange(0u32, length as u32, &Device::Cpu)?, q.device())?;
    let later = places.unsqueeze(0)?.broadcast_gt(&places.unsqueeze(1)?)?;
    let zeros = Tensor::zeros((length, length), q.dtype(), q.device())?;
    let hidden = later.where_cond(&(&zeros - f64::INFINITY)?, &zeros)?;
    Ok(ops::softmax(&scores.broadcast_add(&hidden)?)?.matmul(&v.contiguous()?)?)
}

/// Blocks one after another, with their positions and a norm at the end.
#[derive(Debug, Clone)]
pub(crate) struct Stack {
    positions: Option<Tensor>,
    blocks: Vec<Block>,
    norm: RmsNorm,
}

impl Stack {
    /// `count` blocks for sequences of `length`.
    pub(crate) fn new(
        config: &TransformerConfig,
        count: usize,
        length: usize,
        causal: bool,
        params: &Params,
    ) -> Result<Self> {
        let learned = config.positions == Positions::Learned;
        let positions =
            learned.then(|| params.get("positions", (1, length, config.channels), Init::Normal(0.02))).transpose()?;
        let blocks = (0..count).map(|i| Block::new(config, causal, &params.pp("blocks").pp(i)));
        Ok(Self {
            positions,
            blocks: blocks.collect::<Result<_>>()?,
            norm: RmsNorm::new(config.channels, 1e-6, &params.pp("norm"))?,
        })
    }

    /// `[B, L, D]` in full precision to the same shape in that of activations.
    pub(crate) fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = match &self.positions {
            Some(positions) => x.broadcast_add(&positions.narrow(1, 0, x.dim(1)?)?)?,
            None => x,
        };
        let x = lower_precision(&x)?;
        self.norm.forward(&self.blocks.iter().try_fold(x, |x, block| block.forward(&x))?)
    }
}

/// `[B, L, D]` to `[B, L / r, r · D]`: neighbours side by side.
pub(crate) fn fold(x: &Tensor, r: usize) -> Result<Tensor> {
    let (batch, length, width) = x.dims3()?;
    Ok(x.reshape((batch, length / r, r * width))?)
}

/// `[B, L, r · D]` to `[B, r · L, D]`.
pub(crate) fn unfold(x: &Tensor, r: usize) -> Result<Tensor> {
    let (batch, length, width) = x.dims3()?;
    Ok(x.reshape((batch, length * r, width / r))?)
}

/// `[B, C, L]` to `[B, L, C]` and back.
pub(crate) fn turned(x: &Tensor) -> Result<Tensor> {
    Ok(x.transpose(1, D::Minus1)?.contiguous()?)
}
