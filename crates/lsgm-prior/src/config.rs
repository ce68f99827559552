use lsgm_core::{Error, LatentShape, Result};
use serde::{Deserialize, Serialize};

use crate::networks::NetworkConfig;
use crate::{Sde, SdeConfig};

/// What the score network's output stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prediction {
    /// The noise `ε'` in `z_t`, as in the published models.
    #[default]
    Noise,
    /// What is left of the score beside that of N(0, I): `ε' = k_t z_t + σ_t · output`, with the N(0, I) part `k_t z_t` of
    /// the mixed score. With a last layer that starts at zero the prior starts as N(0, I) whatever α is, the network never
    /// has to copy its input, and its errors vanish with `σ_t`, as the noise to predict does: latents of an autoencoder are
    /// smooth below the width of its posterior. Short trainings need this.
    Correction,
}

/// Section `[prior]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PriorConfig {
    /// Cut-off of time in training and sampling: the process is modelled on `[t_eps, 1]`.
    pub t_eps: f64,
    /// Whether the score is a mixture of the N(0, I) score and the network's, with one learned share α per channel
    /// (LSGM, section 3.2). Without it α is 1.
    pub mixed: bool,
    /// Where the logit of α starts: -6 starts from the N(0, I) prior.
    pub alpha_init: f64,
    /// What the network's output stands for.
    pub prediction: Prediction,
    /// Whether channels can be declared inactive ([`crate::Prior::set_active_channels`]), which then keep the N(0, I)
    /// prior and are hidden from the network.
    pub mask_inactive: bool,
    /// The SDE.
    pub sde: SdeConfig,
    /// The score network.
    pub network: NetworkConfig,
}

impl Default for PriorConfig {
    fn default() -> Self {
        Self {
            t_eps: 1e-3,
            mixed: true,
            alpha_init: -6.0,
            prediction: Prediction::Noise,
            mask_inactive: false,
            sde: SdeConfig::default(),
            network: NetworkConfig::default(),
        }
    }
}

impl PriorConfig {
    /// Check every value, and the network against the latent shape, before anything is allocated.
    ///
    /// # Errors
    /// [`Error::Config`] with the full key.
    pub fn validate(&self, shape: &LatentShape) -> Result<()> {
        if shape.dim() == 0 {
            return Err(Error::config("prior", format!("the latent shape {shape:?} is empty")));
        }
        Sde::new(&self.sde)?.check_t_eps("prior.t_eps", self.t_eps)?;
        if !self.alpha_init.is_finite() {
            return Err(Error::config("prior.alpha_init", "must be a finite number"));
        }
        if matches!(self.network, NetworkConfig::Mixture(_)) && self.prediction != Prediction::Noise {
            return Err(Error::config(
                "prior.prediction",
                "a mixture computes the noise itself: leave it at \"noise\"",
            ));
        }
        self.network.validate("prior.network", shape)
    }
}
