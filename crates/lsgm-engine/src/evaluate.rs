use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use lsgm_core::{Dataset, Error, LatentNormal, Pass, Result, Rng, nats_to_bits};
use lsgm_prior::{Trace, Weighting, ode_log_prob};
use serde::Serialize;

use crate::config::EvaluateConfig;
use crate::importance::{ImportanceEvaluation, ImportanceTerms};
use crate::model::Model;
use crate::posterior::{PosteriorTerms, PosteriorUse};

/// A mean over items with its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Mean over items.
    pub mean: f64,
    /// Standard error of the mean.
    pub stderr: f64,
    /// Unit: `nats` or `bits/dim`.
    pub unit: &'static str,
}

impl Estimate {
    /// The mean of values in nats, one for each item, and its standard error; not a number without a value.
    pub fn nats(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        Self { mean, stderr: (variance / n).sqrt(), unit: "nats" }
    }

    fn per_dim(self, dimensions: usize) -> Self {
        Self {
            mean: nats_to_bits(self.mean, dimensions),
            stderr: nats_to_bits(self.stderr, dimensions),
            unit: "bits/dim",
        }
    }
}

/// The learned mixing weights of the mixed score, over channels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Alpha {
    /// Mean.
    pub mean: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// The ODE likelihood of the latents, on the first items of the split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OdeEvaluation {
    /// reconstruction + log q(z0|x) − log p(z0), with log p(z0) from the probability-flow ODE.
    pub nelbo_ode: Estimate,
    /// The cross-entropy NELBO on the same items.
    pub nelbo_same_items: Estimate,
    /// The part of the standard error of `nelbo_ode` that the probes of the trace estimator bring, in nats; absent for a
    /// single probe. The exact trace brings none.
    pub probe_stderr: Option<f64>,
    /// How the trace was found.
    pub trace: Trace,
    /// Number of items.
    pub n: usize,
    /// Function evaluations of the solver, averaged over batches.
    pub nfe: f64,
    /// Wall time.
    pub seconds: f64,
}

/// What an evaluation found. All bounds are upper bounds of −log p(x), averaged over items.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Negative evidence lower bound with the score-based prior, its cross entropy by denoising score matching.
    pub nelbo: Estimate,
    /// The same encoder and decoder under an N(0, I) prior.
    pub nelbo_normal_prior: Estimate,
    /// `nelbo_normal_prior − nelbo`, paired by item.
    pub gain: Estimate,
    /// E −log p(x|z0).
    pub reconstruction: Estimate,
    /// CE(q(z0|x) || p(z0)) by denoising score matching.
    pub cross_entropy: Estimate,
    /// E log q(z0|x).
    pub neg_entropy: Estimate,
    /// `nelbo` in bits for each data dimension.
    pub bits_per_dim: Estimate,
    /// The ODE likelihood, where it was asked for.
    pub ode: Option<OdeEvaluation>,
    /// The importance-weighted bound, where it was asked for.
    pub iw: Option<ImportanceEvaluation>,
    /// How much of the latent the encoder uses.
    pub posterior: PosteriorUse,
    /// Mixing weights of the mixed score.
    pub alpha: Alpha,
    /// Number of items.
    pub n: usize,
    /// Function evaluations of the ODE likelihood; 0 without it.
    pub nfe: f64,
    /// Wall time.
    pub seconds: f64,
    /// The bounds of each item.
    #[serde(skip)]
    pub items: ItemBounds,
}

/// The NELBO and its terms for each item, in nats and in the order of the split. Two models that are evaluated with the same
/// seed on the same data, whose seed counts where it draws items, see the same items: their differences can be paired.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemBounds {
    /// A number that is another one for another item.
    pub digest: Vec<u64>,
    /// [`Evaluation::nelbo`].
    pub nelbo: Vec<f64>,
    /// [`Evaluation::nelbo_normal_prior`].
    pub nelbo_normal_prior: Vec<f64>,
    /// [`Evaluation::reconstruction`].
    pub reconstruction: Vec<f64>,
    /// [`Evaluation::cross_entropy`].
    pub cross_entropy: Vec<f64>,
    /// [`Evaluation::neg_entropy`].
    pub neg_entropy: Vec<f64>,
    /// KL divergence of latents outside the score-based prior; `nelbo` is the sum of the last four.
    pub side_kl: Vec<f64>,
    /// [`OdeEvaluation::nelbo_ode`], of the first items alone.
    pub nelbo_ode: Vec<f64>,
}

/// Terms of the bounds for each item, in nats.
#[derive(Default)]
struct Terms {
    digest: Vec<u64>,
    reconstruction: Vec<f64>,
    neg_entropy: Vec<f64>,
    /// `log q(z0 | x)` of the sample that the ODE is given.
    log_q: Vec<f64>,
    cross_entropy: Vec<f64>,
    normal_prior_kl: Vec<f64>,
    side_kl: Vec<f64>,
    posterior: PosteriorTerms,
}

