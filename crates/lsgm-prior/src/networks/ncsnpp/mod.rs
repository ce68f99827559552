//! NCSN++ (Song et al. 2021, appendix H) in the form that LSGM uses it on latents.

mod block;
mod config;
mod pyramid;
mod resample;
mod time;

pub use config::NcsnppConfig;
pub use pyramid::{Progressive, ProgressiveCombine, ProgressiveInput};
pub use time::TimeFeatures;

use candle_core::Tensor;
use lsgm_core::{Error, LatentShape, Params, Pass, Result};
use lsgm_nn::ops::silu;
use lsgm_nn::{Conv2d, Linear, full_precision, lower_precision};

use self::block::{Attention, Block, Change, Shared, conv, dense};
use self::pyramid::{Head, Input, Output, StridedConv};
use self::resample::Resampler;
use self::time::Features;
use super::ScoreNetwork;
use super::plane::Plane;

/// The NCSN++ score network for latents `[B, C, H, W]`, and with kernels along the line for `[B, C, L]`.
///
/// Parameters carry the published names, `all_modules.0.weight` and so on.
#[derive(Debug)]
pub struct Ncsnpp {
    shared: Shared,
    features: Features,
    dense: [Linear; 2],
    enter: Conv2d,
    down: Vec<DownLevel>,
    middle: (Block, Attention, Block),
    up: Vec<UpLevel>,
    leave: Option<Head>,
}

#[derive(Debug)]
struct DownLevel {
    plane: Plane,
    blocks: Vec<(Block, Option<Attention>)>,
    /// To the next level.
    down: Option<(Block, Input)>,
}

#[derive(Debug)]
struct UpLevel {
    plane: Plane,
    blocks: Vec<Block>,
    attention: Option<Attention>,
    output: Output,
    /// To the level above.
    up: Option<Block>,
}

impl Ncsnpp {
    /// Build the network; `config` is taken to be valid.
    pub fn new(config: &NcsnppConfig, shape: LatentShape, params: &Params) -> Result<Self> {
        let plane = Plane::new(&shape);
        let shared = Shared {
            plane,
            embedding: 4 * config.embedding,
            dropout: config.dropout,
            skip_rescale: config.skip_rescale,
            resampler: Resampler::new(config.fir, plane, params)?,
        };
        let mut build = Builder {
            config,
            shared,
            latent: shape.channels,
            params: params.pp("all_modules"),
            next: 0,
            skips: vec![],
        };
        let (embedding, latent) = (4 * config.embedding, shape.channels);
        let dense = [dense(config.embedding, embedding, &build.place())?, dense(embedding, embedding, &build.place())?];
        let enter = conv(latent, config.channels, 3, plane, &build.place())?;
        let (down, channels) = build.down()?;
        let middle = (
            build.block(channels, channels, Change::Keep)?,
            Attention::new(channels, &build.place())?,
            build.block(channels, channels, Change::Keep)?,
        );
        let (up, channels) = build.up(channels)?;
        let leave = match config.progressive {
            Progressive::OutputSkip => None,
            _ => Some(build.head(channels, latent, true)?),
        };
        let features = Features::new(config, params)?;
        Ok(Self { shared: build.shared, features, dense, enter, down, middle, up, leave })
    }

    fn embed(&self, t: &Tensor, like: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.dense;
        silu(&second.forward(&silu(&first.forward(&self.features.forward(t, like)?)?)?)?)
    }
}

impl ScoreNetwork for Ncsnpp {
    fn forward(&self, z_t: &Tensor, t: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let (shared, embedding) = (&self.shared, self.embed(t, z_t)?);
        let mut input = shared.plane.enter(&lower_precision(z_t)?)?;
        let mut h = self.enter.forward(&input)?;
        let mut skips = vec![h.clone()];
        for level in &self.down {
            for (block, attention) in &level.blocks {
                h = block.forward(&h, &embedding, shared, pass)?;
                if let Some(attention) = attention {
                    h = attention.forward(&h, shared)?;
                }
                skips.push(h.clone());
            }
            if let Some((block, way_in)) = &level.down {
                h = block.forward(&h, &embedding, shared, pass)?;
                (h, input) = way_in.forward(h, input, level.plane, shared)?;
                skips.push(h.clone());
            }
        }
        let (first, attention, second) = &self.middle;
        h = attention.forward(&first.forward(&h, &embedding, shared, pass)?, shared)?;
        h = second.forward(&h, &embedding, shared, pass)?;
        let mut pyramid = None;
        for level in &self.up {
            for block in &level.blocks {
                let skip = skips.pop().ok_or_else(|| Error::contract("ncsnpp", "more blocks up than skips"))?;
                h = block.forward(&Tensor::cat(&[&h, &skip], 1)?, &embedding, shared, pass)?;
            }
            if let Some(attention) = &level.attention {
                h = attention.forward(&h, shared)?;
            }
            (h, pyramid) = level.output.forward(h, pyramid, level.plane, shared)?;
            if let Some(block) = &level.up {
                h = block.forward(&h, &embedding, shared, pass)?;
            }
        }
        let out = match (&self.leave, pyramid) {
            (Some(head), _) => head.forward(&h)?,
            (None, Some(pyramid)) => pyramid,
            (None, None) => return Err(Error::contract("ncsnpp", "no level makes an output")),
        };
        full_precision(&shared.plane.leave(&out)?)
    }
}

