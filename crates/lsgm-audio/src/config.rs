use lsgm_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Section `[autoencoder]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ModelConfig {
    /// A residual VAE on waveforms.
    Wave(WaveConfig),
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self::Wave(WaveConfig::default())
    }
}

/// `kind = "wave"`: a strided convolutional VAE on waveforms, with latents `[B, C, L / stride]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WaveConfig {
    /// Factors by which the length shrinks, one for each level, even numbers. The first is that of a lapped transform.
    /// Their product is the stride of the latent, 64 to 1024 as a rule.
    pub strides: Vec<usize>,
    /// Channels after each of them.
    pub channels: Vec<usize>,
    /// Residual blocks at each level, in the encoder and in the decoder; their dilations are 1, 3, 9 and again.
    pub blocks: usize,
    /// Channels of the latent.
    pub latent_channels: usize,
    /// What stands between the convolutions of a residual block.
    pub activation: Activation,
    /// The distribution of a sample.
    pub likelihood: LikelihoodConfig,
    /// A distance of spectra in the training loss, beside the bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stft: Option<StftConfig>,
}

/// What stands between the convolutions of a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// Group normalisation and SiLU.
    #[default]
    Silu,
    /// `x + sin²(αx) / α` with an α for each channel (arXiv 2006.08195), without normalisation.
    Snake,
}

/// The distribution of a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LikelihoodConfig {
    /// A mixture of logistic distributions over the 65,536 values of 16 bits (arXiv 1701.05517).
    LogisticMixture {
        /// Number of logistic distributions.
        components: usize,
    },
    /// A categorical distribution over the 256 classes of µ-law companding (ITU-T G.711, in its continuous form): the bound
    /// is one of the companded clip.
    MuLaw {
        /// Width of the last layer before the logits.
        width: usize,
    },
}

/// Section `[autoencoder.stft]`: spectra at several resolutions (arXiv 1910.11480), of the data and of the mean of p(x | z).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StftConfig {
    /// What a distance of 1 adds to the loss, in nats.
    pub weight: f64,
    /// Lengths of the windows in samples; their hop is a quarter of that.
    pub sizes: Vec<usize>,
}

impl Default for StftConfig {
    fn default() -> Self {
        Self { weight: 100.0, sizes: vec![64, 128, 256] }
    }
}

impl Default for WaveConfig {
    fn default() -> Self {
        Self {
            strides: vec![64],
            channels: vec![128],
            blocks: 3,
            latent_channels: 16,
            activation: Activation::Silu,
            likelihood: LikelihoodConfig::LogisticMixture { components: 3 },
            stft: None,
        }
    }
}

impl WaveConfig {
    /// Samples for each position of the latent.
    pub fn stride(&self) -> usize {
        self.strides.iter().fold(1, |product, s| product.saturating_mul(*s))
    }

    /// Check every value for clips of `samples`.
    ///
    /// # Errors
    /// [`Error::Config`] with the key.
    pub fn validate(&self, samples: usize) -> Result<()> {
        let refuse = |key: &str, message: String| Err(Error::config(format!("autoencoder.{key}"), message));
        if self.strides.is_empty() || self.strides.iter().any(|s| *s < 2 || !s.is_multiple_of(2)) {
            return refuse("strides", "give at least one, and even numbers from 2 on".into());
        }
        let stride = self.stride();
        if stride > samples || !samples.is_multiple_of(stride) {
            let message = format!("a stride of {stride} does not divide clips of {samples} samples (data.samples)");
            return refuse("strides", message);
        }
        if self.channels.len() != self.strides.len() || self.channels.contains(&0) {
            let message = format!("{} levels need as many numbers of channels, each at least 1", self.strides.len());
            return refuse("channels", message);
        }
        if self.latent_channels == 0 {
            return refuse("latent_channels", "give at least 1".into());
        }
        match self.likelihood {
            LikelihoodConfig::LogisticMixture { components } if !(1..=64).contains(&components) => {
                return refuse("likelihood.components", format!("{components} is not between 1 and 64"));
            }
            LikelihoodConfig::MuLaw { width: 0 } => return refuse("likelihood.width", "give at least 1".into()),
            _ => {}
        }
        match &self.stft {
            Some(stft) => stft.validate(samples),
            None => Ok(()),
        }
    }
}

impl StftConfig {
    fn validate(&self, samples: usize) -> Result<()> {
        if !(self.weight.is_finite() && self.weight > 0.0) {
            let message = format!("{} is not a positive number: leave the section out for none", self.weight);
            return Err(Error::config("autoencoder.stft.weight", message));
        }
        if self.sizes.is_empty() || self.sizes.iter().any(|s| !(8..=samples).contains(s) || !s.is_multiple_of(4)) {
            let message = format!("give at least one, multiples of 4 between 8 and the {samples} samples of a clip");
            return Err(Error::config("autoencoder.stft.sizes", message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_its_key() {
        let refused = |change: &dyn Fn(&mut WaveConfig)| {
            let mut config = WaveConfig::default();
            change(&mut config);
            config.validate(2048).unwrap_err().to_string()
        };
        assert!(WaveConfig::default().validate(2048).is_ok());
        for (key, message) in [
            ("strides", refused(&|c| c.strides.clear())),
            ("strides", refused(&|c| c.strides = vec![3])),
            ("strides", refused(&|c| c.strides = vec![48])),
            ("strides", refused(&|c| c.strides = vec![4096])),
            ("channels", refused(&|c| c.channels.push(8))),
            ("latent_channels", refused(&|c| c.latent_channels = 0)),
            ("likelihood.components", refused(&|c| c.likelihood = LikelihoodConfig::LogisticMixture { components: 0 })),
            ("likelihood.width", refused(&|c| c.likelihood = LikelihoodConfig::MuLaw { width: 0 })),
            ("stft.weight", refused(&|c| c.stft = Some(StftConfig { weight: f64::NAN, ..Default::default() }))),
            ("stft.sizes", refused(&|c| c.stft = Some(StftConfig { sizes: vec![4096], ..Default::default() }))),
        ] {
            assert!(message.contains(&format!("`autoencoder.{key}`")), "{message}");
        }
    }
}
