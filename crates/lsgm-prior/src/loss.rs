//! The cross entropy between the encoder's distribution and the prior by denoising score matching, and the losses of the
//! three training algorithms (LSGM, section 3.3 and appendix C).

use candle_core::Tensor;
use lsgm_core::{Error, LatentNormal, Pass, Result};
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
    /// Where `latents` are Normals and not latents themselves, it is the bound of what they are drawn from, `E CE(z_0)`:
    /// `z_t` is then drawn at once from `N(m_t μ, v)`, `v = m_t² s² + σ_t²`, and the noise `ε` in it, whose part in `z_t`
    /// cannot be told from that of `z_0`, is replaced by its conditional mean `σ_t (z_t - m_t μ) / v`. By Rao and
    /// Blackwell the variance can only fall, and it does by most where the posterior is wide; values and gradients have
    /// the same expectation.
    ///
    /// It is the loss of **algorithm 1** for encoder and prior alike, and what evaluation reports.
    ///
    /// # Errors
    /// When the number of times is not the batch size, or the network fails.
    pub fn cross_entropy(
        &self,
        latents: impl Into<LatentNormal>,
        times: &Times,
        pass: &mut Pass<'_>,
    ) -> Result<Tensor> {
        let latents = latents.into();
        self.cross_entropy_between(&latents, &latents, times, pass)
    }

    /// [`Prior::cross_entropy`] for an encoder that is led over from N(0, I) to this prior: the gradient with respect to
    /// `latents` is that of `(1 - share) · CE(q ‖ N(0, I)) + share · CE(q ‖ p)`. The value, and the gradient of the prior's
    /// parameters, are those of the cross entropy itself, whatever the share.
    ///
    /// It is also the encoder's half of **algorithm 3**, on a prior that is built on frozen parameters (of the model or
    /// of its EMA), so that the likelihood loss cannot reach the prior. The prior's half is [`Prior::objective`] of the
    /// trained prior on the detached latents, with times of its own.
    ///
    /// # Errors
    /// As [`Prior::cross_entropy`].
    pub fn encoder_cross_entropy(
        &self,
        latents: impl Into<LatentNormal>,
        times: &Times,
        share: f64,
        pass: &mut Pass<'_>,
    ) -> Result<Tensor> {
        let latents = latents.into();
        if share == 1.0 {
            return self.cross_entropy_between(&latents, &latents, times, pass);
        }
        let seen = latents.map(|x| scale_gradient(x, &constant(share, x)?))?;
        self.cross_entropy_between(&latents, &seen, times, pass)
    }

    /// The cross entropy with N(0, I) of `latents`, and the difference to that with this prior of the equal `seen`.
    fn cross_entropy_between(
        &self,
        latents: &LatentNormal,
        seen: &LatentNormal,
        times: &Times,
        pass: &mut Pass<'_>,
    ) -> Result<Tensor> {
        let diffused = self.diffuse(seen, times, pass)?;
        let epsilon = self.epsilon_at(&diffused.z_t, &times.t, pass)?;
        // ‖ε - ε_θ‖² - ‖ε - k z_t‖², without the cancellation; the noise enters linearly, so that its mean may stand for it.
        let normal = self.normal_epsilon(&diffused.z_t, times)?;
        let sum = ((diffused.noise * 2.0)? - &normal)?;
        let excess = sum_per_item(&((&normal - &epsilon)? * (sum - &epsilon)?)?)?;
        let baseline = self.baseline().cross_entropy(latents)?;
        Ok((baseline + (&excess * column(&encoder_weights(times, 1.0), &excess)?)?)?)
    }

    /// `weight · ‖ε - ε_θ‖²` of each latent, `[B]`: the objective of the prior under the weighting that the times were
    /// drawn with, up to what does not depend on the prior. Give detached latents to train the prior alone.
    ///
    /// # Errors
    /// As [`Prior::cross_entropy`].
    pub fn objective(&self, latents: impl Into<LatentNormal>, times: &Times, pass: &mut Pass<'_>) -> Result<Tensor> {
        let latents = latents.into();
        let diffused = self.diffuse(&latents, times, pass)?;
        let (epsilon, loss) = self.estimate(&diffused.z_t, &times.t, Some(&latents.mean), pass)?;
        let error = squared_error(&diffused.noise, &epsilon)?;
        let objective = (&error * column(&times.weight, &error)?)?;
        Ok(match loss {
            Some(loss) => (objective + loss)?,
            None => objective,
        })
    }

    /// **Algorithm 2**: un- or reweighted objective for the prior, likelihood weighting for the encoder, from one sample of
    /// `t` and one pass through the network.
    ///
    /// The gradient of `objective` with respect to the prior's parameters is that of `weight · ‖ε - ε_θ‖²`; with respect
    /// to `latents` it is that of `scale · encoder_cross_entropy(share)` (the scale takes a KL annealing; for the share see
    /// [`Prior::encoder_cross_entropy`]). Both come from a single backward pass, because what enters the network, and what
    /// it is compared with, pass the weight ratio of their own item on the way back, and items do not meet in a score
    /// network.
    ///
    /// # Errors
    /// As [`Prior::cross_entropy`].
    pub fn shared_time_losses(
        &self,
        latents: impl Into<LatentNormal>,
        times: &Times,
        scale: f64,
        share: f64,
        pass: &mut Pass<'_>,
    ) -> Result<PriorLosses> {
        let encoder = encoder_weights(times, scale * share);
        let ratio: Vec<f64> = encoder.iter().zip(&times.weight).map(|(encoder, prior)| encoder / prior).collect();
        let latents = latents.into();
        let diffused = self.diffuse(&latents, times, pass)?;
        let normal_error = squared_error(&diffused.noise, &self.normal_epsilon(&diffused.z_t, times)?)?;
        let ratio = column(&ratio, &diffused.z_t)?;
        let z_t = scale_gradient(&diffused.z_t, &ratio)?;
        let noise = scale_gradient(&diffused.noise, &ratio)?;
        let error = self.error(&Diffused { noise, z_t }, times, pass)?;
        let baseline = self.baseline().cross_entropy(&latents)?;
        let weights = column(&encoder_weights(times, 1.0), &error)?;
        let cross_entropy = (baseline.detach() + ((error.detach() - normal_error.detach())? * weights)?)?;
        // The control variate of `cross_entropy`: a gradient for the encoder, no value.
        let control = ((baseline * scale)? - (&normal_error * column(&encoder, &error)?)?)?;
        let gradient = (&control - control.detach())?;
        let objective = ((&error * column(&times.weight, &error)?)? + gradient)?;
        Ok(PriorLosses { objective, cross_entropy })
    }

    /// `z_t = m_t z_0 + σ_t ε` with fresh noise; of latents that are Normals `z_t = m_t μ + √v n`, and `E[ε | z_t]`.
    fn diffuse(&self, latents: &LatentNormal, times: &Times, pass: &mut Pass<'_>) -> Result<Diffused> {
        if times.t_eps != self.t_eps() {
            let message = format!("times above {} for a prior with t_eps = {}", times.t_eps, self.t_eps());
            return Err(Error::contract("cross entropy", message));
        }
        let mean = &latents.mean;
        let noise = pass.rng.normal_tensor(mean.shape().clone(), mean.dtype(), mean.device())?;
        let m = column(&times.mean_coefficient, mean)?;
        let sigma = self.per_item(&times.t, |t| self.sde().sigma(t), mean)?;
        let mean = mean.broadcast_mul(&m)?;
        let Some(variance) = &latents.variance else {
            return Ok(Diffused { z_t: (mean + noise.broadcast_mul(&sigma)?)?, noise });
        };
        let width = variance.broadcast_mul(&m.sqr()?)?.broadcast_add(&sigma.sqr()?)?.sqrt()?;
        let z_t = (mean + (&width * &noise)?)?;
        Ok(Diffused { noise: (noise.broadcast_mul(&sigma)? / width)?, z_t })
    }

    /// `‖ε - ε_θ(z_t, t)‖²` of each item, `[B]`.
    fn error(&self, diffused: &Diffused, times: &Times, pass: &mut Pass<'_>) -> Result<Tensor> {
        let epsilon = self.epsilon_at(&diffused.z_t, &times.t, pass)?;
        squared_error(&diffused.noise, &epsilon)
    }

    /// What the score of N(0, I) data says of the noise.
    fn normal_epsilon(&self, z_t: &Tensor, times: &Times) -> Result<Tensor> {
        Ok(z_t.broadcast_mul(&self.per_item(&times.t, |t| self.sde().mixing_coefficient(t), z_t)?)?)
    }
}

/// Diffused latents and the noise in them, or its mean given the diffused latents.
struct Diffused {
    noise: Tensor,
    z_t: Tensor,
}

/// `‖ε - ε_θ‖²` of each item, `[B]`.
fn squared_error(noise: &Tensor, epsilon: &Tensor) -> Result<Tensor> {
    sum_per_item(&(noise - epsilon)?.sqr()?)
}

/// What multiplies `‖ε - ε_θ‖²` in an unbiased likelihood bound.
fn encoder_weights(times: &Times, scale: f64) -> Vec<f64> {
    times.likelihood_weight.iter().map(|w| scale * times.correction * w).collect()
}

/// One number as a tensor that broadcasts over `like`.
fn constant(value: f64, like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::full(value, vec![1; like.rank()], like.device())?.to_dtype(like.dtype())?)
}
