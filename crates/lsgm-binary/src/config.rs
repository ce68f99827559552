use lsgm_core::{Error, Result};
use lsgm_image::NvaeConfig;
use serde::{Deserialize, Serialize};

/// Section `[autoencoder]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ModelConfig {
    /// A small residual VAE.
    Plain(PlainConfig),
    /// A hierarchical VAE.
    Nvae(NvaeConfig),
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self::Plain(PlainConfig::default())
    }
}

/// `kind = "plain"`: a small residual convolutional VAE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlainConfig {
    /// Channels at 1/2, 1/4, ... of the image's size. The latent has the last size.
    pub channels: Vec<usize>,
    /// Residual blocks at each size, in the encoder and in the decoder.
    pub blocks: usize,
    /// Channels of the last layers of the decoder, at full size.
    pub output_channels: usize,
    /// Channels of the latent.
    pub latent_channels: usize,
    /// Number of groups the latent channels are drawn in, each given those before it. More groups make the posterior
    /// more flexible.
    pub latent_groups: usize,
}

impl Default for PlainConfig {
    fn default() -> Self {
        Self { channels: vec![32, 64], blocks: 1, output_channels: 16, latent_channels: 8, latent_groups: 1 }
    }
}

impl PlainConfig {
    /// Check every value for images of `height` × `width`.
    ///
    /// # Errors
    /// [`Error::Config`] with the key.
    pub fn validate(&self, height: usize, width: usize) -> Result<()> {
        let key = |k: &str| format!("autoencoder.{k}");
        if self.channels.is_empty() || self.channels.contains(&0) {
            return Err(Error::config(key("channels"), "give at least one size, and at least one channel for each"));
        }
        let factor = 1usize.checked_shl(self.channels.len() as u32).unwrap_or(0);
        if factor == 0 || !height.is_multiple_of(factor) || !width.is_multiple_of(factor) {
            let message = format!(
                "{} sizes halve the image {} times, but {height}×{width} cannot be halved that often: give fewer",
                self.channels.len(),
                self.channels.len()
            );
            return Err(Error::config(key("channels"), message));
        }
        if self.output_channels == 0 {
            return Err(Error::config(key("output_channels"), "give at least 1"));
        }
        if self.latent_groups == 0
            || self.latent_channels == 0
            || !self.latent_channels.is_multiple_of(self.latent_groups)
        {
            let message =
                format!("{} latent channels cannot be split into {} groups", self.latent_channels, self.latent_groups);
            return Err(Error::config(key("latent_groups"), message));
        }
        Ok(())
    }
}
