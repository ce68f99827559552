use candle_core::{DType, Tensor};
use lsgm_core::{Error, Pass, Result, Rng};

use super::{OnStep, Rk45Options, State, Step, integrate};
use crate::Prior;

/// Integrate the probability-flow ODE `dz/dt = f(t) z + ½ g²(t) ε_θ(z, t) / σ_t` (Song et al. 2021, equation 13) with the
/// adaptive Dormand–Prince method, from `z` `[B, C, *spatial]` at time `from` to time `to`: from 1 to `t_eps` to sample,
/// back to encode. Returns the latents at `to` and the number of network evaluations.
///
/// The step size is shared by the batch: the error norm is that of the whole batch, as in the published sampler.
///
/// # Errors
/// [`Error::Config`] for tolerances or times out of range, [`super::SolverError`] when the solve fails.
pub fn probability_flow_rk45(
    prior: &Prior,
    z: &Tensor,
    from: f64,
    to: f64,
    options: &Rk45Options,
    on_step: OnStep<'_>,
) -> Result<(Tensor, usize)> {
    for t in [from, to] {
        check_time(prior, t)?;
    }
    let dtype = z.dtype();
    // The network is in evaluation mode and draws nothing.
    let mut rng = Rng::new(0);
    let mut derivative = |t: f64, y: &State| -> Result<State> {
        let state = only(y)?;
        let epsilon = prior.epsilon_all(&state.to_dtype(dtype)?, t, &mut Pass::eval(&mut rng))?.detach();
        Ok(vec![drift(prior, state, &epsilon, t)?])
    };
    let mut steps = 0;
    let mut watch = |t: f64, y: &State, nfe: usize| -> Result<()> {
        steps += 1;
        on_step(&Step { index: steps, steps: None, t, z: &only(y)?.to_dtype(dtype)?, nfe })
    };
    let start = vec![z.detach().to_dtype(DType::F64)?];
    let found = integrate(&mut derivative, start, from, to, options, &mut watch)?;
    Ok((only(&found.y)?.to_dtype(dtype)?, found.nfe))
}

/// `f(t) z + ½ g² ε / σ` in the type of `z`.
pub(crate) fn drift(prior: &Prior, z: &Tensor, epsilon: &Tensor, t: f64) -> Result<Tensor> {
    let sde = prior.sde();
    let epsilon = epsilon.to_dtype(z.dtype())?;
    Ok(((z * sde.f(t))? + (epsilon * (0.5 * sde.g2(t) / sde.sigma(t)))?)?)
}

/// Check an end of a solve: a time at which the SDE has noise.
fn check_time(prior: &Prior, t: f64) -> Result<()> {
    if t == 1.0 { Ok(()) } else { prior.sde().check_t_eps("t_eps", t) }
}

fn only(y: &State) -> Result<&Tensor> {
    y.first().ok_or_else(|| Error::contract("solver", "empty state"))
}