/// Hands out places in the published list of modules, in its order.
struct Builder<'a> {
    config: &'a NcsnppConfig,
    shared: Shared,
    latent: usize,
    params: Params,
    next: usize,
    /// Channels of the feature maps that are skipped across.
    skips: Vec<usize>,
}

impl Builder<'_> {
    fn place(&mut self) -> Params {
        self.next += 1;
        self.params.pp(self.next - 1)
    }

    fn block(&mut self, inputs: usize, outputs: usize, change: Change) -> Result<Block> {
        let place = self.place();
        Block::new(inputs, outputs, change, &self.shared, &place)
    }

    fn head(&mut self, inputs: usize, outputs: usize, zero: bool) -> Result<Head> {
        let places = [self.place(), self.place()];
        Head::new(inputs, outputs, zero, self.shared.plane, places)
    }

    fn attention(&mut self, channels: usize, plane: Plane) -> Result<Option<Attention>> {
        if !self.config.attention.contains(&plane.size.1) {
            return Ok(None);
        }
        let place = self.place();
        Attention::new(channels, &place).map(Some)
    }

    fn levels(&self) -> Vec<(Plane, usize)> {
        let mut plane = self.shared.plane;
        let mut levels = Vec::new();
        for multiplier in &self.config.channel_multipliers {
            levels.push((plane, self.config.channels * multiplier));
            plane = plane.half();
        }
        levels
    }

    fn down(&mut self) -> Result<(Vec<DownLevel>, usize)> {
        let mut channels = self.config.channels;
        let mut pyramid = self.latent;
        self.skips.push(channels);
        let levels = self.levels();
        let mut found = Vec::new();
        for (i, &(plane, width)) in levels.iter().enumerate() {
            let mut blocks = Vec::new();
            for _ in 0..self.config.blocks {
                blocks.push((self.block(channels, width, Change::Keep)?, self.attention(width, plane)?));
                channels = width;
                self.skips.push(channels);
            }
            let mut down = None;
            if i + 1 < levels.len() {
                let block = self.block(channels, channels, Change::Down(plane))?;
                let input = self.input(&mut pyramid, &mut channels)?;
                self.skips.push(channels);
                down = Some((block, input));
            }
            found.push(DownLevel { plane, blocks, down });
        }
        Ok((found, channels))
    }

    fn input(&mut self, pyramid: &mut usize, channels: &mut usize) -> Result<Input> {
        match self.config.progressive_input {
            ProgressiveInput::None => Ok(Input::None),
            ProgressiveInput::InputSkip => {
                let combine = self.config.progressive_combine;
                let place = self.place().pp("Conv_0");
                let conv = conv(*pyramid, *channels, 1, self.shared.plane, &place)?;
                if combine == ProgressiveCombine::Cat {
                    *channels *= 2;
                }
                Ok(Input::Skip { conv, combine })
            }
            ProgressiveInput::Residual => {
                let place = self.place();
                let conv = StridedConv::new(*pyramid, *channels, &self.shared, self.config.fir, &place)?;
                *pyramid = *channels;
                Ok(Input::Residual(conv))
            }
        }
    }

    fn up(&mut self, mut channels: usize) -> Result<(Vec<UpLevel>, usize)> {
        let levels = self.levels();
        let mut pyramid = None;
        let mut found = Vec::new();
        for (i, &(plane, width)) in levels.iter().enumerate().rev() {
            let mut blocks = Vec::new();
            for _ in 0..=self.config.blocks {
                let skip = self.skips.pop().unwrap_or(0);
                blocks.push(self.block(channels + skip, width, Change::Keep)?);
                channels = width;
            }
            let attention = self.attention(channels, plane)?;
            let output = self.output(&mut pyramid, channels)?;
            let up = match i.checked_sub(1).and_then(|above| levels.get(above)) {
                Some(&(above, _)) => Some(self.block(channels, channels, Change::Up(above))?),
                None => None,
            };
            found.push(UpLevel { plane, blocks, attention, output, up });
        }
        Ok((found, channels))
    }

    fn output(&mut self, pyramid: &mut Option<usize>, channels: usize) -> Result<Output> {
        match (self.config.progressive, pyramid.replace(channels)) {
            (Progressive::None, _) => Ok(Output::None),
            (Progressive::OutputSkip, _) => Ok(Output::Skip(self.head(channels, self.latent, true)?)),
            (Progressive::Residual, None) => Ok(Output::ResidualStart(self.head(channels, channels, false)?)),
            (Progressive::Residual, Some(below)) => {
                let place = self.place().pp(if self.config.fir { "Conv2d_0" } else { "Conv_0" });
                Ok(Output::Residual(conv(below, channels, 3, self.shared.plane, &place)?))
            }
        }
    }
}
