use lsgm_core::{Error, Result};
use lsgm_nn::Precision;
use lsgm_prior::solvers::{Grid, Solver, SolverConfig};
use lsgm_prior::{Guidance, Prior, PriorConfig, Sde};
use serde::{Deserialize, Serialize};

use super::checks::{batch, not_negative, positive};

/// More would be a search.
const MOST_CANDIDATES: usize = 1000;

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
    /// Time at which sampling ends; `prior.t_eps` if it is not given. Published models are sampled down to 1e-5, whatever
    /// they were trained to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t_eps: Option<f64>,
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
    /// Temperature of that draw: below 1 it comes closer to the mode, at 0 it is the mode.
    pub decoder_temperature: f64,
    /// Draw so many items for each that is wanted, and keep the one that the prior itself finds least surprising: whose
    /// posterior has the smallest KL divergence to it, for texts per token. Rids samples of mistakes at the price of time and
    /// of variety; 1 is a sample of the model. Diffusion-LM (Li et al. 2022, arXiv 2205.14217) chooses among candidates too,
    /// by how alike they are.
    pub candidates: usize,
    /// Items that go through the solver together.
    pub batch_size: usize,
    /// In which numbers a GPU computes while it draws samples and films; a CPU computes in `f32` always.
    pub precision: Precision,
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
            t_eps: None,
            temperature: 1.0,
            context: 1.0,
            context_below: 1.0,
            mean: true,
            decoder_temperature: 1.0,
            candidates: 1,
            batch_size: 100,
            precision: Precision::F32,
        }
    }
}

impl SampleConfig {
    /// The solver with its options.
    pub(crate) fn solver(&self) -> SolverConfig {
        let Self { solver, steps, grid, tolerance, snr, t_eps, .. } = *self;
        SolverConfig { solver, steps, grid, tolerance, snr, t_eps }
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
        batch("sample.batch_size", self.batch_size)?;
        if !(1..=MOST_CANDIDATES).contains(&self.candidates) {
            let message = format!("{} is no number between 1 and {MOST_CANDIDATES}", self.candidates);
            return Err(Error::config("sample.candidates", message));
        }
        self.solver().validate("sample")?;
        if self.precision == Precision::Bf16 && self.solver == Solver::Rk45 {
            let message = "bf16 is coarser than the errors that rk45 steers by: use tf32 or f32, or another solver";
            return Err(Error::config("sample.precision", message));
        }
        // Interpolations follow the ODE whatever the solver.
        positive("sample.tolerance", self.tolerance)?;
        not_negative("sample.decoder_temperature", self.decoder_temperature)?;
        if self.mean && self.decoder_temperature != 1.0 {
            let message = "has no effect on the mean of p(x | z): set sample.mean = false too";
            return Err(Error::config("sample.decoder_temperature", message));
        }
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
    /// [`Error::Config`] for a weight of the context where the score network does not tell it from the rest, a time of it
    /// without a weight, or an end of time at which the SDE has no noise.
    pub fn validate_with(&self, prior: &PriorConfig) -> Result<()> {
        if let Some(t_eps) = self.t_eps {
            Sde::new(&prior.sde)?.check_t_eps("sample.t_eps", t_eps)?;
        }
        if self.context == 1.0 && self.context_below != 1.0 {
            let message =
                "has no effect without `sample.context`: at 1 the context counts as the model says, at any time";
            return Err(Error::config("sample.context_below", message));
        }
        if self.context != 1.0 && !prior.network.has_guidance() {
            let message = "this prior.network does not tell the context from the rest: leave it at 1, or choose kind = \"mixture\"";
            return Err(Error::config("sample.context", message));
        }
        Ok(())
    }
}
