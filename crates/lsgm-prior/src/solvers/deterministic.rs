//! Solvers of the probability-flow ODE with a fixed number of steps. With `λ = log(m/σ)` it reads
//! `d(z/m) = ε_θ d(σ/m)`, whose linear part they all solve exactly.

use candle_core::Tensor;
use lsgm_core::{Result, Rng};

use super::OnStep;
use super::walk::{Line, linear, walk};
use crate::Prior;

/// DDIM without noise (Song et al. 2021, "Denoising diffusion implicit models"): first order, one evaluation per step.
///
/// # Errors
/// As [`super::euler_maruyama`].
pub fn ddim(prior: &Prior, z1: &Tensor, times: &[f64], rng: &mut Rng, on_step: OnStep<'_>) -> Result<(Tensor, usize)> {
    walk(prior, z1, times, rng, on_step, |walker, z, t, s| {
        let epsilon = walker.epsilon(z, t)?;
        euler(prior, z, &epsilon, t, s)
    })
}

/// From `t` to `s` at constant `ε`.
fn euler(prior: &Prior, z: &Tensor, epsilon: &Tensor, t: f64, s: f64) -> Result<Tensor> {
    let sde = prior.sde();
    let ratio = sde.mean_coefficient(s) / sde.mean_coefficient(t);
    linear(z, ratio, epsilon, sde.sigma(s) - ratio * sde.sigma(t))
}

/// Heun's method (Karras et al. 2022, algorithm 1 without churn) around the flow of N(0, I) data: second order, two
/// evaluations per step.
///
/// Where their algorithm steps `z/m` along `σ/m`, this one steps what the flow of N(0, I) data keeps constant,
/// `u = z / √V` with `V` the variance that such data have at time `t`, along `κ = asinh(σ/m)` (for `σ0² = 0`). There
/// the ODE reads `du = (ε_θ - ε_normal) dκ`. The mixed score makes the right side small, and steps can be long.
///
/// # Errors
/// As [`super::euler_maruyama`].
pub fn heun(prior: &Prior, z1: &Tensor, times: &[f64], rng: &mut Rng, on_step: OnStep<'_>) -> Result<(Tensor, usize)> {
    walk(prior, z1, times, rng, on_step, |walker, z, t, s| {
        let first = walker.excess(z, t)?;
        let trial = along_normal_flow(prior, z, &first, t, s)?;
        let second = walker.excess(&trial, s)?;
        along_normal_flow(prior, z, &linear(&first, 0.5, &second, 0.5)?, t, s)
    })
}

/// The two-step Adams–Bashforth method in the variables of [`heun`]: second order, one evaluation per step.
///
/// # Errors
/// As [`super::euler_maruyama`].
pub fn adams_bashforth(
    prior: &Prior,
    z1: &Tensor,
    times: &[f64],
    rng: &mut Rng,
    on_step: OnStep<'_>,
) -> Result<(Tensor, usize)> {
    let mut line = Line::default();
    walk(prior, z1, times, rng, on_step, move |walker, z, t, s| {
        let slope = line.ahead(walker.excess(z, t)?, kappa(prior, t), kappa(prior, s))?;
        along_normal_flow(prior, z, &slope, t, s)
    })
}

/// `κ = asinh(σ / (m √(1 - σ0²)))`.
fn kappa(prior: &Prior, t: f64) -> f64 {
    let sde = prior.sde();
    (sde.sigma(t) / (sde.marginal_variance(t) - sde.variance(t)).sqrt()).asinh()
}

/// From `t` to `s` at constant `ε_θ - ε_normal`.
fn along_normal_flow(prior: &Prior, z: &Tensor, excess: &Tensor, t: f64, s: f64) -> Result<Tensor> {
    let (before, after) = (prior.sde().marginal_variance(t).sqrt(), prior.sde().marginal_variance(s).sqrt());
    linear(z, after / before, excess, after * (kappa(prior, s) - kappa(prior, t)))
}

/// DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++", algorithm 2): second-order multistep in the data prediction, one
/// evaluation per step.
///
/// # Errors
/// As [`super::euler_maruyama`].
pub fn dpm_solver_2m(
    prior: &Prior,
    z1: &Tensor,
    times: &[f64],
    rng: &mut Rng,
    on_step: OnStep<'_>,
) -> Result<(Tensor, usize)> {
    multistep(prior, z1, times, rng, on_step, 2)
}

/// DPM-Solver++(3M): third-order multistep in the data prediction, one evaluation per step.
///
/// # Errors
/// As [`super::euler_maruyama`].
pub fn dpm_solver_3m(
    prior: &Prior,
    z1: &Tensor,
    times: &[f64],
    rng: &mut Rng,
    on_step: OnStep<'_>,
) -> Result<(Tensor, usize)> {
    multistep(prior, z1, times, rng, on_step, 3)
}

/// `z_s = (σ_s/σ_t) z - m_s [(e^{-h} - 1) D0 - φ2 D1 + φ3 D2]` with divided differences `D` of the data prediction over
/// the last `order` evaluations.
fn multistep(
    prior: &Prior,
    z1: &Tensor,
    times: &[f64],
    rng: &mut Rng,
    on_step: OnStep<'_>,
    order: usize,
) -> Result<(Tensor, usize)> {
    // Data predictions and the lambdas they belong to, latest first.
    let mut history: Vec<(f64, Tensor)> = Vec::new();
    walk(prior, z1, times, rng, on_step, move |walker, z, t, s| {
        let sde = walker.sde();
        let data = walker.data(z, t)?;
        let (now, h) = (sde.lambda(t), sde.lambda(s) - sde.lambda(t));
        let m = sde.mean_coefficient(s);
        let decay = (-h).exp_m1();
        let mut next = linear(z, sde.sigma(s) / sde.sigma(t), &data, -m * decay)?;
        if let Some((before, previous)) = history.first() {
            let r0 = (now - before) / h;
            let slope0 = linear(&data, 1.0 / r0, previous, -1.0 / r0)?;
            let slope = match history.get(1) {
                Some((earlier, oldest)) => {
                    let r1 = (before - earlier) / h;
                    let slope1 = linear(previous, 1.0 / r1, oldest, -1.0 / r1)?;
                    let curvature = linear(&slope0, 1.0 / (r0 + r1), &slope1, -1.0 / (r0 + r1))?;
                    next = linear(&next, 1.0, &curvature, -m * ((decay + h) / (h * h) - 0.5))?;
                    linear(&slope0, 1.0, &curvature, r0)?
                }
                None => slope0,
            };
            // The two-step method weights the slope as its paper does, which agrees to second order.
            let weight = if order == 2 { -0.5 * decay } else { decay / h + 1.0 };
            next = linear(&next, 1.0, &slope, m * weight)?;
        }
        history.insert(0, (now, data));
        history.truncate(order - 1);
        Ok(next)
    })
}
