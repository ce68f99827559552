use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use lsgm_core::{Latents, Likelihood, Pass, Result, Rng};
use lsgm_nn::{gpu, with_precision};
use lsgm_prior::solvers::{self, Rk45Options, Step, probability_flow_rk45};

use crate::candidates::{Candidates, surprise};
use crate::config::SampleConfig;
use crate::model::Model;

/// Decoded items and what they cost.
#[derive(Debug, Clone)]
pub struct Samples {
    /// The items, in the layout of [`lsgm_core::Batch::x`] or of [`lsgm_core::Likelihood::mean`].
    pub items: Tensor,
    /// Latents at t = 0, `[N, C, *spatial]`.
    pub latents: Tensor,
    /// Function evaluations of the solver for an item, candidates that were not kept included; averaged over batches.
    pub nfe: f64,
    /// Wall time.
    pub seconds: f64,
}

/// Draw `count` items: noise at t = 1, the configured solver to t = 0, the decoder; where the config asks for several
/// candidates, the least surprising of these. `progress` is told the share that is done.
pub fn sample(
    model: &Model,
    count: usize,
    config: &SampleConfig,
    device: &Device,
    rng: &mut Rng,
    progress: &mut dyn FnMut(f64),
) -> Result<Samples> {
    gpu::check_precision(device, config.precision, "sample.precision")?;
    let clock = Instant::now();
    let prior = config.guided(&model.prior);
    let (mut items, mut latents, mut nfe) = (Vec::new(), Vec::new(), 0.0);
    for start in (0..count).step_by(config.batch_size.max(1)) {
        let size = config.batch_size.min(count - start);
        let mut kept: Option<Candidates> = None;
        // The same times and noise for all: what differs is the items.
        let judge = rng.fork("candidates");
        for round in 1..=config.candidates {
            let z1 = model.prior.sample_base(size, config.temperature, DType::F32, device, rng)?;
            let mut solve = || solvers::sample(&prior, &z1, &config.solver(), rng, &mut |_| Ok(()));
            let (z0, evaluations) = with_precision(config.precision, &mut solve)?;
            nfe += evaluations as f64 * size as f64;
            let drawn = with_precision(config.precision, || candidates(model, z0, config, judge.clone(), rng))?;
            kept = Some(match kept {
                None => drawn,
                Some(kept) => kept.or_less_surprising(drawn)?,
            });
            let done = start as f64 + size as f64 * round as f64 / config.candidates as f64;
            progress(done / count as f64);
        }
        if let Some(kept) = kept {
            items.push(kept.items);
            latents.push(kept.latents);
        }
    }
    let latents = Tensor::cat(&latents, 0)?;
    Ok(Samples {
        items: Tensor::cat(&items, 0)?,
        latents,
        nfe: nfe / count.max(1) as f64,
        seconds: clock.elapsed().as_secs_f64(),
    })
}

/// Decode latents; where there is a choice, judge what comes of them.
fn candidates(model: &Model, z0: Tensor, config: &SampleConfig, mut judge: Rng, rng: &mut Rng) -> Result<Candidates> {
    let likelihood = model.autoencoder.decode(&z0.clone().into(), &mut Pass::eval(rng))?;
    let items = show(likelihood.as_ref(), config, rng)?;
    let surprise = match config.candidates {
        1 => vec![0.0; z0.dim(0)?],
        // A mean need not be an item; the mode is one.
        _ if config.mean => surprise(model, &likelihood.sample(0.0, &mut judge)?, &mut judge)?,
        _ => surprise(model, &items, &mut judge)?,
    };
    Ok(Candidates { items, latents: z0, surprise })
}

/// The denoising of `count` items: for each, `frames` moments from noise to data, decoded. The items are
/// `[count · frames, ...]`, item by item.
///
/// The moments are equally far apart in the solver's own steps, which an adaptive solver chooses by itself.
pub fn film(
    model: &Model,
    count: usize,
    frames: usize,
    config: &SampleConfig,
    device: &Device,
    rng: &mut Rng,
) -> Result<Samples> {
    gpu::check_precision(device, config.precision, "sample.precision")?;
    let clock = Instant::now();
    let z1 = model.prior.sample_base(count, config.temperature, DType::F32, device, rng)?;
    let mut moments = vec![z1.clone()];
    let prior = config.guided(&model.prior);
    let mut keep = |step: &Step<'_>| {
        moments.push(step.z.to_dtype(DType::F32)?);
        Ok(())
    };
    let (z0, nfe) =
        with_precision(config.precision, || solvers::sample(&prior, &z1, &config.solver(), rng, &mut keep))?;
    // The result may lie one denoising step beyond the last moment.
    if let Some(last) = moments.last_mut() {
        *last = z0;
    }
    let last = moments.len() - 1;
    let frames = frames.max(2);
    let chosen: Vec<&Tensor> =
        (0..frames).map(|i| &moments[(i as f64 / (frames - 1) as f64 * last as f64).round() as usize]).collect();
    let latents = Tensor::stack(&chosen, 1)?.flatten(0, 1)?;
    let items = with_precision(config.precision, || decode(model, latents.clone().into(), config, rng))?;
    Ok(Samples { items, latents, nfe: nfe as f64, seconds: clock.elapsed().as_secs_f64() })
}

/// Encode items and decode a posterior sample of each; returned as original, reconstruction, original, ...
pub fn reconstruct(model: &Model, x: &Tensor, config: &SampleConfig, rng: &mut Rng) -> Result<Tensor> {
    pairs(x, &reconstructions(model, x, config, rng)?)
}

