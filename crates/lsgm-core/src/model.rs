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
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use lsgm_core::{Encoder, Init, LatentShape, ParamStore, Params, Pass, Posterior, Result, Rng};
///
/// /// A linear map of items `[B, 3]` to the mean and the log standard deviation of latents `[B, 2, 1]`.
/// struct Linear(Tensor);
///
/// impl Linear {
///     fn new(params: &Params) -> Result<Self> {
///         Ok(Self(params.get("weight", (3, 4), Init::Normal(0.5))?))
///     }
/// }
///
/// impl Encoder for Linear {
///     fn latent_shape(&self) -> LatentShape {
///         LatentShape::line(2, 1)
///     }
///
///     fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
///         let halves = x.matmul(&self.0)?.unsqueeze(2)?.chunk(2, 1)?;
///         Posterior::normal(halves[0].clone(), halves[1].clone(), pass.rng)
///     }
/// }
///
/// let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(0));
/// let encoder = Linear::new(&store.root().pp("encoder"))?;
/// let x = Tensor::zeros((5, 3), DType::F32, &Device::Cpu)?;
/// let posterior = encoder.encode(&x, &mut Pass::eval(&mut Rng::new(1)))?;
/// encoder.latent_shape().check("encoder", &posterior.latents()?.prior)?;
/// assert_eq!(store.count("encoder."), 12);
/// # Ok::<(), lsgm_core::Error>(())
/// ```
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
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use lsgm_core::{Decoder, Latents, Likelihood, Pass, Result, Rng};
/// # struct UnitNormal(Tensor);
/// # impl Likelihood for UnitNormal {
/// #     fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
/// #         Ok(((x - &self.0)?.sqr()?.sum(1)? * -0.5)?)
/// #     }
/// #     fn sample(&self, _: f64, _: &mut Rng) -> Result<Tensor> {
/// #         Ok(self.0.clone())
/// #     }
/// #     fn mean(&self) -> Result<Tensor> {
/// #         Ok(self.0.clone())
/// #     }
/// # }
///
/// /// A linear map of latents `[B, 2, 1]` to the means of items `[B, 3]`.
/// struct Linear(Tensor);
///
/// impl Decoder for Linear {
///     fn decode(&self, z: &Latents, _: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
///         // `UnitNormal` is the example of `Likelihood`.
///         Ok(Box::new(UnitNormal(z.prior.flatten_from(1)?.matmul(&self.0)?)))
///     }
/// }
///
/// let decoder = Linear(Tensor::ones((2, 3), DType::F32, &Device::Cpu)?);
/// let z = Latents::from(Tensor::ones((4, 2, 1), DType::F32, &Device::Cpu)?);
/// let means = decoder.decode(&z, &mut Pass::eval(&mut Rng::new(0)))?.mean()?;
/// assert_eq!(means.to_vec2::<f32>()?[0], [2.0, 2.0, 2.0]);
/// # Ok::<(), lsgm_core::Error>(())
/// ```
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

/// The second half of [`Autoencoder::encode_to_decode`].
pub type Decoding<'a> = Box<dyn FnOnce(&mut Pass<'_>) -> Result<Box<dyn Likelihood>> + 'a>;

/// An encoder and a decoder that are trained together.
///
/// An empty implementation is enough; the provided methods are for models that share work between the two or add a
/// regulariser of their own.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use lsgm_core::{
///     Autoencoder, Decoder, Encoder, LatentShape, Latents, Likelihood, Pass, Posterior, Result, Rng,
/// };
/// # struct UnitNormal(Tensor);
/// # impl Likelihood for UnitNormal {
/// #     fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
/// #         Ok(((x - &self.0)?.sqr()?.sum(1)? * -0.5)?)
/// #     }
/// #     fn sample(&self, _: f64, _: &mut Rng) -> Result<Tensor> {
/// #         Ok(self.0.clone())
/// #     }
/// #     fn mean(&self) -> Result<Tensor> {
/// #         Ok(self.0.clone())
/// #     }
/// # }
///
/// /// One weight for both directions: items `[B, 2]`, latents `[B, 2, 1]`.
/// struct Scale(f64);
///
/// impl Encoder for Scale {
///     fn latent_shape(&self) -> LatentShape {
///         LatentShape::line(2, 1)
///     }
///
///     fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
///         let mu = (x.unsqueeze(2)? * self.0)?;
///         Posterior::normal(mu.clone(), mu.zeros_like()?, pass.rng)
///     }
/// }
///
/// impl Decoder for Scale {
///     fn decode(&self, z: &Latents, _: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
///         Ok(Box::new(UnitNormal((z.prior.squeeze(2)? / self.0)?)))
///     }
/// }
///
/// impl Autoencoder for Scale {}
///
/// let x = Tensor::ones((4, 2), DType::F32, &Device::Cpu)?;
/// let (posterior, likelihood) = Scale(100.0).reconstruct(&x, &mut Pass::eval(&mut Rng::new(0)))?;
/// assert_eq!(posterior.latents()?.prior.dims(), [4, 2, 1]);
/// assert!((likelihood.mean()?.to_vec2::<f32>()?[0][0] - 1.0).abs() < 0.1);
/// # Ok::<(), lsgm_core::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an autoencoder",
    note = "implement `Encoder` and `Decoder`, then `impl Autoencoder for {Self} {{}}`"
)]
pub trait Autoencoder: Encoder + Decoder {
    /// Encode; what comes with the posterior decodes its sample.
    ///
    /// Between the two a training step lets the prior see the latents: the backward pass goes the other way round, and
    /// is done with the decoder before the gradients of the prior take their place in memory.
    ///
    /// # Errors
    /// Those of [`Encoder::encode`]; the second half has those of [`Decoder::decode`].
    fn encode_to_decode<'a>(&'a self, x: &Tensor, pass: &mut Pass<'_>) -> Result<(Posterior, Decoding<'a>)> {
        let posterior = self.encode(x, pass)?;
        let latents = posterior.latents()?;
        Ok((posterior, Box::new(move |pass| self.decode(&latents, pass))))
    }

    /// Encode, then decode the sample.
    fn reconstruct(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<(Posterior, Box<dyn Likelihood>)> {
        let (posterior, decode) = self.encode_to_decode(x, pass)?;
        Ok((posterior, decode(pass)?))
    }

    /// A penalty, such as one on spectral norms: a scalar that is added to the training loss with the weight
    /// `train.vae.regularizer` or `train.lsgm.regularizer`.
    fn regularizer(&self) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// How much there is of each of the items `x`, `[B]` and above 0, where they differ, such as the tokens of texts: what an
    /// item costs in nats is held against it when samples are chosen (`sample.candidates`). `None`: all are of one size.
    fn extent(&self, _x: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Terms of the training loss that compare items `x` with what is decoded, such as a distance of spectra.
    fn auxiliary(&self, _x: &Tensor, _likelihood: &dyn Likelihood) -> Result<Vec<Auxiliary>> {
        Ok(Vec::new())
    }
}
