//! The cross entropy between the encoder's distribution and the prior by denoising score matching, and the losses of the
//! three training algorithms (LSGM, section 3.3 and appendix C).

use candle_core::Tensor;
use lsgm_core::{Error, Pass, Result};
use lsgm_nn::ops::scale_gradient;

use crate::prior::{column, sum_per_item};
use crate::{Prior, Times};

/// The losses of an algorithm that treats prior and encoder differently.
#[derive(Debug, Clone)]
pub struct PriorLosses {
    /// The objective to differentiate, `[B]`.
    pub objective: Tensor,
    /// The cross entropy of each item in nats, `[B]`, constant included, for reports.
    pub cross_entropy: Tensor,
}

impl Prior {
    /// Cross entropy `CE(q(z_0|x) ‖ p(z_0))` of each latent, `[B]` nats: an unbiased estimate of its bound (LSGM,
    /// theorem 1), constant included, for whichever weighting the times were drawn with.
    ///
    /// The bound under N(0, I) is known in closed form and serves as a control variate: only the difference of the two
    /// squared errors is sampled. Near the N(0, I) prior, where the second stage starts, next to no noise is left in
    /// the encoder's gradient; the prior's gradient is the same as without.
    ///
    /// It is the loss of **algorithm 1** for encoder and prior alike, and what evaluation reports.
    ///
    /// # Errors
    /// When the number of times is not the batch size, or the network fails.
    pub fn cross_entropy(&self, z0: &Tensor, times: &Times, pass: &mut Pass<'_>) -> Result<Tensor> {
        self.cross_entropy_between(z0, z0, times, pass)
    }

    /// [`Prior::cross_entropy`] for an encoder that is led over from N(0, I) to this prior: the gradient with respect to
    /// `z0` is that of `(1 - share) · CE(q ‖ N(0, I)) + share · CE(q ‖ p)`. The value, and the gradient of the prior's
    /// parameters, are those of the cross entropy itself, whatever the share.
    ///
    /// It is also the encoder's half of **algorithm 3**, on a prior that is built on frozen parameters (of the model or
    /// of its EMA), so that the likelihood loss cannot reach the prior. The prior's half is [`Prior::objective`] of the
    /// trained prior on `z0.detach()`, with times of its own.
    ///
    /// # Errors
    /// As [`Prior::cross_entropy`].
    pub fn encoder_cross_entropy(&self, z0: &Tensor, times: &Times, share: f64, pass: &mut Pass<'_>) -> Result<Tensor> {
        let seen = if share == 1.0 { z0.clone() } else { scale_gradient(z0, &constant(share, z0)?)? };
        self.cross_entropy_between(z0, &seen, times, pass)
    }

    /// The cross entropy with N(0, I) of `z0`, and the difference to that with this prior of the equal `seen`.
    fn cross_entropy_between(&self, z0: &Tensor, seen: &Tensor, times: &Times, pass: &mut Pass<'_>) -> Result<Tensor> {
        let diffused = self.diffuse(seen, times, pass)?;
        let epsilon = self.epsilon_at(&diffused.z_t, &times.t, pass)?;
        // ‖ε - ε_θ‖² - ‖ε - k z_t‖², without the cancellation.
        let normal = self.normal_epsilon(&diffused.z_t, times)?;
        let sum = ((diffused.noise * 2.0)? - &normal)?;
        let excess = sum_per_item(&((&normal - &epsilon)? * (sum - &epsilon)?)?)?;
        let baseline = self.baseline().cross_entropy(z0)?;
        Ok((baseline + (&excess * column(&encoder_weights(times, 1.0), &excess)?)?)?)
    }

    /// `weight · ‖ε - ε_θ‖²` of each latent, `[B]`: the objective of the prior under the weighting that the times were
    /// drawn with, without a constant. Give a detached `z0` to train the prior alone.
    ///
    /// # Errors
    /// As [`Prior::cross_entropy`].
    pub fn objective(&self, z0: &Tensor, times: &Times, pass: &mut Pass<'_>) -> Result<Tensor> {
        let diffused = self.diffuse(z0, times, pass)?;
        let error = self.error(&diffused, times, pass)?;
        Ok((&error * column(&times.weight, &error)?)?)
    }