/// Encode items and decode a posterior sample of each.
pub fn reconstructions(model: &Model, x: &Tensor, config: &SampleConfig, rng: &mut Rng) -> Result<Tensor> {
    let posterior = model.autoencoder.encode(x, &mut Pass::eval(rng))?;
    decode(model, posterior.latents()?, config, rng)
}

/// The same with the latents taken to t = 1 and back by the probability-flow ODE before they are decoded: what is lost
/// on the way is the error of the solver, within `config.tolerance`. Items as those of [`reconstruct`].
pub fn reconstruct_through_prior(model: &Model, x: &Tensor, config: &SampleConfig, rng: &mut Rng) -> Result<Samples> {
    let clock = Instant::now();
    let mut latents = model.autoencoder.encode(x, &mut Pass::eval(rng))?.latents()?;
    let (z1, forth) = to_noise(model, &latents.prior, config.tolerance)?;
    let (z0, back) = to_data(model, &z1, config.tolerance)?;
    latents.prior = z0.clone();
    let items = pairs(x, &decode(model, latents, config, rng)?)?;
    Ok(Samples { items, latents: z0, nfe: (forth + back) as f64, seconds: clock.elapsed().as_secs_f64() })
}

/// `[x0, y0, x1, y1, ...]`.
fn pairs(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    Ok(Tensor::stack(&[&x.to_dtype(y.dtype())?, y], 1)?.flatten(0, 1)?)
}

/// Paths between pairs of items, `steps` items each: both ends are encoded, carried to t = 1 by the probability-flow
/// ODE, joined there by spherical interpolation, and carried back.
pub fn interpolate(
    model: &Model,
    from: &Tensor,
    to: &Tensor,
    steps: usize,
    config: &SampleConfig,
    rng: &mut Rng,
) -> Result<Samples> {
    let clock = Instant::now();
    let a = model.autoencoder.encode(from, &mut Pass::eval(rng))?.latents()?.prior;
    let b = model.autoencoder.encode(to, &mut Pass::eval(rng))?.latents()?.prior;
    let (a1, nfe_a) = to_noise(model, &a, config.tolerance)?;
    let (b1, nfe_b) = to_noise(model, &b, config.tolerance)?;
    let points: Vec<Tensor> =
        (0..steps).map(|i| slerp(&a1, &b1, i as f64 / (steps.max(2) - 1) as f64)).collect::<Result<_>>()?;
    let (z0, nfe) = to_data(model, &Tensor::stack(&points, 1)?.flatten(0, 1)?, config.tolerance)?;
    let items = decode(model, z0.clone().into(), config, rng)?;
    Ok(Samples { items, latents: z0, nfe: (nfe_a + nfe_b + nfe) as f64, seconds: clock.elapsed().as_secs_f64() })
}

fn to_data(model: &Model, z1: &Tensor, tolerance: f64) -> Result<(Tensor, usize)> {
    let options = Rk45Options::with_tolerance(tolerance);
    probability_flow_rk45(&model.prior, z1, 1.0, model.prior.t_eps(), &options, &mut |_| Ok(()))
}

fn to_noise(model: &Model, z0: &Tensor, tolerance: f64) -> Result<(Tensor, usize)> {
    let options = Rk45Options::with_tolerance(tolerance);
    probability_flow_rk45(&model.prior, z0, model.prior.t_eps(), 1.0, &options, &mut |_| Ok(()))
}

pub(crate) fn decode(model: &Model, z: Latents, config: &SampleConfig, rng: &mut Rng) -> Result<Tensor> {
    let likelihood = model.autoencoder.decode(&z, &mut Pass::eval(rng))?;
    show(likelihood.as_ref(), config, rng)
}

fn show(likelihood: &dyn Likelihood, config: &SampleConfig, rng: &mut Rng) -> Result<Tensor> {
    if config.mean { likelihood.mean() } else { likelihood.sample(config.decoder_temperature, rng) }
}

/// Spherical interpolation of each item as one vector: keeps the norm that N(0, I) gives it.
fn slerp(a: &Tensor, b: &Tensor, share: f64) -> Result<Tensor> {
    let (fa, fb) = (a.flatten_from(1)?, b.flatten_from(1)?);
    let norms = (fa.sqr()?.sum_keepdim(1)?.sqrt()? * fb.sqr()?.sum_keepdim(1)?.sqrt()?)?;
    let cosines = ((&fa * &fb)?.sum_keepdim(1)? / norms)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let (mut wa, mut wb) = (Vec::with_capacity(cosines.len()), Vec::with_capacity(cosines.len()));
    for cosine in cosines {
        let angle = cosine.clamp(-1.0, 1.0).acos();
        // Nearly parallel: the straight line is the limit.
        let (x, y) = if angle.sin().abs() < 1e-6 {
            (1.0 - share, share)
        } else {
            (((1.0 - share) * angle).sin() / angle.sin(), (share * angle).sin() / angle.sin())
        };
        wa.push(x as f32);
        wb.push(y as f32);
    }
    let n = wa.len();
    let weight = |w: Vec<f32>| Ok::<_, lsgm_core::Error>(Tensor::from_vec(w, (n, 1), a.device())?);
    let mixed = (fa.broadcast_mul(&weight(wa)?)? + fb.broadcast_mul(&weight(wb)?)?)?;
    Ok(mixed.reshape(a.shape())?)
}
