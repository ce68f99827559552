//! The rows of the table: what one call of each computes.

use candle_core::{DType, Tensor, Var};
use lsgm::nn::ops::{self, Activation, Conv1dConfig, Conv2dConfig, ConvTranspose2dConfig};
use lsgm::nn::optim::{Gradients, Optimizer, OptimizerConfig, OptimizerKind};
use lsgm::nn::{Conv1d, Conv2d, ConvTranspose2d, LayerNorm, Linear, MultiHeadAttention, backward, lower_precision};
use lsgm::{ParamStore, Params, Result, Rng};
use serde::Deserialize;

use crate::networks::{self, Sizes};
use crate::placement::device;
use crate::resnet;

/// One call: forward and backward with respect to input and parameters, or a training step.
pub(crate) type Step = Box<dyn FnMut() -> Result<()>>;

/// A row of `rows.json`.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Row {
    Conv2d(Conv),
    Conv1d(Conv),
    #[serde(rename = "conv_transpose2d")]
    ConvTranspose2d(Conv),
    Linear {
        input: Vec<usize>,
        weight: [usize; 2],
    },
    BatchNorm {
        input: Vec<usize>,
    },
    GroupNorm {
        input: Vec<usize>,
        groups: usize,
        #[serde(default)]
        silu: bool,
    },
    LayerNorm {
        input: Vec<usize>,
    },
    Silu {
        input: Vec<usize>,
    },
    Softmax {
        input: Vec<usize>,
    },
    MultiHeadAttention {
        input: Vec<usize>,
        heads: usize,
    },
    Attention {
        input: Vec<usize>,
    },
    Resnet {
        input: Vec<usize>,
        blocks: usize,
        groups: usize,
    },
    #[serde(rename = "adamw")]
    AdamW {
        tensors: usize,
        elements: usize,
    },
    Nvae(Sizes),
    Lsgm(Sizes),
    Sample(Sizes),
}

/// Shapes and numbers of a convolution.
#[derive(Deserialize)]
pub(crate) struct Conv {
    input: Vec<usize>,
    weight: Vec<usize>,
    #[serde(default)]
    padding: usize,
    #[serde(default = "one")]
    stride: usize,
    #[serde(default = "one")]
    groups: usize,
}

fn one() -> usize {
    1
}

impl Row {
    /// Make inputs and parameters.
    pub(crate) fn build(self) -> Result<Step> {
        match self {
            Self::Conv2d(c) => {
                let (stride, padding, groups) = ((c.stride, c.stride), (c.padding, c.padding), c.groups);
                let config = Conv2dConfig { stride, padding, groups, ..Default::default() };
                let kernel = (c.weight[2], c.weight[3]);
                layer(
                    c.input,
                    |p| Conv2d::new(c.weight[1] * c.groups, c.weight[0], kernel, config, true, p),
                    |l, x| l.forward(x),
                )
            }
            Self::Conv1d(c) => {
                let config = Conv1dConfig { stride: c.stride, padding: c.padding, groups: c.groups, dilation: 1 };
                let (inputs, outputs, kernel) = (c.weight[1] * c.groups, c.weight[0], c.weight[2]);
                layer(c.input, |p| Conv1d::new(inputs, outputs, kernel, config, true, p), |l, x| l.forward(x))
            }
            Self::ConvTranspose2d(c) => {
                let (stride, padding) = ((c.stride, c.stride), (c.padding, c.padding));
                let config = ConvTranspose2dConfig { stride, padding, groups: c.groups, ..Default::default() };
                let kernel = (c.weight[2], c.weight[3]);
                layer(
                    c.input,
                    |p| ConvTranspose2d::new(c.weight[0], c.weight[1] * c.groups, kernel, config, true, p),
                    |l, x| l.forward(x),
                )
            }
            Self::Linear { input, weight: [outputs, inputs] } => {
                layer(input, |p| Linear::new(inputs, outputs, true, p), |l, x| l.forward(x))
            }
            Self::BatchNorm { input } => {
                let channels = input[1];
                let norm = move |p: &Params| lsgm::nn::BatchNorm::new(channels, 1e-5, 0.1, Activation::Identity, p);
                layer(input, norm, |l, x| l.forward(x, true))
            }
            Self::GroupNorm { input, groups, silu } => {
                let channels = input[1];
                let activation = if silu { Activation::Silu } else { Activation::Identity };
                let norm = move |p: &Params| lsgm::nn::GroupNorm::new(groups, channels, 1e-5, activation, p);
                layer(input, norm, |l, x| l.forward(x))
            }
            Self::LayerNorm { input } => {
                let dim = input[1];
                layer(input, |p| LayerNorm::new(dim, 1e-5, p), |l, x| l.forward(x))
            }
            Self::Silu { input } => layer(input, |_| Ok(()), |(), x| ops::silu(x)),
            Self::Softmax { input } => layer(input, |_| Ok(()), |(), x| ops::softmax(x)),
            Self::MultiHeadAttention { input, heads } => {
                let channels = input[2];
                layer(input, |p| MultiHeadAttention::new(channels, heads, p), |l, x| l.forward(x))
            }
            Self::Attention { input } => attention(input),
            Self::Resnet { input, blocks, groups } => resnet::build(input, blocks, groups),
            Self::AdamW { tensors, elements } => adamw(tensors, elements),
            Self::Nvae(sizes) => networks::nvae(&sizes),
            Self::Lsgm(sizes) => networks::lsgm(&sizes),
            Self::Sample(sizes) => networks::sample(&sizes),
        }
    }
}

