//! Samplers that add noise.

use candle_core::Tensor;
use lsgm_core::{Error, Result, Rng};

use super::OnStep;
use super::walk::{Line, Walker, linear, walk};
use crate::Prior;
use crate::prior::sum_per_item;

/// Euler–Maruyama on the reverse SDE `dz = [f z + g² ε_θ / σ] dt + g dw` (Song et al. 2021, equation 6); one evaluation
/// per step. The last step adds no noise.
///
/// # Errors
/// [`Error::Config`] for times that do not fall from 1 or below to a valid cut-off, [`super::SolverError`] when latents are
/// not finite in the end.
pub fn euler_maruyama(
    prior: &Prior,
    z1: &Tensor,
    times: &[f64],
    rng: &mut Rng,
    on_step: OnStep<'_>,
) -> Result<(Tensor, usize)> {
    let end = times.last().copied();
    walk(prior, z1, times, rng, on_step, |walker, z, t, s| {
        let (h, f, g2, sigma) = (t - s, walker.sde().f(t), walker.sde().g2(t), walker.sde().sigma(t));
        let mean = linear(z, 1.0 - h * f, &walker.epsilon(z, t)?, -h * g2 / sigma)?;
        if Some(s) == end {
            return Ok(mean);
        }
        linear(&mean, 1.0, &walker.noise(z)?, (g2 * h).sqrt())
    })
}

/// Ancestral sampling: each step draws from `q(z_s | z_t, z_0)` at the predicted `z_0` (Ho et al. 2020, generalised to any
/// SDE with Gaussian transitions); one evaluation per step.
///
/// # Errors
/// As [`euler_maruyama`].
pub fn ancestral(
    prior: &Prior,
    z1: &Tensor,
    times: &[f64],
    rng: &mut Rng,
    on_step: OnStep<'_>,
) -> Result<(Tensor, usize)> {
    walk(prior, z1, times, rng, on_step, ancestral_step)
}

fn ancestral_step(walker: &mut Walker<'_>, z: &Tensor, t: f64, s: f64) -> Result<Tensor> {
    let data = walker.data(z, t)?;
    ancestral_draw(walker, z, &data, t, s)
}

/// A draw from `q(z_s | z_t, z_0)` for given `z_0`.
pub(crate) fn ancestral_draw(walker: &mut Walker<'_>, z: &Tensor, data: &Tensor, t: f64, s: f64) -> Result<Tensor> {
    let sde = walker.sde();
    let (m_t, m_s) = (sde.mean_coefficient(t), sde.mean_coefficient(s));
    let (v_t, v_s) = (sde.variance(t), sde.variance(s));
    let ratio = m_t / m_s;
    // Variance of z_t given z_s.
    let between = (v_t - ratio * ratio * v_s).max(0.0);
    let mean = linear(z, ratio * v_s / v_t, data, m_s * between / v_t)?;
    linear(&mean, 1.0, &walker.noise(z)?, (v_s * between / v_t).sqrt())
}

/// SDE-DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++"): ancestral sampling in which the data prediction follows the line
/// through its last two values; one evaluation per step.
///
/// # Errors
/// As [`euler_maruyama`].
pub fn dpm_solver_sde_2m(
    prior: &Prior,
    z1: &Tensor,
    times: &[f64],
    rng: &mut Rng,
    on_step: OnStep<'_>,
) -> Result<(Tensor, usize)> {
    let mut line = Line::default();
    walk(prior, z1, times, rng, on_step, move |walker, z, t, s| {
        let data = walker.data(z, t)?;
        let ahead = line.ahead(data, walker.sde().lambda(t), walker.sde().lambda(s))?;
        ancestral_draw(walker, z, &ahead, t, s)
    })
}

/// Predictor–corrector: an ancestral step, then a step of Langevin dynamics at the new time (Song et al. 2021, algorithm
/// 5); two evaluations per step. `snr` sets the size of the Langevin step; 0.16 is usual.
///
/// # Errors
/// As [`euler_maruyama`]; [`Error::Config`] for an `snr` that is not above 0.
pub fn predictor_corrector(
    prior: &Prior,
    z1: &Tensor,
    times: &[f64],
    rng: &mut Rng,
    on_step: OnStep<'_>,
    snr: f64,
) -> Result<(Tensor, usize)> {
    if !(snr > 0.0 && snr.is_finite()) {
        return Err(Error::config("snr", format!("must be above 0, not {snr}: 0.16 is usual")));
    }
    walk(prior, z1, times, rng, on_step, |walker, z, t, s| {
        let z = ancestral_step(walker, z, t, s)?;
        let score = (walker.epsilon(&z, s)? * (-1.0 / walker.sde().sigma(s)))?;
        let noise = walker.noise(&z)?;
        // 2 (snr · ‖noise‖ / ‖score‖)², with norms averaged over the batch and kept on the device.
        let norm = |x: &Tensor| -> Result<Tensor> { Ok(sum_per_item(&x.sqr()?)?.sqrt()?.mean_all()?) };
        let size = ((norm(&noise)? / (norm(&score)? + 1e-12)?)?.sqr()? * (2.0 * snr * snr))?;
        let moved = (z + score.broadcast_mul(&size)?)?;
        Ok((moved + noise.broadcast_mul(&(size * 2.0)?.sqrt()?)?)?)
    })
}
