use lsgm_core::{Error, Result};
use lsgm_prior::solvers::{Grid, Solver, SolverConfig};
use lsgm_prior::{Guidance, Prior, PriorConfig};
use serde::{Deserialize, Serialize};

use super::checks::{at_least, not_negative};

/// Section `[sample]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SampleConfig {
    /// The solver of the reverse diffusion.
    pub solver: Solver,
    /// Relative and absolute tolerance of the adaptive solver `rk45`.
    pub tolerance: f64,
    /// Steps of the other solvers.
    pub steps: usize,
    /// How these steps are spread over time.
    pub grid: Grid,
    /// Size of the Langevin steps of `predictor-corrector`.
    pub snr: f64,
    /// Standard deviation of the Normal at t = 1 from which sampling starts.
    pub temperature: f64,
    /// How often what a latent's context says counts: the power that the shares which it leaves to the components are taken
    /// to, as a language model is sampled at a temperature of `1 / context`. 1 is the model itself; more, such as 2, makes
    /// parts of a sample agree with each other at the price of variety. For `prior.network.kind = "mixture"`; bounds know
    /// nothing of it, nor do reconstructions and interpolations.
    pub context: f64,
    /// Time below which `context` counts; 1 is always. Nearer to noise, where it is decided what a sample is about, the
    /// model is then itself, which keeps variety (Kynkäänniemi et al. 2024, arXiv 2404.07724).
    pub context_below: f64,
    /// Show the mean of p(x | z); otherwise a draw from it.
    pub mean: bool,
    /// Items that go through the solver together.
    pub batch_size: usize,
}

impl Default for SampleConfig {
    fn default() -> Self {
        let SolverConfig { solver, steps, grid, tolerance, snr, .. } = SolverConfig::default();
        Self {
            solver,
            tolerance,
            steps,
            grid,
            snr,
            temperature: 1.0,
            context: 1.0,
            context_below: 1.0,
            mean: true,
            batch_size: 100,
        }
    }
}

impl SampleConfig {
    /// The solver with its options.
    pub(crate) fn solver(&self) -> SolverConfig {
        let Self { solver, steps, grid, tolerance, snr, .. } = *self;
        SolverConfig { solver, steps, grid, tolerance, snr, t_eps: None }
    }

    /// The prior that items are drawn from.
    pub(crate) fn guided(&self, prior: &Prior) -> Prior {
        prior.guided(Guidance { strength: self.context, below: self.context_below })
    }

    /// Check every value.
    ///
    /// # Errors
    /// [`Error::Config`] with the full key of the first value that cannot be used.
    pub fn validate(&self) -> Result<()> {
        at_least("sample.batch_size", self.batch_size, 1)?;
        self.solver().validate("sample")?;
        not_negative("sample.temperature", self.temperature)?;
        not_negative("sample.context", self.context)?;
        if !(self.context_below > 0.0 && self.context_below <= 1.0) {
            let message = format!("{} is no time above 0 and up to 1: 1 is always", self.context_below);
            return Err(Error::config("sample.context_below", message));
        }
        Ok(())
    }

    /// Check the values that depend on the prior.
    ///
    /// # Errors
    /// [`Error::Config`] for a weight of the context where the score network does not tell it from the rest.
    pub fn validate_with(&self, prior: &PriorConfig) -> Result<()> {
        if self.context != 1.0 && !prior.network.has_guidance() {
            let message = "this prior.network does not tell the context from the rest: leave it at 1, or choose kind = \"mixture\"";
            return Err(Error::config("sample.context", message));
        }
        Ok(())
    }
}