    /// **Algorithm 2**: un- or reweighted objective for the prior, likelihood weighting for the encoder, from one sample of
    /// `t` and one pass through the network.
    ///
    /// The gradient of `objective` with respect to the prior's parameters is that of `weight · ‖ε - ε_θ‖²`; with respect
    /// to `z0` it is that of `scale · encoder_cross_entropy(share)` (the scale takes a KL annealing; for the share see
    /// [`Prior::encoder_cross_entropy`]). Both come from a single backward pass, because what enters the network passes
    /// the weight ratio of its own item on the way back, and items do not meet in a score network.
    ///
    /// # Errors
    /// As [`Prior::cross_entropy`].
    pub fn shared_time_losses(
        &self,
        z0: &Tensor,
        times: &Times,
        scale: f64,
        share: f64,
        pass: &mut Pass<'_>,
    ) -> Result<PriorLosses> {
        let encoder = encoder_weights(times, scale * share);
        let ratio: Vec<f64> = encoder.iter().zip(&times.weight).map(|(encoder, prior)| encoder / prior).collect();
        let diffused = self.diffuse(z0, times, pass)?;
        let normal_error = (&diffused.noise - self.normal_epsilon(&diffused.z_t, times)?)?.sqr()?;
        let normal_error = sum_per_item(&normal_error)?;
        let z_t = scale_gradient(&diffused.z_t, &column(&ratio, &diffused.z_t)?)?;
        let scaled = Diffused { z_t, ..diffused };
        let error = self.error(&scaled, times, pass)?;
        let baseline = self.baseline().cross_entropy(z0)?;
        let weights = column(&encoder_weights(times, 1.0), &error)?;
        let cross_entropy = (baseline.detach() + ((error.detach() - normal_error.detach())? * weights)?)?;
        // The control variate of `cross_entropy`: a gradient for the encoder, no value.
        let control = ((baseline * scale)? - (&normal_error * column(&encoder, &error)?)?)?;
        let gradient = (&control - control.detach())?;
        let objective = ((&error * column(&times.weight, &error)?)? + gradient)?;
        Ok(PriorLosses { objective, cross_entropy })
    }

    /// `z_t = m_t z_0 + σ_t ε` with fresh noise.
    fn diffuse(&self, z0: &Tensor, times: &Times, pass: &mut Pass<'_>) -> Result<Diffused> {
        if times.t_eps != self.t_eps() {
            let message = format!("times above {} for a prior with t_eps = {}", times.t_eps, self.t_eps());
            return Err(Error::contract("cross entropy", message));
        }
        let noise = pass.rng.normal_tensor(z0.shape().clone(), z0.dtype(), z0.device())?;
        let mean = z0.broadcast_mul(&column(&times.mean_coefficient, z0)?)?;
        let z_t = (mean + noise.broadcast_mul(&self.per_item(&times.t, |t| self.sde().sigma(t), z0)?)?)?;
        Ok(Diffused { noise, z_t })
    }

    /// `‖ε - ε_θ(z_t, t)‖²` of each item, `[B]`.
    fn error(&self, diffused: &Diffused, times: &Times, pass: &mut Pass<'_>) -> Result<Tensor> {
        let epsilon = self.epsilon_at(&diffused.z_t, &times.t, pass)?;
        sum_per_item(&(&diffused.noise - epsilon)?.sqr()?)
    }

    /// What the score of N(0, I) data says of the noise.
    fn normal_epsilon(&self, z_t: &Tensor, times: &Times) -> Result<Tensor> {
        Ok(z_t.broadcast_mul(&self.per_item(&times.t, |t| self.sde().mixing_coefficient(t), z_t)?)?)
    }
}

/// Diffused latents and the noise in them.
struct Diffused {
    noise: Tensor,
    z_t: Tensor,
}

/// What multiplies `‖ε - ε_θ‖²` in an unbiased likelihood bound.
fn encoder_weights(times: &Times, scale: f64) -> Vec<f64> {
    times.likelihood_weight.iter().map(|w| scale * times.correction * w).collect()
}

/// One number as a tensor that broadcasts over `like`.
fn constant(value: f64, like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::full(value, vec![1; like.rank()], like.device())?.to_dtype(like.dtype())?)
}
