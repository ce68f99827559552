/// Why a solver could not reach the end.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SolverError {
    /// The adaptive step size fell below what floating-point time can resolve.
    #[error(
        "the RK45 step size underflowed at t = {t:.3e} after {nfe} network evaluations: loosen the tolerance, raise t_eps, \
         or use a solver with a fixed number of steps"
    )]
    StepSizeUnderflow {
        /// Time reached.
        t: f64,
        /// Network evaluations so far.
        nfe: usize,
    },
    /// The state or its derivative is not a number any more.
    #[error(
        "the solver diverged: latents are not finite at t = {t:.3e} after {nfe} network evaluations; use more steps or a \
         smaller tolerance, raise t_eps, and check that the model's weights are finite"
    )]
    NotFinite {
        /// Time reached.
        t: f64,
        /// Network evaluations so far.
        nfe: usize,
    },
    /// The adaptive solver took as many steps as it may.
    #[error(
        "RK45 took {steps} steps and is only at t = {t:.3e}: loosen the tolerance, raise t_eps, or raise max_steps"
    )]
    TooManySteps {
        /// Time reached.
        t: f64,
        /// Steps taken.
        steps: usize,
    },
}

impl From<SolverError> for lsgm_core::Error {
    fn from(error: SolverError) -> Self {
        Self::Other(Box::new(error))
    }
}
