//! The published score network: its `args` as a [`PriorConfig`], its names as ours.

use candle_core::Tensor;
use lsgm_core::{Error, LatentShape, ParamStore, Pass, Result, Rng};
use lsgm_prior::networks::{Ncsnpp, NcsnppConfig, Progressive, ProgressiveCombine, ProgressiveInput, TimeFeatures};
use lsgm_prior::solvers::{Rk45Options, probability_flow_rk45};
use lsgm_prior::{NetworkConfig, Prior, PriorConfig, ScoreNetwork, SdeConfig};

use crate::args::Args;
use crate::check::Check;
use crate::fit::Place;
use crate::{Half, Tensors};

/// What a published tensor of the prior is here.
pub fn place(published: &str) -> Place {
    match published.split('.').next() {
        Some("all_modules" | "temb_fun") => Place::Ours(format!("prior.network.{published}")),
        Some("mixing_logit") => Place::Ours(format!("prior.{published}")),
        Some("is_active") => Place::Ours("prior.active_channels".to_owned()),
        _ => Place::Unknown,
    }
}

/// Number of latent channels, as the first convolution takes them.
///
/// # Errors
/// When there is no such convolution.
pub fn latent_channels(half: &Half) -> Result<usize> {
    let enter = half.weights.get("all_modules.2.weight").map(Tensor::dims);
    match enter {
        Some([_, channels, _, _]) => Ok(*channels),
        Some(dims) => {
            let message =
                format!("`all_modules.2.weight` has shape {dims:?} instead of the four axes of a convolution");
            Err(Error::input(&half.path, message))
        }
        None => Err(Error::input(&half.path, "`all_modules.2.weight` is missing: the prior has no first convolution")),
    }
}

/// The config of a prior over latents of `shape`, from its `args`.
///
/// Widths of levels and places of attention are not among the published arguments; they are read off the weights.
///
/// # Errors
/// [`Error::Config`] with the key below `args` that has a wrong type or no counterpart here.
pub fn config(half: &Half, shape: &LatentShape) -> Result<PriorConfig> {
    let args = Args::new(&half.args);
    args.one_of("dae_arch", "ncsnpp", &["ncsnpp"])?;
    let channels = args.number("num_channels_dae")?;
    let levels = args.number("num_scales_dae")?;
    let blocks = args.number("num_cell_per_scale_dae")?;
    let progressive_input = match args.one_of("progressive_input", "none", &["none", "input_skip", "residual"])? {
        "input_skip" => ProgressiveInput::InputSkip,
        "residual" => ProgressiveInput::Residual,
        _ => ProgressiveInput::None,
    };
    let walk = Walk { weights: &half.weights, channels, levels, blocks, progressive_input };
    let (channel_multipliers, attention) = walk.levels(shape)?;
    let network = NcsnppConfig {
        channels,
        channel_multipliers,
        blocks,
        attention,
        fir: args.flag_or("fir", false)?,
        skip_rescale: args.flag_or("skip_rescale", true)?,
        progressive: match args.one_of("progressive", "none", &["none", "output_skip", "residual"])? {
            "output_skip" => Progressive::OutputSkip,
            "residual" => Progressive::Residual,
            _ => Progressive::None,
        },
        progressive_input,
        progressive_combine: match args.one_of("progressive_combine", "sum", &["sum", "cat"])? {
            "cat" => ProgressiveCombine::Cat,
            _ => ProgressiveCombine::Sum,
        },
        dropout: args.real_or("dropout", 0.0)?,
        embedding: args.number_or("embedding_dim", 128)?,
        embedding_kind: match args.one_of("embedding_type", "positional", &["positional", "fourier"])? {
            "fourier" => TimeFeatures::Fourier,
            _ => TimeFeatures::Positional,
        },
        embedding_scale: args.real_or("embedding_scale", 1000.0)?,
    };
    Ok(PriorConfig {
        t_eps: args.real_or("time_eps", 1e-2)?,
        mixed: args.flag_or("mixed_prediction", false)?,
        alpha_init: args.real_or("mixing_logit_init", -6.0)?,
        mask_inactive: half.weights.contains_key("is_active"),
        sde: sde(&args)?,
        network: NetworkConfig::Ncsnpp(network),
        ..PriorConfig::default()
    })
}

fn sde(args: &Args<'_>) -> Result<SdeConfig> {
    let (beta_start, beta_end) = (args.real_or("beta_start", 0.1)?, args.real_or("beta_end", 20.0)?);
    let sigma2_0 = args.real_or("sigma2_0", 0.0)?;
    let (sigma2_min, sigma2_max) = (args.real_or("sigma2_min", 3e-5)?, args.real_or("sigma2_max", 0.999)?);
    let known = ["vpsde", "geometric", "geometric_sde", "sub_vpsde", "vesde"];
    Ok(match args.one_of("sde_type", "vpsde", &known)? {
        "vpsde" => SdeConfig::Vpsde { beta_start, beta_end, sigma2_0 },
        "sub_vpsde" => SdeConfig::SubVpsde { beta_start, beta_end, sigma2_0 },
        "vesde" => SdeConfig::Vesde { sigma2_min, sigma2_max, sigma2_0 },
        _ => SdeConfig::Geometric { sigma2_min, sigma2_max, sigma2_0 },
    })
}

