use candle_core::Tensor;

use crate::{Error, Result, Rng};

/// A distribution over items, as a decoder returns it for a batch of latents.
///
/// ```
/// use candle_core::{D, DType, Device, Tensor};
/// use lsgm_core::{Likelihood, Result, Rng};
///
/// /// Normal with unit variance around `mean`, `[B, D]`.
/// struct UnitNormal {
///     mean: Tensor,
/// }
///
/// impl Likelihood for UnitNormal {
///     fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
///         let nats = ((x - &self.mean)?.sqr()? * -0.5)? - 0.5 * (2.0 * std::f64::consts::PI).ln();
///         Ok(nats?.sum(D::Minus1)?)
///     }
///
///     fn sample(&self, temperature: f64, rng: &mut Rng) -> Result<Tensor> {
///         let noise = rng.normal_tensor(self.mean.shape().clone(), DType::F32, self.mean.device())?;
///         Ok((&self.mean + (noise * temperature)?)?)
///     }
///
///     fn mean(&self) -> Result<Tensor> {
///         Ok(self.mean.clone())
///     }
/// }
///
/// let p = UnitNormal { mean: Tensor::zeros((2, 3), DType::F32, &Device::Cpu)? };
/// let x = p.sample(0.0, &mut Rng::new(0))?;
/// let nats = p.log_prob(&x)?.to_vec1::<f32>()?;
/// assert!((nats[0] + 1.5 * (2.0 * std::f32::consts::PI).ln()).abs() < 1e-5);
/// # Ok::<(), lsgm_core::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a likelihood",
    note = "implement `log_prob`, `sample` and `mean` of `lsgm_core::Likelihood` for it"
)]
pub trait Likelihood {
    /// `log p(x | z)` of each item in nats, `[B]`.
    fn log_prob(&self, x: &Tensor) -> Result<Tensor>;

    /// `log p(known part of x | z)` of each item in nats, `[B]`: of those elements of `x` for which `known`, in the layout
    /// of `x`, is not 0.
    ///
    /// # Errors
    /// Without an implementation, that a part of an item has no likelihood of its own.
    fn log_prob_known(&self, _x: &Tensor, _known: &Tensor) -> Result<Tensor> {
        Err(Error::config("modality", "this kind of data has no likelihood of a part of an item"))
    }

    /// One draw for each latent, in the layout of [`crate::Batch::x`]. A temperature of 1 samples the distribution
    /// itself, 0 its mode.
    fn sample(&self, temperature: f64, rng: &mut Rng) -> Result<Tensor>;

    /// The mean (of discrete items: the probabilities or the mode), in the layout of [`crate::Batch::x`].
    fn mean(&self) -> Result<Tensor>;
}

/// Nats for a whole item to bits per data dimension.
pub fn nats_to_bits(nats: f64, dimensions: usize) -> f64 {
    nats / (dimensions as f64 * std::f64::consts::LN_2)
}
