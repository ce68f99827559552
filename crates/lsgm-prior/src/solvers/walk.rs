use candle_core::{DType, Tensor};
use lsgm_core::{Error, Pass, Result, Rng};

use super::{OnStep, SolverError, Step};
use crate::{Prior, Sde};

/// The prior during a walk over a time grid: counts evaluations.
pub(crate) struct Walker<'a> {
    pub(crate) prior: &'a Prior,
    pub(crate) rng: &'a mut Rng,
    pub(crate) nfe: usize,
}

impl<'a> Walker<'a> {
    pub(crate) fn sde(&self) -> &'a Sde {
        self.prior.sde()
    }

    /// `ε_θ(z, t)`.
    pub(crate) fn epsilon(&mut self, z: &Tensor, t: f64) -> Result<Tensor> {
        self.nfe += 1;
        Ok(self.prior.epsilon_all(z, t, &mut Pass::eval(self.rng))?.detach())
    }

    /// The data that `ε_θ` implies, `(z - σ ε_θ) / m`.
    pub(crate) fn data(&mut self, z: &Tensor, t: f64) -> Result<Tensor> {
        let (m, sigma) = (self.sde().mean_coefficient(t), self.sde().sigma(t));
        linear(z, 1.0 / m, &self.epsilon(z, t)?, -sigma / m)
    }

    /// `ε_θ(z, t)` without what the score of N(0, I) data says.
    pub(crate) fn excess(&mut self, z: &Tensor, t: f64) -> Result<Tensor> {
        let normal = self.sde().mixing_coefficient(t);
        linear(&self.epsilon(z, t)?, 1.0, z, -normal)
    }

    /// Standard Normal noise in the shape of `z`.
    pub(crate) fn noise(&mut self, z: &Tensor) -> Result<Tensor> {
        self.rng.normal_tensor(z.shape().clone(), z.dtype(), z.device())
    }
}

/// `a · x + b · y`.
pub(crate) fn linear(x: &Tensor, a: f64, y: &Tensor, b: f64) -> Result<Tensor> {
    Ok(((x * a)? + (y * b)?)?)
}

/// The line through the last two values of a quantity that a solver evaluates once a step.
#[derive(Default)]
pub(crate) struct Line {
    last: Option<(f64, Tensor)>,
}

impl Line {
    /// Take in the value at `here`, and follow the line to the middle between `here` and `there`; the first value stays as
    /// it is.
    pub(crate) fn ahead(&mut self, value: Tensor, here: f64, there: f64) -> Result<Tensor> {
        let ahead = match &self.last {
            Some((before, old)) => {
                let half = 0.5 * (there - here) / (here - before);
                linear(&value, 1.0 + half, old, -half)?
            }
            None => value.clone(),
        };
        self.last = Some((here, value));
        Ok(ahead)
    }
}

/// Take `step(walker, z, from, to)` along falling times, from `z1` at the first. Returns the latents at the last time and
/// the number of network evaluations.
pub(crate) fn walk(
    prior: &Prior,
    z1: &Tensor,
    times: &[f64],
    rng: &mut Rng,
    on_step: OnStep<'_>,
    mut step: impl FnMut(&mut Walker<'_>, &Tensor, f64, f64) -> Result<Tensor>,
) -> Result<(Tensor, usize)> {
    check(prior, times)?;
    let mut walker = Walker { prior, rng, nfe: 0 };
    let mut z = z1.detach();
    let steps = times.len() - 1;
    for (i, pair) in times.windows(2).enumerate() {
        let &[from, to] = pair else { continue };
        z = step(&mut walker, &z, from, to)?;
        on_step(&Step { index: i + 1, steps: Some(steps), t: to, z: &z, nfe: walker.nfe })?;
    }
    // One read-back for the whole walk: a sum is finite only if its terms are.
    let total = z.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
    match times.last() {
        Some(&t) if !total.is_finite() => Err(SolverError::NotFinite { t, nfe: walker.nfe }.into()),
        _ => Ok((z, walker.nfe)),
    }
}

fn check(prior: &Prior, times: &[f64]) -> Result<()> {
    let (Some(&first), Some(&last)) = (times.first(), times.last()) else {
        return Err(Error::config("steps", "a solver needs at least 1 step"));
    };
    if times.len() < 2 {
        return Err(Error::config("steps", "a solver needs at least 1 step"));
    }
    if first > 1.0 || !times.windows(2).all(|w| matches!(w, [a, b] if a > b)) {
        return Err(Error::config("times", "must fall, from 1 or below"));
    }
    prior.sde().check_t_eps("t_eps", last)
}
