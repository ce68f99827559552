//! The bottom-up half of the encoder, and what turns features to posteriors.

use candle_core::Tensor;
use lsgm_core::{Group, Result, soft_clamp};
use lsgm_nn::{full_precision, lower_precision, ops};

use super::cell::{Block, BnSwishConv, Cell, Step, Style};
use super::flow::Flow;
use super::layers::{Conv, Plan, Site};
use crate::config::{ImageShape, NvaeConfig};

/// Bound of the posteriors' means, approached softly.
const MEAN_CLAMP: f64 = 5.0;

/// From the image to features for every group of latents.
pub(super) struct BottomUp {
    stem: Conv,
    preprocess: Vec<Cell>,
    tower: Vec<Unit>,
    /// Combiners in the order of the tower, the first group's last.
    combiners: Vec<Conv>,
    posteriors: Vec<PosteriorHead>,
}

enum Unit {
    Cell(Cell),
    /// Keep the features for the combiner of a group.
    Keep,
    /// Halve, and add the features of the first latent size, halved too.
    Halve(Cell, Option<Box<BnSwishConv>>),
}

/// The features of an image.
pub(super) struct Features {
    /// What the first group sees.
    top: Tensor,
    /// What the other groups see beside the decoder's state, in the order of the groups.
    kept: Vec<Tensor>,
}

impl BottomUp {
    pub(super) fn new(config: &NvaeConfig, image: &ImageShape, site: &Site<'_>) -> Result<Self> {
        let channels = |size: usize| config.encoder_channels * config.channel_multipliers[size];
        let style = Style { branch: config.cells.encoder(), squeeze_excite: config.squeeze_excite };
        let mut preprocess = Vec::new();
        for block in 0..config.preprocess_blocks {
            for cell in 0..config.preprocess_cells {
                let last = cell + 1 == config.preprocess_cells;
                let (outputs, step) =
                    if last { (channels(block + 1), Step::Halve) } else { (channels(block), Step::Keep) };
                let site = site.pp("pre_process").pp(preprocess.len());
                preprocess.push(Cell::new(channels(block), outputs, step, style, &site)?);
            }
        }
        let (tower, combiners) = tower(config, style, site)?;
        Ok(Self {
            stem: Plan::new(image.channels, channels(0), 3).build(&site.pp("stem"))?,
            preprocess,
            tower,
            combiners,
            posteriors: (0..config.latent_scales * config.groups_per_scale)
                .map(|group| PosteriorHead::new(config, group, site))
                .collect::<Result<_>>()?,
        })
    }

    /// The features of images `[B, C, H, W]` in [-1, 1].
    pub(super) fn forward(&self, x: &Tensor, training: bool) -> Result<Features> {
        let mut h = self.stem.forward(&lower_precision(x)?)?;
        for cell in &self.preprocess {
            h = cell.forward(&h, training)?;
        }
        let mut pyramid = h.clone();
        let mut kept = Vec::with_capacity(self.combiners.len());
        for unit in &self.tower {
            match unit {
                Unit::Cell(cell) => h = cell.forward(&h, training)?,
                Unit::Keep => kept.push(h.clone()),
                Unit::Halve(cell, progressive) => {
                    h = cell.forward(&h, training)?;
                    if let Some(progressive) = progressive {
                        pyramid = progressive.forward(&pyramid, training)?;
                        h = (h + &pyramid)?;
                    }
                }
            }
        }
        kept.reverse();
        Ok(Features { top: h, kept })
    }

    /// The posterior of a group and its sample for standard Normal `noise`, given the decoder's state in front of it.
    pub(super) fn posterior(
        &self,
        group: usize,
        features: &Features,
        state: &Tensor,
        noise: &mut dyn FnMut(usize, &[usize]) -> Result<Tensor>,
    ) -> Result<Group> {
        let seen = match group.checked_sub(1) {
            None => features.top.clone(),
            Some(earlier) => {
                let combiner = &self.combiners[self.combiners.len() - group];
                (&features.kept[earlier] + combiner.forward(state)?)?
            }
        };
        self.posteriors[group].forward(&seen, &mut |dims| noise(group, dims))
    }
}

/// The units of the tower and the combiners.
fn tower(config: &NvaeConfig, style: Style, site: &Site<'_>) -> Result<(Vec<Unit>, Vec<Conv>)> {
    let (mut units, mut combiners) = (Vec::new(), Vec::new());
    for scale in 0..config.latent_scales {
        let multiplier = config.channel_multipliers[config.preprocess_blocks + scale];
        let (channels, decoder) = (config.encoder_channels * multiplier, config.decoder_channels * multiplier);
        let last_scale = scale + 1 == config.latent_scales;
        for group in 0..config.groups_per_scale {
            for _ in 0..config.encoder_cells {
                let site = site.pp("enc_tower").pp(units.len());
                units.push(Unit::Cell(Cell::new(channels, channels, Step::Keep, style, &site)?));
            }
            if !(last_scale && group + 1 == config.groups_per_scale) {
                let site = site.pp("enc_tower").pp(units.len()).pp("conv");
                combiners.push(Plan::new(decoder, channels, 1).build(&site)?);
                units.push(Unit::Keep);
            }
        }
        if !last_scale {
            let outputs = config.encoder_channels * config.channel_multipliers[config.preprocess_blocks + scale + 1];
            let below = site.pp("enc_tower").pp(units.len());
            let cell = Cell::new(channels, outputs, Step::Halve, style, &below)?;
            let progressive = config.progressive_input.then(|| {
                let site = site.pp("progressive_input_cells").pp(scale).pp("conv");
                BnSwishConv::new(channels, outputs, Step::Halve, &site).map(Box::new)
            });
            units.push(Unit::Halve(cell, progressive.transpose()?));
        }
    }
    Ok((units, combiners))
}

/// Features to the posterior of a group.
struct PosteriorHead {
    parameters: Conv,
    flows: Vec<Flow>,
    log_sigma_clamp: f64,
    side: bool,
}

impl PosteriorHead {
    fn new(config: &NvaeConfig, group: usize, site: &Site<'_>) -> Result<Self> {
        // Groups start at the smallest size.
        let size = config.halvings() - group / config.groups_per_scale;
        let inputs = config.encoder_channels * config.channel_multipliers[size];
        let latent = config.latent_channels;
        let flow = |i: usize| Flow::new(latent, &site.pp("nf_cells").pp(group * config.flows + i));
        Ok(Self {
            parameters: Plan::new(inputs, 2 * latent, 3).build(&site.pp("enc_sampler").pp(group).pp(1))?,
            flows: (0..config.flows).map(flow).collect::<Result<_>>()?,
            log_sigma_clamp: config.log_sigma_clamp,
            side: group >= config.groups_per_scale,
        })
    }

    fn forward(&self, features: &Tensor, noise: &mut dyn FnMut(&[usize]) -> Result<Tensor>) -> Result<Group> {
        let parameters = full_precision(&self.parameters.forward(&ops::elu(features)?)?)?;
        let channels = parameters.dim(1)? / 2;
        let mu = soft_clamp(&parameters.narrow(1, 0, channels)?.contiguous()?, MEAN_CLAMP)?;
        let log_sigma = soft_clamp(&parameters.narrow(1, channels, channels)?.contiguous()?, self.log_sigma_clamp)?;
        let eps = noise(mu.dims())?;
        let group = Group::with_noise(mu, log_sigma, self.side, &eps)?;
        if self.flows.is_empty() {
            return Ok(group);
        }
        group.through(|z| self.flows.iter().try_fold(z.clone(), |z, flow| flow.forward(&z)))
    }
}
