//! From `z_1` to `z_0`: every sampler is a free function of the prior, the start, its options, and a callback that sees
//! each step.

mod choice;
mod deterministic;
mod dormand_prince;
mod error;
mod flow;
mod grid;
mod guided;
mod stochastic;
mod walk;

pub use choice::{Solver, SolverConfig, sample};
pub use deterministic::{adams_bashforth, ddim, dpm_solver_2m, dpm_solver_3m, heun};
pub use dormand_prince::Rk45Options;
pub(crate) use dormand_prince::{State, integrate};
pub use error::SolverError;
pub(crate) use flow::drift;
pub use flow::probability_flow_rk45;
pub use grid::Grid;
pub use guided::{Condition, guided_ancestral};
pub use stochastic::{ancestral, dpm_solver_sde_2m, euler_maruyama, predictor_corrector};

use candle_core::Tensor;
use lsgm_core::Result;

/// What a callback sees after each step of a solver.
#[derive(Debug, Clone)]
pub struct Step<'a> {
    /// Steps taken, from 1.
    pub index: usize,
    /// Number of steps altogether, where the solver knows it.
    pub steps: Option<usize>,
    /// Time reached.
    pub t: f64,
    /// Latents at that time, `[B, C, *spatial]`.
    pub z: &'a Tensor,
    /// Network evaluations so far.
    pub nfe: usize,
}

/// A callback of a solver; an error it returns ends the solve.
pub type OnStep<'a> = &'a mut dyn FnMut(&Step<'_>) -> Result<()>;
