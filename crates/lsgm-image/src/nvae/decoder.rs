//! The top-down tower, which encoder and decoder share, and the layers behind it.

use candle_core::Tensor;
use lsgm_core::{Error, Init, Result};
use lsgm_nn::{full_precision, lower_precision, ops};

use super::cell::{Cell, Step, Style};
use super::layers::{Conv, Plan, Site};
use crate::config::NvaeConfig;

/// Supplies the latent of a group, given the tower's state in front of it.
pub(super) type Supply<'a> = dyn FnMut(usize, &Tensor) -> Result<Tensor> + 'a;

/// From latents to parameters of the likelihood.
pub(super) struct TopDown {
    /// The state in front of the first group, `[C, H, W]`.
    start: Tensor,
    tower: Vec<Unit>,
    groups: usize,
    postprocess: Vec<Cell>,
    output: Conv,
}

/// What the top-down tower knows when all latents are there.
pub(super) struct Above {
    /// The state in front of the last group.
    state: Tensor,
    /// The latent of the last group.
    last: Tensor,
    /// The unit that takes it in.
    below: usize,
}

enum Unit {
    /// A group's latent enters.
    Combine(Box<Combiner>),
    Cell(Cell),
}

struct Combiner {
    latent: Conv,
    mix: Conv,
}

impl TopDown {
    /// `size` is that of the smallest latents; `outputs` the number of the likelihood's parameters at each position.
    pub(super) fn new(
        config: &NvaeConfig,
        (height, width): (usize, usize),
        outputs: usize,
        site: &Site<'_>,
    ) -> Result<Self> {
        let channels = |size: usize| config.decoder_channels * config.channel_multipliers[size];
        let style = Style { branch: config.cells.postprocess(), squeeze_excite: config.squeeze_excite };
        let mut postprocess = Vec::new();
        for block in (0..config.preprocess_blocks).rev() {
            for cell in 0..config.postprocess_cells {
                let (inputs, step) =
                    if cell == 0 { (channels(block + 1), Step::Double) } else { (channels(block), Step::Keep) };
                let site = site.pp("post_process").pp(postprocess.len());
                postprocess.push(Cell::new(inputs, channels(block), step, style, &site)?);
            }
        }
        let start = (channels(config.halvings()), height, width);
        Ok(Self {
            start: site.params.get("prior_ftr0", start, Init::Uniform(1.0))?,
            tower: tower(config, site)?,
            groups: config.latent_scales * config.groups_per_scale,
            postprocess,
            output: Plan::new(channels(0), outputs, 3).build(&site.pp("image_conditional").pp(1))?,
        })
    }

    /// The parameters of the likelihood at every position, from the latents that `supply` gives.
    pub(super) fn forward(&self, batch: usize, training: bool, supply: &mut Supply<'_>) -> Result<Tensor> {
        self.below(&self.above(batch, training, supply)?, training)
    }

    /// Ask `supply` for every latent, and leave out all that comes behind the last one.
    pub(super) fn above(&self, batch: usize, training: bool, supply: &mut Supply<'_>) -> Result<Above> {
        let (c, h, w) = self.start.dims3()?;
        // Lowered for each item: the gradient of the start is summed over them in full precision.
        let mut state = lower_precision(&self.start.unsqueeze(0)?.broadcast_as((batch, c, h, w))?)?.contiguous()?;
        let mut group = 0;
        for (i, unit) in self.tower.iter().enumerate() {
            state = match unit {
                Unit::Combine(combiner) => {
                    let latent = supply(group, &state)?;
                    group += 1;
                    if group == self.groups {
                        return Ok(Above { state, last: latent, below: i });
                    }
                    combiner.forward(&state, &latent)?
                }
                Unit::Cell(cell) => cell.forward(&state, training)?,
            };
        }
        Err(Error::contract("decoder", "the tower ends before its last group"))
    }

    /// The parameters of the likelihood from where [`TopDown::above`] has ended.
    pub(super) fn below(&self, above: &Above, training: bool) -> Result<Tensor> {
        let Above { state, last, below } = above;
        let mut state = state.clone();
        for unit in &self.tower[*below..] {
            state = match unit {
                Unit::Cell(cell) => cell.forward(&state, training)?,
                Unit::Combine(combiner) => combiner.forward(&state, last)?,
            };
        }
        for cell in &self.postprocess {
            state = cell.forward(&state, training)?;
        }
        full_precision(&self.output.forward(&ops::elu(&state)?)?)
    }
}

impl Combiner {
    fn forward(&self, state: &Tensor, z: &Tensor) -> Result<Tensor> {
        self.mix.forward(&Tensor::cat(&[state, &self.latent.forward(&lower_precision(z)?)?], 1)?)
    }
}

fn tower(config: &NvaeConfig, site: &Site<'_>) -> Result<Vec<Unit>> {
    let style = Style { branch: config.cells.decoder(), squeeze_excite: config.squeeze_excite };
    let (mut units, mut group, latent) = (Vec::new(), 0, config.latent_channels);
    for scale in (0..config.latent_scales).rev() {
        let channels =
            |scale: usize| config.decoder_channels * config.channel_multipliers[config.preprocess_blocks + scale];
        let here = channels(scale);
        for _ in 0..config.groups_per_scale {
            let mix = site.pp("dec_tower").pp(units.len()).pp("conv");
            units.push(Unit::Combine(Box::new(Combiner {
                latent: Plan::new(latent, latent, 3).build(&site.pp("eps_conv").pp(group))?,
                mix: Plan::new(here + latent, here, 1).build(&mix)?,
            })));
            group += 1;
            for _ in 0..config.decoder_cells {
                let site = site.pp("dec_tower").pp(units.len());
                units.push(Unit::Cell(Cell::new(here, here, Step::Keep, style, &site)?));
            }
        }
        if scale > 0 {
            let site = site.pp("dec_tower").pp(units.len());
            units.push(Unit::Cell(Cell::new(here, channels(scale - 1), Step::Double, style, &site)?));
        }
    }
    Ok(units)
}
