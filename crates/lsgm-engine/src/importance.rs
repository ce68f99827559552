use std::time::Instant;

use candle_core::{DType, Tensor};
use lsgm_core::{Pass, Result, Rng};
use lsgm_prior::ode_log_prob;
use serde::Serialize;

use crate::config::EvaluateConfig;
use crate::evaluate::{Estimate, extend};
use crate::model::Model;

/// The importance-weighted bound (Burda et al. 2016), on the first items of a split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImportanceEvaluation {
    /// −log (1/K) Σ p(x|z_k) p(z_k) / q(z_k|x), with log p(z) from the probability-flow ODE.
    ///
    /// Hutchinson's estimate of log p(z) is unbiased, its exponential is not: the noise of the probes makes the bound
    /// look slightly tighter than it is. More probes (`evaluate.ode_probes`) reduce that.
    pub iw_bound: Estimate,
    /// K, the number of posterior samples for each item.
    pub samples: usize,
    /// Number of items.
    pub n: usize,
    /// Function evaluations of the ODE solver for each posterior sample, averaged over batches.
    pub nfe: f64,
    /// Wall time.
    pub seconds: f64,
}

/// Bounds of the items seen so far, in nats.
#[derive(Default)]
pub(crate) struct ImportanceTerms {
    bounds: Vec<f64>,
    nfe: f64,
    solves: f64,
    seconds: f64,
}

impl ImportanceTerms {
    /// Add the bound of each item of a batch.
    pub(crate) fn add(&mut self, model: &Model, x: &Tensor, config: &EvaluateConfig, rng: &mut Rng) -> Result<()> {
        let clock = Instant::now();
        let items = x.dim(0)?;
        let mut weights = vec![Vec::with_capacity(config.iw_samples); items];
        for _ in 0..config.iw_samples {
            let found = self.log_weights(model, x, config, rng)?;
            for (all, one) in weights.iter_mut().zip(found) {
                all.push(one);
            }
        }
        self.bounds.extend(weights.iter().map(|w| -log_mean_exp(w)));
        self.seconds += clock.elapsed().as_secs_f64();
        Ok(())
    }

    /// log p(x|z) p(z) / q(z|x) of one posterior sample for each item.
    fn log_weights(&mut self, model: &Model, x: &Tensor, config: &EvaluateConfig, rng: &mut Rng) -> Result<Vec<f64>> {
        let (posterior, likelihood) = model.autoencoder.reconstruct(x, &mut Pass::eval(rng))?;
        let z0 = posterior.latents()?.prior.detach();
        let found = ode_log_prob(&model.prior, &z0, &config.ode_options(), rng)?;
        self.nfe += found.nfe as f64;
        self.solves += 1.0;
        let mut weight = ((likelihood.log_prob(x)? - posterior.log_q()?)?.to_dtype(DType::F64)? + found.log_p)?;
        if let Some(side) = posterior.side_log_ratio()? {
            weight = (weight + side.to_dtype(DType::F64)?)?;
        }
        let mut values = Vec::new();
        extend(&mut values, &weight)?;
        Ok(values)
    }

    pub(crate) fn report(self, samples: usize) -> Option<ImportanceEvaluation> {
        let n = self.bounds.len();
        (n > 0).then(|| ImportanceEvaluation {
            iw_bound: Estimate::nats(&self.bounds),
            samples,
            n,
            nfe: self.nfe / self.solves,
            seconds: self.seconds,
        })
    }
}

/// log of the mean of exp, without overflow.
fn log_mean_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return largest;
    }
    largest + (values.iter().map(|v| (v - largest).exp()).sum::<f64>() / values.len() as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::log_mean_exp;

    #[test]
    fn log_mean_exp_is_exact_and_does_not_overflow() {
        assert!((log_mean_exp(&[1f64.ln(), 3f64.ln()]) - 2f64.ln()).abs() < 1e-12);
        assert!((log_mean_exp(&[-1000.0, -1000.0]) + 1000.0).abs() < 1e-12);
        assert!((log_mean_exp(&[1000.0, 0.0]) - (1000.0 - 2f64.ln())).abs() < 1e-12);
        assert_eq!(log_mean_exp(&[f64::NEG_INFINITY; 2]), f64::NEG_INFINITY);
    }
}
