//! A training step of residual blocks: `x + conv(silu(norm(conv(silu(norm(x))))))`.

use candle_core::{DType, Tensor};
use lsgm::nn::ops::{Activation, Conv2dConfig};
use lsgm::nn::optim::{Gradients, Optimizer};
use lsgm::nn::{Conv2d, GroupNorm, backward, full_precision, lower_precision};
use lsgm::{ParamStore, Params, Result, Rng};

use crate::placement::device;
use crate::rows::{Step, adamw_config, normal};

struct Block([(GroupNorm, Conv2d); 2]);

impl Block {
    fn new(channels: usize, groups: usize, params: &Params) -> Result<Self> {
        let half = |name: &str| -> Result<(GroupNorm, Conv2d)> {
            let p = params.pp(name);
            let norm = GroupNorm::new(groups, channels, 1e-5, Activation::Silu, &p.pp("norm"))?;
            Ok((norm, Conv2d::new(channels, channels, (3, 3), Conv2dConfig::same((3, 3)), true, &p.pp("conv"))?))
        };
        Ok(Self([half("first")?, half("second")?]))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = x.clone();
        for (norm, conv) in &self.0 {
            y = conv.forward(&norm.forward(&y)?)?;
        }
        Ok((x + y)?)
    }
}

/// Forward, mean square error, backward and AdamW.
pub(crate) fn build(input: Vec<usize>, blocks: usize, groups: usize) -> Result<Step> {
    let store = ParamStore::new(DType::F32, device()?, Rng::new(1));
    let block = |i: usize| Block::new(input[1], groups, &store.root().pp(i));
    let blocks = (0..blocks).map(block).collect::<Result<Vec<_>>>()?;
    let (x, target) = (normal(2, &input)?, normal(3, &input)?);
    let mut optimizer = Optimizer::new(adamw_config(), store.vars())?;
    Ok(Box::new(move || {
        let mut y = lower_precision(&x)?;
        for block in &blocks {
            y = block.forward(&y)?;
        }
        let loss = (full_precision(&y)? - &target)?.sqr()?.mean_all()?;
        let gradients = Gradients::collect(&backward(&loss)?, optimizer.vars());
        optimizer.step(&gradients, 1e-4, 1.0, None)
    }))
}
