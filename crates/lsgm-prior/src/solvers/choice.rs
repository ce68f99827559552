use candle_core::Tensor;
use lsgm_core::{Error, Result, Rng};
use serde::{Deserialize, Serialize};

use super::{
    Grid, OnStep, Rk45Options, adams_bashforth, ancestral, ddim, dpm_solver_2m, dpm_solver_3m, dpm_solver_sde_2m,
    euler_maruyama, heun, predictor_corrector, probability_flow_rk45,
};
use crate::Prior;

/// The samplers by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Solver {
    /// [`probability_flow_rk45`], with a tolerance instead of steps.
    #[default]
    Rk45,
    /// [`euler_maruyama`].
    EulerMaruyama,
    /// [`ancestral`].
    Ancestral,
    /// [`predictor_corrector`].
    PredictorCorrector,
    /// [`ddim`].
    Ddim,
    /// [`heun`].
    Heun,
    /// [`adams_bashforth`].
    AdamsBashforth,
    /// [`dpm_solver_2m`].
    #[serde(rename = "dpm-solver-2m")]
    DpmSolver2m,
    /// [`dpm_solver_3m`].
    #[serde(rename = "dpm-solver-3m")]
    DpmSolver3m,
    /// [`dpm_solver_sde_2m`].
    #[serde(rename = "dpm-solver-sde-2m")]
    DpmSolverSde2m,
}

impl Solver {
    /// Every solver.
    pub const ALL: [Self; 10] = [
        Self::Rk45,
        Self::EulerMaruyama,
        Self::Ancestral,
        Self::PredictorCorrector,
        Self::Ddim,
        Self::Heun,
        Self::AdamsBashforth,
        Self::DpmSolver2m,
        Self::DpmSolver3m,
        Self::DpmSolverSde2m,
    ];

    /// The name in configs and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rk45 => "rk45",
            Self::EulerMaruyama => "euler-maruyama",
            Self::Ancestral => "ancestral",
            Self::PredictorCorrector => "predictor-corrector",
            Self::Ddim => "ddim",
            Self::Heun => "heun",
            Self::AdamsBashforth => "adams-bashforth",
            Self::DpmSolver2m => "dpm-solver-2m",
            Self::DpmSolver3m => "dpm-solver-3m",
            Self::DpmSolverSde2m => "dpm-solver-sde-2m",
        }
    }
}

impl std::fmt::Display for Solver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Solver {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|s| s.name() == name)
            .ok_or_else(|| format!("unknown solver `{name}`: use one of {}", names()))
    }
}

/// A sampler with its options, as a config holds it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SolverConfig {
    /// Which sampler.
    pub solver: Solver,
    /// Number of steps; [`Solver::Rk45`] chooses its own.
    pub steps: usize,
    /// How the times of a fixed number of steps are spread.
    pub grid: Grid,
    /// Relative and absolute tolerance of [`Solver::Rk45`].
    pub tolerance: f64,
    /// Time to stop at; the prior's cut-off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t_eps: Option<f64>,
    /// Size of the Langevin steps of [`Solver::PredictorCorrector`].
    pub snr: f64,
}

impl Default for SolverConfig {
    fn default() -> Self {
        Self { solver: Solver::Rk45, steps: 20, grid: Grid::LogSnr, tolerance: 1e-5, t_eps: None, snr: 0.16 }
    }
}

impl SolverConfig {
    /// Check the options that the chosen solver uses.
    ///
    /// # Errors
    /// [`Error::Config`] with a key below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        let at = |field: &str| format!("{key}.{field}");
        if self.solver == Solver::Rk45 {
            if !(self.tolerance > 0.0 && self.tolerance.is_finite()) {
                let message = format!("must be above 0, not {}: 1e-5 is usual", self.tolerance);
                return Err(Error::config(at("tolerance"), message));
            }
        } else if self.steps == 0 {
            return Err(Error::config(at("steps"), format!("solver `{}` needs at least 1 step", self.solver)));
        }
        if self.solver == Solver::PredictorCorrector && !(self.snr > 0.0 && self.snr.is_finite()) {
            return Err(Error::config(at("snr"), format!("must be above 0, not {}: 0.16 is usual", self.snr)));
        }
        match self.t_eps {
            Some(t) if !(t > 0.0 && t < 1.0) => {
                Err(Error::config(at("t_eps"), format!("{t} must lie between 0 and 1: 1e-3 is usual")))
            }
            _ => Ok(()),
        }
    }
}

/// Carry `z1` `[B, C, *spatial]` from `t = 1` to the cut-off with the configured sampler. Returns `z_0` and the number of
/// network evaluations.
///
/// # Errors
/// [`Error::Config`] for options out of range, [`super::SolverError`] when the solve fails.
pub fn sample(
    prior: &Prior,
    z1: &Tensor,
    config: &SolverConfig,
    rng: &mut Rng,
    on_step: OnStep<'_>,
) -> Result<(Tensor, usize)> {
    config.validate("sample")?;
    let t_eps = config.t_eps.unwrap_or(prior.t_eps());
    let times = || config.grid.times(prior.sde(), config.steps, t_eps);
    match config.solver {
        Solver::Rk45 => {
            let options = Rk45Options::with_tolerance(config.tolerance);
            probability_flow_rk45(prior, z1, 1.0, t_eps, &options, on_step)
        }
        Solver::EulerMaruyama => euler_maruyama(prior, z1, &times()?, rng, on_step),
        Solver::Ancestral => ancestral(prior, z1, &times()?, rng, on_step),
        Solver::PredictorCorrector => predictor_corrector(prior, z1, &times()?, rng, on_step, config.snr),
        Solver::Ddim => ddim(prior, z1, &times()?, rng, on_step),
        Solver::Heun => heun(prior, z1, &times()?, rng, on_step),
        Solver::AdamsBashforth => adams_bashforth(prior, z1, &times()?, rng, on_step),
        Solver::DpmSolver2m => dpm_solver_2m(prior, z1, &times()?, rng, on_step),
        Solver::DpmSolver3m => dpm_solver_3m(prior, z1, &times()?, rng, on_step),
        Solver::DpmSolverSde2m => dpm_solver_sde_2m(prior, z1, &times()?, rng, on_step),
    }
}
