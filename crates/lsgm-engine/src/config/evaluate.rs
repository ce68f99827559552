use lsgm_core::Result;
use lsgm_prior::{OdeOptions, Trace};
use serde::{Deserialize, Serialize};

use super::checks::{at_least, batch, positive};

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
            ..OdeOptions::default()
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
        positive("evaluate.ode_tolerance", self.ode_tolerance)
    }
}
