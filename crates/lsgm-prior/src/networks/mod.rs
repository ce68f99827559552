//! Score networks: one trait, one file per network, one tagged enum that names each of them once.

use candle_core::Tensor;
use lsgm_core::{Error, LatentShape, Params, Pass, Result, Rng};
use serde::{Deserialize, Serialize};

use crate::Sde;

mod blocks;
mod clusters;
mod mixture;
mod ncsnpp;
mod patches;
mod plane;
mod transformer;
mod trunk;
mod unet;

pub use blocks::Conditioning;
pub use mixture::{Mixture, MixtureConfig};
pub use ncsnpp::{Ncsnpp, NcsnppConfig, Progressive, ProgressiveCombine, ProgressiveInput, TimeFeatures};
pub use transformer::{Transformer, TransformerConfig};
pub use unet::{Unet, UnetConfig};

/// A network that estimates the noise in diffused latents.
///
/// Items must not meet inside (no batch norm): the losses weight each item on its own.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use lsgm_core::{LatentShape, Pass, Result, Rng};
/// use lsgm_prior::{Prior, ScoreNetwork, Sde, SdeConfig};
///
/// /// The exact network for latents that are all zero under a variance-preserving SDE: the noise is `z_t / σ_t`.
/// struct Zeros(Sde);
///
/// impl ScoreNetwork for Zeros {
///     fn forward(&self, z_t: &Tensor, t: &Tensor, _: &mut Pass<'_>) -> Result<Tensor> {
///         let sigma: Vec<f64> = t.to_dtype(DType::F64)?.to_vec1()?.into_iter().map(|t: f64| self.0.sigma(t)).collect();
///         let sigma = Tensor::new(sigma, z_t.device())?.to_dtype(z_t.dtype())?.reshape(((), 1, 1))?;
///         Ok(z_t.broadcast_div(&sigma)?)
///     }
/// }
///
/// let sde = Sde::new(&SdeConfig::default())?;
/// let network = Box::new(Zeros(sde));
/// let prior = Prior::with_network(sde, LatentShape::line(2, 4), 1e-3, None, network)?;
/// let mut rng = Rng::new(0);
/// let noise = rng.normal_tensor((3, 2, 4), DType::F32, &Device::Cpu)?;
/// let z_t = (&noise * sde.sigma(0.5))?;
/// let found = prior.epsilon_all(&z_t, 0.5, &mut Pass::eval(&mut rng))?;
/// assert!((found - noise)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-5);
/// # Ok::<(), lsgm_core::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a score network",
    note = "implement `lsgm_prior::ScoreNetwork::forward` for it, and add a variant to `NetworkConfig` to choose it by config"
)]
pub trait ScoreNetwork: Send + Sync {
    /// `ε'(z_t, t)` in the shape of `z_t` `[B, C, *spatial]`, for times `t` `[B]` in `[0, 1]`. Priors give these as `f64` on
    /// the CPU, whatever the latents are, so that reading them waits for no device. Noise such as dropout comes from
    /// `pass.rng`.
    fn forward(&self, z_t: &Tensor, t: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor>;

    /// [`ScoreNetwork::forward`], and a loss `[B]` of its own that goes to the objective of the prior, for a network that can
    /// learn more from the latents `z_0` that were diffused than the noise in them.
    fn forward_to(
        &self,
        z_t: &Tensor,
        t: &Tensor,
        _z_0: &Tensor,
        pass: &mut Pass<'_>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        Ok((self.forward(z_t, t, pass)?, None))
    }

    /// [`ScoreNetwork::forward`] with what the network knows from the context of a latent counted `strength` times, for
    /// sampling: latents agree with each other more, and differ less from sample to sample.
    ///
    /// # Errors
    /// By default: the network does not tell context from the rest.
    fn guided(&self, _z_t: &Tensor, _t: &Tensor, _strength: f64, _pass: &mut Pass<'_>) -> Result<Tensor> {
        Err(Error::contract("score network", "it has no guidance: leave sample.context at 1"))
    }

    /// Whether [`ScoreNetwork::fit`] does anything.
    fn fits(&self) -> bool {
        false
    }

    /// Start from what encoded data look like: means and variances `[N, C, *spatial]` of posteriors. It is called once,
    /// before the network is trained.
    fn fit(&self, _mean: &Tensor, _variance: &Tensor, _rng: &mut Rng) -> Result<()> {
        Ok(())
    }
}

/// Which score network, section `[prior.network]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum NetworkConfig {
    /// A small U-Net.
    Unet(UnetConfig),
    /// NCSN++ under its published parameter names.
    Ncsnpp(NcsnppConfig),
    /// A transformer with adaptive layer norm.
    Transformer(TransformerConfig),
    /// The score of a mixture of Gaussians for every token, whose shares a transformer tells from the context: for latents
    /// of discrete data. It computes the noise itself: `prior.prediction` stays `noise`.
    Mixture(MixtureConfig),
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self::Unet(UnetConfig::default())
    }
}

impl NetworkConfig {
    /// Check every value against the latent shape.
    ///
    /// # Errors
    /// [`lsgm_core::Error::Config`] with a key below `key`.
    pub fn validate(&self, key: &str, shape: &LatentShape) -> Result<()> {
        match self {
            Self::Unet(config) => config.validate(key, shape),
            Self::Ncsnpp(config) => config.validate(key, shape),
            Self::Transformer(config) => config.validate(key, shape),
            Self::Mixture(config) => config.validate(key, shape),
        }
    }

    /// Whether the network can be guided ([`ScoreNetwork::guided`]).
    pub fn has_guidance(&self) -> bool {
        matches!(self, Self::Mixture(_))
    }

    /// Whether the network is made of convolutions and group norms, which `train.lsgm.prior_regularizer` is for.
    pub fn has_convolutions(&self) -> bool {
        matches!(self, Self::Unet(_) | Self::Ncsnpp(_))
    }

    /// Whether the network adds a term of its own to the prior's objective ([`ScoreNetwork::forward_to`]).
    pub fn has_loss(&self) -> bool {
        matches!(self, Self::Mixture(config) if config.category_weight > 0.0)
    }

    /// Build the network for latents that `sde` diffuses, with parameters from `params`.
    pub fn build(&self, shape: LatentShape, sde: &Sde, params: &Params) -> Result<Box<dyn ScoreNetwork>> {
        Ok(match self {
            Self::Unet(config) => Box::new(Unet::new(config, shape, params)?),
            Self::Ncsnpp(config) => Box::new(Ncsnpp::new(config, shape, params)?),
            Self::Transformer(config) => Box::new(Transformer::new(config, shape, params)?),
            Self::Mixture(config) => Box::new(Mixture::new(config, shape, *sde, params)?),
        })
    }
}
