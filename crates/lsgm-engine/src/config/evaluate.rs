use lsgm_core::Result;
use lsgm_prior::{OdeOptions, PriorConfig, Sde, Trace};
use serde::{Deserialize, Serialize};

use super::checks::{at_least, batch, positive, share};

/// Section `[evaluate]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluateConfig {
    /// Items that are evaluated together.
    pub batch_size: usize,
    /// Diffusion times drawn for each item in the cross-entropy bound, stratified.
    pub time_samples: usize,
    /// Number of items, from the start of the split, whose ODE likelihood is computed; 0 skips it.
    pub ode_items: usize,
    /// Relative and absolute tolerance of the ODE likelihood.
    pub ode_tolerance: f64,
    /// Time at which the ODE of the likelihood starts.
    pub ode_t_eps: f64,
    /// How the divergence in the ODE likelihood is found: by Hutchinson's estimator with `rademacher` or `gaussian`
    /// probes, or `exact`, by as many backward passes as a latent has dimensions.
    pub ode_trace: Trace,
    /// Hutchinson probes for each item in the ODE likelihood; with two or more, their standard error is reported.
    pub ode_probes: usize,
    /// Number of items, from the start of the split, whose importance-weighted bound is computed; 0 skips it.
    pub iw_items: usize,
    /// Posterior samples for each item in the importance-weighted bound.
    pub iw_samples: usize,
    /// Number of items, from the start of the split, whose reconstructions are measured where the modality has
    /// measures for them; 0 skips it.
    pub reconstruction_items: usize,
    /// Number of samples that are drawn and measured where the modality has measures for them; 0 skips it.
    pub samples: usize,
    /// Seed of the posterior samples, times, probes and measures.
    pub seed: u64,
    /// Number of items, from the start of the test split, that are evaluated when a training ends; 0 skips it, absent
    /// means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_training: Option<usize>,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self {
            batch_size: 200,
            time_samples: 8,
            ode_items: 500,
            ode_tolerance: 1e-3,
            ode_t_eps: OdeOptions::default().t_eps,
            ode_trace: Trace::Rademacher,
            ode_probes: 1,
            iw_items: 0,
            iw_samples: 8,
            reconstruction_items: 1000,
            samples: 0,
            seed: 1,
            after_training: None,
        }
    }
}

impl EvaluateConfig {
    /// The options of the ODE likelihood.
    pub(crate) fn ode_options(&self) -> OdeOptions {
        OdeOptions {
            tolerance: self.ode_tolerance,
            trace: self.ode_trace,
            probes: self.ode_probes,
            t_eps: self.ode_t_eps,
        }
    }

    /// Check every value.
    ///
    /// # Errors
    /// [`Error::Config`](lsgm_core::Error::Config) with the full key of the first value that cannot be used.
    pub fn validate(&self) -> Result<()> {
        batch("evaluate.batch_size", self.batch_size)?;
        at_least("evaluate.time_samples", self.time_samples, 1)?;
        at_least("evaluate.ode_probes", self.ode_probes, 1)?;
        at_least("evaluate.iw_samples", self.iw_samples, 1)?;
        share("evaluate.ode_t_eps", self.ode_t_eps)?;
        positive("evaluate.ode_tolerance", self.ode_tolerance)
    }

    /// Check the value that depends on the prior.
    ///
    /// # Errors
    /// [`Error::Config`](lsgm_core::Error::Config) for a time at which the SDE has no noise.
    pub fn validate_with(&self, prior: &PriorConfig) -> Result<()> {
        Sde::new(&prior.sde)?.check_t_eps("evaluate.ode_t_eps", self.ode_t_eps)
    }
}
