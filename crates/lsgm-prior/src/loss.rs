//! The cross entropy between the encoder's distribution and the prior by denoising score matching, and the losses of the
//! three training algorithms (LSGM, section 3.3 and appendix C).

use candle_core::Tensor;
use lsgm_core::{Pass, Result};

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
    /// It is the loss of **algorithm 1** for encoder and prior alike, and what evaluation reports.
    ///
    /// # Errors
    /// When the number of times is not the batch size, or the network fails.
    pub fn cross_entropy(&self, z0: &Tensor, times: &Times, pass: &mut Pass<'_>) -> Result<Tensor> {
        let error = self.denoising_error(z0, times, pass)?;
        self.cross_entropy_of(&error, times)
    }

    /// `weight · ‖ε - ε_θ‖²` of each latent, `[B]`: the objective of the prior under the weighting that the times were
    /// drawn with, without a constant. Give a detached `z0` to train the prior alone.
    ///
    /// # Errors
    /// As [`Prior::cross_entropy`].
    pub fn objective(&self, z0: &Tensor, times: &Times, pass: &mut Pass<'_>) -> Result<Tensor> {
        let error = self.denoising_error(z0, times, pass)?;
        Ok((&error * column(&times.weight, &error)?)?)
    }

    /// **Algorithm 2**: un- or reweighted objective for the prior, likelihood weighting for the encoder, from one sample of
    /// `t` and one pass through the network.
    ///
    /// The gradient of `objective` with respect to the prior's parameters is that of `weight · ‖ε - ε_θ‖²`; with respect
    /// to `z0` it is that of `encoder_scale · cross_entropy` (the scale takes a KL annealing). Both come from a single
    /// backward pass, because what enters the network passes the weight ratio of its own item on the way back, and
    /// items do not meet in a score network.
    ///
    /// # Errors
    /// As [`Prior::cross_entropy`].
    pub fn shared_time_losses(
        &self,
        z0: &Tensor,
        times: &Times,
        encoder_scale: f64,
        pass: &mut Pass<'_>,
    ) -> Result<PriorLosses> {
        let ratio: Vec<f64> = times
            .likelihood_weight
            .iter()
            .zip(&times.weight)
            .map(|(likelihood, weight)| encoder_scale * times.correction * likelihood / weight)
            .collect();
        let z0 = scale_gradient(z0, &ratio)?;
        let error = self.denoising_error(&z0, times, pass)?;
        let objective = (&error * column(&times.weight, &error)?)?;
        let cross_entropy = self.cross_entropy_of(&error.detach(), times)?;
        Ok(PriorLosses { objective, cross_entropy })
    }

    /// The encoder's half of **algorithm 3**: the cross entropy under this prior, meant for one that is built on frozen
    /// parameters (of the model or of its EMA), so that the likelihood loss cannot reach the prior. The prior's half is
    /// [`Prior::objective`] of the trained prior on `z0.detach()`, with times of its own.
    ///
    /// # Errors
    /// As [`Prior::cross_entropy`].
    pub fn encoder_cross_entropy(&self, z0: &Tensor, times: &Times, pass: &mut Pass<'_>) -> Result<Tensor> {
        self.cross_entropy(z0, times, pass)
    }

    /// `z_t = m_t z_0 + σ_t ε` and `‖ε - ε_θ(z_t, t)‖²` of each item, `[B]`.
    fn denoising_error(&self, z0: &Tensor, times: &Times, pass: &mut Pass<'_>) -> Result<Tensor> {
        let noise = pass.rng.normal_tensor(z0.shape().clone(), z0.dtype(), z0.device())?;
        let mean = z0.broadcast_mul(&column(&times.mean_coefficient, z0)?)?;
        let z_t = (mean + noise.broadcast_mul(&self.per_item(&times.t, |t| self.sde().sigma(t), z0)?)?)?;
        let epsilon = self.epsilon_at(&z_t, &times.t, pass)?;
        sum_per_item(&(noise - epsilon)?.sqr()?)
    }

    fn cross_entropy_of(&self, error: &Tensor, times: &Times) -> Result<Tensor> {
        let weights: Vec<f64> = times.likelihood_weight.iter().map(|w| w * times.correction).collect();
        let constant = self.shape().dim() as f64 * self.sde().cross_entropy_constant(times.t_eps);
        Ok(((error * column(&weights, error)?)? + constant)?)
    }
}

/// `z`, exactly, with a gradient that is multiplied by a value per item.
fn scale_gradient(z: &Tensor, scale: &[f64]) -> Result<Tensor> {
    let value = z.detach();
    let zero = (z - &value)?;
    Ok((zero.broadcast_mul(&column(scale, z)?)? + value)?)
}
