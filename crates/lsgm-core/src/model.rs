use crate::{LatentShape, Latents, Likelihood, Posterior, Result, Rng};
use candle_core::Tensor;

/// One pass through a model: whether it trains, and where noise comes from.
#[derive(Debug)]
pub struct Pass<'a> {
    /// Training mode: batch statistics and dropout are on.
    pub training: bool,
    /// The source of noise.
    pub rng: &'a mut Rng,
}

impl<'a> Pass<'a> {
    /// A pass in training mode.
    pub fn train(rng: &'a mut Rng) -> Self {
        Self { training: true, rng }
    }

    /// A pass in evaluation mode.
    pub fn eval(rng: &'a mut Rng) -> Self {
        Self { training: false, rng }
    }
}

/// Items to a posterior over latents.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an encoder",
    note = "implement `latent_shape` and `encode` of `lsgm_core::Encoder` for it"
)]
pub trait Encoder {
    /// The shape of the latent that the score-based prior models.
    fn latent_shape(&self) -> LatentShape;

    /// `q(z0 | x)` with one sample, for items `x` as in [`crate::Batch::x`].
    fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior>;
}

/// Latents to a distribution over items.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a decoder",
    note = "implement `decode` of `lsgm_core::Decoder` for it"
)]
pub trait Decoder {
    /// `p(x | z0)`.
    fn decode(&self, z: &Latents, pass: &mut Pass<'_>) -> Result<Box<dyn Likelihood>>;
}

/// A term of the training loss beside the bound. It is reported under its own name and is never part of a bound.
#[derive(Debug, Clone)]
pub struct Auxiliary {
    /// Name in the log.
    pub name: &'static str,
    /// A scalar, weighted as it is to count in the loss.
    pub loss: Tensor,
}

/// An encoder and a decoder that are trained together.
///
/// An empty implementation is enough; the provided methods are for models that share work between the two or add a
/// regulariser of their own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an autoencoder",
    note = "implement `Encoder` and `Decoder`, then `impl Autoencoder for {Self} {{}}`"
)]
pub trait Autoencoder: Encoder + Decoder {
    /// Encode, then decode the sample.
    fn reconstruct(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<(Posterior, Box<dyn Likelihood>)> {
        let posterior = self.encode(x, pass)?;
        let likelihood = self.decode(&posterior.latents()?, pass)?;
        Ok((posterior, likelihood))
    }

    /// A penalty, such as one on spectral norms: a scalar that is added to the training loss with the weight
    /// `train.vae.regularizer` or `train.lsgm.regularizer`.
    fn regularizer(&self) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Terms of the training loss that compare items `x` with what is decoded, such as a distance of spectra.
    fn auxiliary(&self, _x: &Tensor, _likelihood: &dyn Likelihood) -> Result<Vec<Auxiliary>> {
        Ok(Vec::new())
    }
}
