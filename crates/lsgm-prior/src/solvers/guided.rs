//! Sampling under a condition on the data.

use candle_core::{Tensor, Var};
use lsgm_core::{Error, Pass, Result, Rng};

use super::OnStep;
use super::stochastic::ancestral_draw;
use super::walk::{Walker, linear, walk};
use crate::Prior;
use crate::prior::sum_per_item;

/// `log p(condition | z_0)` of each latent `[B, C, *spatial]`: `[B]`, differentiable.
pub type Condition<'a> = &'a mut dyn FnMut(&Tensor) -> Result<Tensor>;

/// Ancestral sampling of latents that fulfil a condition, by reconstruction guidance: to the score at each time the gradient
/// of `log p(condition | E[z_0 | z_t])` is added, times `strength`, through the score network (Chung et al. 2023,
/// "Diffusion posterior sampling"). One evaluation of the network and its backward pass for each step.
///
/// What the gradient adds to the predicted `z_0` is kept to a root mean square of 1 for each item, the scale of latents:
/// where the prediction is poor, far from the data, so is its gradient.
///
/// # Errors
/// As [`super::ancestral`]; [`Error::Config`] for a negative strength; what the condition returns.
pub fn guided_ancestral(
    prior: &Prior,
    z1: &Tensor,
    times: &[f64],
    rng: &mut Rng,
    on_step: OnStep<'_>,
    condition: Condition<'_>,
    strength: f64,
) -> Result<(Tensor, usize)> {
    if !(strength >= 0.0 && strength.is_finite()) {
        return Err(Error::config("guidance", format!("{strength} is negative or not a number: 1 is usual")));
    }
    walk(prior, z1, times, rng, on_step, |walker, z, t, s| {
        let data = guided_data(walker, z, t, condition, strength)?;
        ancestral_draw(walker, z, &data, t, s)
    })
}

/// The prediction of `z_0` from `z_t`, moved along the gradient of the condition.
fn guided_data(walker: &mut Walker<'_>, z: &Tensor, t: f64, condition: Condition<'_>, strength: f64) -> Result<Tensor> {
    let (m, sigma) = (walker.sde().mean_coefficient(t), walker.sde().sigma(t));
    let start = Var::from_tensor(z)?;
    walker.nfe += 1;
    let epsilon = walker.prior.epsilon_all(start.as_tensor(), t, &mut Pass::eval(walker.rng))?;
    let data = linear(start.as_tensor(), 1.0 / m, &epsilon, -sigma / m)?;
    let fulfilled = condition(&data)?.sum_all()?;
    let gradients = fulfilled.backward()?;
    let data = data.detach();
    let Some(gradient) = gradients.get(start.as_tensor()) else { return Ok(data) };
    let pull = (gradient.detach() * (strength * sigma * sigma / m))?;
    let norm = (sum_per_item(&pull.sqr()?)? / walker.prior.shape().dim() as f64)?.sqrt()?;
    let mut dims = vec![1; z.rank()];
    if let Some(first) = dims.first_mut() {
        *first = z.dim(0)?;
    }
    let shorten = norm.maximum(1.0)?.recip()?.reshape(dims)?;
    Ok((data + pull.broadcast_mul(&shorten)?)?)
}