pub(crate) fn normal(seed: u64, shape: &[usize]) -> Result<Tensor> {
    Rng::new(seed).normal_tensor(shape, DType::F32, device()?)
}

/// Forward and backward of a layer with respect to its input and its parameters; the gradient of the output is one.
fn layer<L: 'static>(
    input: Vec<usize>,
    build: impl FnOnce(&Params) -> Result<L>,
    forward: impl Fn(&L, &Tensor) -> Result<Tensor> + 'static,
) -> Result<Step> {
    let store = ParamStore::new(DType::F32, device()?, Rng::new(1));
    let layer = build(&store.root())?;
    let x = Var::from_tensor(&normal(2, &input)?)?;
    Ok(Box::new(move || {
        backward(&forward(&layer, &lower_precision(&x)?)?)?;
        Ok(())
    }))
}

fn attention(input: Vec<usize>) -> Result<Step> {
    let inputs = (1..4).map(|seed| Ok(Var::from_tensor(&normal(seed, &input)?)?)).collect::<Result<Vec<_>>>()?;
    let scale = 1.0 / (input[3] as f64).sqrt();
    Ok(Box::new(move || {
        let [q, k, v] = [0, 1, 2].map(|i| lower_precision(&inputs[i]));
        backward(&ops::attention(&q?, &k?, &v?, scale)?)?;
        Ok(())
    }))
}

/// The optimizer's step alone, with gradients that stay.
fn adamw(tensors: usize, elements: usize) -> Result<Step> {
    let var = |i: usize| Ok((format!("p{i:03}"), Var::from_tensor(&normal(i as u64, &[elements])?)?));
    let vars = (0..tensors).map(var).collect::<Result<Vec<_>>>()?;
    let mut loss = Tensor::zeros((), DType::F32, device()?)?;
    for (_, var) in &vars {
        loss = (loss + var.sqr()?.sum_all()?)?;
    }
    let gradients = Gradients::collect(&backward(&loss)?, &vars);
    let mut optimizer = Optimizer::new(adamw_config(), vars)?;
    Ok(Box::new(move || optimizer.step(&gradients, 1e-6, 1.0, None)))
}

/// PyTorch's defaults.
pub(crate) fn adamw_config() -> OptimizerConfig {
    OptimizerConfig { kind: OptimizerKind::AdamW, weight_decay: 1e-2, ..Default::default() }
}