/// Evaluate a model built on frozen (moving-average) weights on the first `limit` items of a split.
///
/// Posterior samples, times and probes come from `config.seed`, so that two evaluations of one model agree.
/// `progress` is told the share that is done.
///
/// # Errors
/// When the split is empty or the model fails.
pub fn evaluate(
    model: &Model,
    data: &dyn Dataset,
    data_dim: usize,
    limit: Option<usize>,
    config: &EvaluateConfig,
    device: &Device,
    progress: &mut dyn FnMut(f64),
) -> Result<Evaluation> {
    config.validate()?;
    let clock = Instant::now();
    let n = limit.unwrap_or(usize::MAX).min(data.len());
    if n == 0 {
        return Err(Error::config("evaluate", "the split is empty"));
    }
    let (ode_items, iw_items) = (config.ode_items.min(n), config.iw_items.min(n));
    let root = Rng::new(config.seed);
    // A generator of its own: how much a model draws must not change what it is shown.
    let mut data_rng = root.fork("data");
    let mut rng = root.fork("evaluation");
    let mut ode_rng = root.fork("ode");
    let mut iw_rng = root.fork("importance");
    let mut terms = Terms::default();
    let mut ode = OdeTerms { trace: config.ode_trace, ..OdeTerms::default() };
    let mut iw = ImportanceTerms::default();
    for start in (0..n).step_by(config.batch_size) {
        let indices: Vec<usize> = (start..(start + config.batch_size).min(n)).collect();
        let batch = data.batch(&indices, &mut data_rng)?;
        terms.digest.extend(digests(&batch.x)?);
        let x = batch.to_device(device)?.x;
        let posterior_z0 = terms.add(model, &x, config, &mut rng)?;
        if start < ode_items {
            let kept = ode_items.min(start + indices.len()) - start;
            ode.add(model, &posterior_z0.narrow(0, 0, kept)?, config, &mut ode_rng)?;
        }
        if start < iw_items {
            let kept = iw_items.min(start + indices.len()) - start;
            iw.add(model, &x.narrow(0, 0, kept)?, config, &mut iw_rng)?;
        }
        progress((start + indices.len()) as f64 / n as f64);
    }
    terms.report(ode, iw.report(config.iw_samples), model, data_dim, clock)
}

impl Terms {
    /// Add the terms of a batch; returns the posterior sample.
    fn add(&mut self, model: &Model, x: &Tensor, config: &EvaluateConfig, rng: &mut Rng) -> Result<Tensor> {
        let mut pass = Pass::eval(rng);
        let (posterior, likelihood) = model.autoencoder.reconstruct(x, &mut pass)?;
        self.posterior.add(&posterior)?;
        let z0 = posterior.latents()?.prior.detach();
        let latents = posterior.conditional()?.detach();
        let side = posterior.side_kl()?;
        let mut kl = posterior.neg_entropy()?.zeros_like()?;
        for group in posterior.kl_groups()? {
            kl = (kl + group)?;
        }
        extend(&mut self.reconstruction, &likelihood.log_prob(x)?.neg()?)?;
        extend(&mut self.neg_entropy, &posterior.neg_entropy()?)?;
        extend(&mut self.log_q, &posterior.log_q()?)?;
        extend(&mut self.normal_prior_kl, &kl)?;
        extend(&mut self.cross_entropy, &cross_entropy(model, &latents, config.time_samples, pass.rng)?)?;
        match side {
            Some(side) => extend(&mut self.side_kl, &side)?,
            None => self.side_kl.resize(self.reconstruction.len(), 0.0),
        }
        Ok(z0)
    }

    fn nelbo(&self) -> Vec<f64> {
        (0..self.reconstruction.len())
            .map(|i| self.reconstruction[i] + self.neg_entropy[i] + self.cross_entropy[i] + self.side_kl[i])
            .collect()
    }