/// Goes through the list of modules in its published order, on the way down.
struct Walk<'a> {
    weights: &'a Tensors,
    channels: usize,
    levels: usize,
    blocks: usize,
    progressive_input: ProgressiveInput,
}

/// Places before the first block: two linear layers of the time and the first convolution.
const FIRST_BLOCK: usize = 3;

impl Walk<'_> {
    /// Channel multiplier of each level, and the widths of latents that have attention.
    fn levels(&self, shape: &LatentShape) -> Result<(Vec<usize>, Vec<usize>)> {
        if self.channels == 0 || self.levels == 0 || self.levels > 16 || self.blocks > 1024 {
            let message = "no network has these numbers of channels, scales and cells";
            return Err(Error::config("args.num_scales_dae", message));
        }
        let mut width = match shape.spatial {
            lsgm_core::Spatial::Line(length) => length,
            lsgm_core::Spatial::Plane(_, width) => width,
        };
        let (mut multipliers, mut attention) = (Vec::new(), Vec::new());
        let mut place = FIRST_BLOCK;
        for level in 0..self.levels {
            // All blocks of a level are as wide: one that lacks its weight is told apart by the others.
            let mut width_of_level = None;
            for _ in 0..self.blocks {
                width_of_level = width_of_level.or(self.block_channels(place));
                place += 1;
                if self.is_attention(place) {
                    place += 1;
                    attention.push(width);
                }
            }
            multipliers.push(width_of_level.map_or(1, |channels| (channels / self.channels).max(1)));
            if level + 1 < self.levels {
                place += if self.progressive_input == ProgressiveInput::None { 1 } else { 2 };
                width = width.div_ceil(2);
            }
        }
        attention.dedup();
        Ok((multipliers, attention))
    }

    fn block_channels(&self, place: usize) -> Option<usize> {
        self.weights.get(&format!("all_modules.{place}.Conv_0.weight"))?.dims().first().copied()
    }

    fn is_attention(&self, place: usize) -> bool {
        self.weights.contains_key(&format!("all_modules.{place}.NIN_0.W"))
    }
}

/// Recompute the outputs that `half` carries (`pred`, `mixed`, `ode_z0`) on the weights in `store`.
///
/// # Errors
/// When the model cannot be built or run; a difference is no error here but a [`Check`] that fails.
pub fn verify(half: &Half, config: &PriorConfig, shape: LatentShape, store: &ParamStore) -> Result<Vec<Check>> {
    let io = |name: &str| half.io.get(name);
    let prior = Prior::new(config, shape, &store.frozen_root().pp("prior"))?;
    let mut rng = Rng::new(0);
    let mut checks = Vec::new();
    if let (Some(z), Some(t)) = (io("z"), io("t")) {
        if let (Some(expected), NetworkConfig::Ncsnpp(network)) = (io("pred"), &config.network) {
            let network = Ncsnpp::new(network, shape, &store.frozen_root().pp("prior").pp("network"))?;
            let found = network.forward(z, t, &mut Pass::eval(&mut rng))?;
            checks.push(Check::largest("pred", &found, expected, 1e-4)?);
        }
        if let Some(expected) = io("mixed") {
            let found = prior.epsilon(z, t, &mut Pass::eval(&mut rng))?;
            checks.push(Check::largest("mixed", &found, expected, 1e-4)?);
        }
    }
    if let (Some(z1), Some(expected)) = (io("ode_z1"), io("ode_z0")) {
        checks.extend(verify_ode(half, &prior, z1, expected)?);
    }
    Ok(checks)
}

/// The end of the probability-flow ODE as a whole, and what it cost. Near t = 0 single values follow the rounding of the
/// first steps, so the largest difference says nothing.
fn verify_ode(half: &Half, prior: &Prior, z1: &Tensor, expected: &Tensor) -> Result<Vec<Check>> {
    let fact = |name: &str, usual: f64| half.facts.get(name).and_then(serde_json::Value::as_f64).unwrap_or(usual);
    let options = Rk45Options::with_tolerance(fact("rtol", 1e-5));
    let (start, end) = (fact("t_start", 1.0), fact("t_end", 1e-5));
    let (z0, nfe) = probability_flow_rk45(prior, z1, start, end, &options, &mut |_| Ok(()))?;
    let mut checks = vec![Check::root_mean_square("ode_z0", &z0, expected, 2e-3)?];
    if let Some(expected) = half.facts.get("nfe").and_then(serde_json::Value::as_f64) {
        checks.push(Check::relative("ode_nfe", nfe as f64, expected, 0.1));
    }
    Ok(checks)
}