    fn report(
        self,
        ode: OdeTerms,
        iw: Option<ImportanceEvaluation>,
        model: &Model,
        data_dim: usize,
        clock: Instant,
    ) -> Result<Evaluation> {
        let nelbo = self.nelbo();
        let normal: Vec<f64> = self.reconstruction.iter().zip(&self.normal_prior_kl).map(|(r, k)| r + k).collect();
        let gain: Vec<f64> = normal.iter().zip(&nelbo).map(|(a, b)| a - b).collect();
        let nelbo_ode = ode.nelbo(&self);
        let ode = ode.report(&nelbo_ode, &nelbo);
        Ok(Evaluation {
            nelbo: Estimate::nats(&nelbo),
            nelbo_normal_prior: Estimate::nats(&normal),
            gain: Estimate::nats(&gain),
            reconstruction: Estimate::nats(&self.reconstruction),
            cross_entropy: Estimate::nats(&self.cross_entropy),
            neg_entropy: Estimate::nats(&self.neg_entropy),
            bits_per_dim: Estimate::nats(&nelbo).per_dim(data_dim),
            posterior: self.posterior.report(),
            alpha: alpha(model)?,
            n: nelbo.len(),
            nfe: ode.as_ref().map_or(0.0, |o| o.nfe),
            ode,
            iw,
            seconds: clock.elapsed().as_secs_f64(),
            items: ItemBounds {
                digest: self.digest,
                nelbo,
                nelbo_normal_prior: normal,
                reconstruction: self.reconstruction,
                cross_entropy: self.cross_entropy,
                neg_entropy: self.neg_entropy,
                side_kl: self.side_kl,
                nelbo_ode,
            },
        })
    }
}

/// The cross-entropy bound of each item, averaged over `samples` times that are stratified within the item.
pub(crate) fn cross_entropy(model: &Model, latents: &LatentNormal, samples: usize, rng: &mut Rng) -> Result<Tensor> {
    let items = latents.mean.dim(0)?;
    let offsets = rng.uniforms(items);
    let mut total: Option<Tensor> = None;
    for k in 0..samples {
        let rho: Vec<f64> = offsets.iter().map(|u| (k as f64 + f64::from(*u)) / samples as f64).collect();
        let times = model.prior.times_at(Weighting::LlIw, &rho)?;
        let term = model.prior.cross_entropy(latents, &times, &mut Pass::eval(rng))?;
        total = Some(match total {
            None => term,
            Some(t) => (t + term)?,
        });
    }
    let total = total.ok_or_else(|| Error::config("evaluate.time_samples", "give at least 1"))?;
    Ok((total / samples as f64)?)
}

#[derive(Default)]
struct OdeTerms {
    trace: Trace,
    log_p: Vec<f64>,
    /// Standard errors over the probes, where there are several.
    probe_errors: Vec<f64>,
    nfe: f64,
    batches: f64,
    seconds: f64,
}

impl OdeTerms {
    fn add(&mut self, model: &Model, z0: &Tensor, config: &EvaluateConfig, rng: &mut Rng) -> Result<()> {
        let clock = Instant::now();
        let found = ode_log_prob(&model.prior, z0, &config.ode_options(), rng)?;
        extend(&mut self.log_p, &found.log_p)?;
        if let Some(error) = &found.standard_error {
            extend(&mut self.probe_errors, error)?;
        }
        self.nfe += found.nfe as f64;
        self.batches += 1.0;
        self.seconds += clock.elapsed().as_secs_f64();
        Ok(())
    }

    /// The bound of each item. Both densities are of one sample: they rise and fall together.
    fn nelbo(&self, terms: &Terms) -> Vec<f64> {
        let of_item = |i: usize| terms.reconstruction[i] + terms.log_q[i] + terms.side_kl[i] - self.log_p[i];
        (0..self.log_p.len()).map(of_item).collect()
    }

    fn report(&self, nelbo_ode: &[f64], nelbo: &[f64]) -> Option<OdeEvaluation> {
        let n = nelbo_ode.len();
        if n == 0 {
            return None;
        }
        Some(OdeEvaluation {
            nelbo_ode: Estimate::nats(nelbo_ode),
            nelbo_same_items: Estimate::nats(&nelbo[..n]),
            probe_stderr: match (self.trace, self.probe_errors.as_slice()) {
                (Trace::Exact, _) => Some(0.0),
                (_, []) => None,
                (_, errors) => Some(errors.iter().map(|e| e * e).sum::<f64>().sqrt() / errors.len() as f64),
            },
            trace: self.trace,
            n,
            nfe: self.nfe / self.batches,
            seconds: self.seconds,
        })
    }
}

fn alpha(model: &Model) -> Result<Alpha> {
    let values = model.prior.alpha()?;
    let n = values.len().max(1) as f64;
    Ok(Alpha {
        mean: values.iter().sum::<f64>() / n,
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    })
}

/// The FNV-1a hash of each item of `x` `[B, ..]`.
fn digests(x: &Tensor) -> Result<Vec<u64>> {
    let rows = x.flatten_from(1)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    Ok(rows.iter().map(|row| row.iter().flat_map(|v| v.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, step)).collect())
}

/// Append the values of a tensor `[B]`.
pub(crate) fn extend(values: &mut Vec<f64>, x: &Tensor) -> Result<()> {
    values.extend(x.to_dtype(DType::F64)?.to_vec1::<f64>()?);
    Ok(())
}
