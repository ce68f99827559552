use lsgm_core::{Error, LatentShape, Result};
use serde::{Deserialize, Serialize};

/// The images that a model is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    /// 1 for grey or binary, 3 for RGB.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Values of a pixel are multiples of `1 / (2^bits - 1)` in [0, 1].
    pub bits: u32,
}

/// What the residual cells are made of (NVAE, section 3.1, and the code published with LSGM).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CellKind {
    /// Two times batch norm, Swish, 3×3 convolution in the encoder; depthwise-separable cells, 1×1, 5×5, 1×1, in the
    /// decoder.
    #[default]
    ResMbconv,
    /// Two times batch norm, Swish, 3×3 convolution everywhere.
    ResBnswish,
    /// The same where only the second convolution has weight normalisation.
    ResBnswish2,
}

/// A distribution over pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PixelLikelihood {
    /// Black or white.
    Bernoulli,
    /// A logistic distribution for each channel, cut into one bin per value.
    Logistic,
    /// A mixture of ten of them for the channels together (PixelCNN++, arXiv 1701.05517): green depends on red, blue on
    /// both.
    LogisticMixture,
    /// A Normal density over values scaled to [-1, 1]. It bounds no probability of discrete pixels.
    Normal,
}

/// Section `[autoencoder]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ModelConfig {
    /// A hierarchical VAE.
    Nvae(NvaeConfig),
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self::Nvae(NvaeConfig::default())
    }
}

/// `kind = "nvae"`: the hierarchical VAE of Vahdat and Kautz 2020 (arXiv 2007.03898) in the form that LSGM trains.
///
/// The image is halved `preprocess_blocks` times before the first latents. Latents come in groups, `groups_per_scale` at
/// each of `latent_scales` sizes. The score-based prior models the groups of the smallest size; the others keep N(0, I).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvaeConfig {
    /// The residual cells.
    pub cells: CellKind,
    /// Whether cells end with squeeze-and-excitation.
    pub squeeze_excite: bool,
    /// Channels of the encoder at the image's size.
    pub encoder_channels: usize,
    /// Channels of the decoder at the image's size.
    pub decoder_channels: usize,
    /// Channels at each size as a multiple of those at the image's; one for each halving and one for the start.
    pub channel_multipliers: Vec<usize>,
    /// How often the image is halved before the latents.
    pub preprocess_blocks: usize,
    /// Encoder cells for each of these halvings; the last of them halves.
    pub preprocess_cells: usize,
    /// Decoder cells for each doubling behind the latents; the first of them doubles.
    pub postprocess_cells: usize,
    /// Sizes that have latents.
    pub latent_scales: usize,
    /// Groups of latents at each size.
    pub groups_per_scale: usize,
    /// Channels of each group.
    pub latent_channels: usize,
    /// Encoder cells for each group.
    pub encoder_cells: usize,
    /// Decoder cells for each group.
    pub decoder_cells: usize,
    /// Pairs of autoregressive flow cells behind each group's Normal posterior.
    pub flows: usize,
    /// Whether the features of the first latent size are added, halved again, to those of each smaller one.
    pub progressive_input: bool,
    /// Bound of the posteriors' log standard deviations, approached softly. Their means keep within ±5.
    pub log_sigma_clamp: f64,
    /// Black rows and columns added on each side before the encoder, and cut off again behind the decoder.
    pub padding: usize,
    /// The distribution over pixels. Absent, it follows from the data: `bernoulli` for binary images,
    /// `logistic-mixture` for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub likelihood: Option<PixelLikelihood>,
}

impl Default for NvaeConfig {
    fn default() -> Self {
        Self {
            cells: CellKind::ResMbconv,
            squeeze_excite: true,
            encoder_channels: 32,
            decoder_channels: 32,
            channel_multipliers: vec![1, 2, 2],
            preprocess_blocks: 2,
            preprocess_cells: 2,
            postprocess_cells: 2,
            latent_scales: 1,
            groups_per_scale: 2,
            latent_channels: 4,
            encoder_cells: 1,
            decoder_cells: 1,
            flows: 0,
            progressive_input: false,
            log_sigma_clamp: 5.0,
            padding: 0,
            likelihood: None,
        }
    }
}

impl NvaeConfig {
    /// Check every value for images of `image`.
    ///
    /// # Errors
    /// [`Error::Config`] with the full key.
    pub fn validate(&self, image: &ImageShape) -> Result<()> {
        for (key, value) in [
            ("encoder_channels", self.encoder_channels),
            ("decoder_channels", self.decoder_channels),
            ("latent_scales", self.latent_scales),
            ("groups_per_scale", self.groups_per_scale),
            ("latent_channels", self.latent_channels),
        ] {
            if value == 0 {
                return refuse(key, "give at least 1");
            }
        }
        // The last cell of a block is the one that halves or doubles.
        for (key, cells) in [("preprocess_cells", self.preprocess_cells), ("postprocess_cells", self.postprocess_cells)]
        {
            if cells == 0 && self.preprocess_blocks > 0 {
                return refuse(key, "give at least 1, or set preprocess_blocks = 0");
            }
        }
        self.validate_scales()?;
        self.validate_size(image)?;
        if !(self.log_sigma_clamp > 0.0 && self.log_sigma_clamp.is_finite()) {
            return refuse("log_sigma_clamp", format!("{} is not a positive number; 5 is usual", self.log_sigma_clamp));
        }
        self.validate_likelihood(image)
    }

    fn validate_scales(&self) -> Result<()> {
        let (scales, given) = (self.preprocess_blocks + self.latent_scales, self.channel_multipliers.len());
        if given != scales {
            let message = format!(
                "{given} multiples are given, but preprocess_blocks + latent_scales = {scales} sizes need one each"
            );
            return refuse("channel_multipliers", message);
        }
        if self.channel_multipliers.contains(&0) {
            return refuse("channel_multipliers", "every multiple must be at least 1");
        }
        // A halving splits its output between four convolutions.
        if self.channel_multipliers[1..].iter().any(|m| self.encoder_channels * m < 4) {
            return refuse("encoder_channels", "there must be at least 4 channels below the image's size");
        }
        if self.progressive_input && self.latent_scales < 2 {
            return refuse("progressive_input", "needs latents of at least two sizes (latent_scales)");
        }
        Ok(())
    }

    fn validate_size(&self, image: &ImageShape) -> Result<()> {
        if self.padding > image.height.min(image.width) {
            return refuse("padding", format!("{} is a border wider than the image", self.padding));
        }
        let halvings = self.halvings();
        let factor = 1usize.checked_shl(halvings as u32).unwrap_or(0);
        let (height, width) = self.padded(image);
        if factor == 0 || height == 0 || !height.is_multiple_of(factor) || !width.is_multiple_of(factor) {
            let message = format!(
                "{height}×{width} images (padding included) cannot be halved {halvings} times, \
                 which preprocess_blocks + latent_scales - 1 asks for: change these or padding"
            );
            return refuse("preprocess_blocks", message);
        }
        Ok(())
    }

    fn validate_likelihood(&self, image: &ImageShape) -> Result<()> {
        if !(1..=16).contains(&image.bits) {
            return Err(Error::config("data.bits", format!("{} is not between 1 and 16", image.bits)));
        }
        match self.likelihood_of(image) {
            PixelLikelihood::Bernoulli if image.bits != 1 => refuse(
                "likelihood",
                format!("`bernoulli` is for black and white; these pixels have {} bits", image.bits),
            ),
            PixelLikelihood::LogisticMixture if !matches!(image.channels, 1 | 3) => {
                refuse("likelihood", format!("`logistic-mixture` is for 1 or 3 channels, not {}", image.channels))
            }
            _ => Ok(()),
        }
    }

    /// The distribution over pixels of `image`.
    pub fn likelihood_of(&self, image: &ImageShape) -> PixelLikelihood {
        let usual = if image.bits == 1 { PixelLikelihood::Bernoulli } else { PixelLikelihood::LogisticMixture };
        self.likelihood.unwrap_or(usual)
    }

    /// How often the image is halved down to the smallest latents.
    pub(crate) fn halvings(&self) -> usize {
        self.preprocess_blocks + self.latent_scales - 1
    }

    /// Height and width with padding.
    pub(crate) fn padded(&self, image: &ImageShape) -> (usize, usize) {
        (image.height + 2 * self.padding, image.width + 2 * self.padding)
    }

    /// The latents that the score-based prior models; `self` must be valid for `image`.
    pub fn latent_shape(&self, image: &ImageShape) -> LatentShape {
        let (height, width) = self.padded(image);
        let halvings = self.halvings();
        LatentShape::plane(self.groups_per_scale * self.latent_channels, height >> halvings, width >> halvings)
    }
}

fn refuse<T>(key: &str, message: impl Into<String>) -> Result<T> {
    Err(Error::config(format!("autoencoder.{key}"), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREY: ImageShape = ImageShape { channels: 1, height: 28, width: 28, bits: 1 };

    fn refused(change: impl FnOnce(&mut NvaeConfig), image: ImageShape) -> String {
        let mut config = NvaeConfig::default();
        change(&mut config);
        config.validate(&image).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_fit_small_images_and_the_latents_follow() {
        let config = NvaeConfig::default();
        config.validate(&GREY).unwrap();
        assert_eq!(config.latent_shape(&GREY), LatentShape::plane(8, 7, 7));
        let padded = NvaeConfig { padding: 2, ..config };
        assert_eq!(padded.latent_shape(&GREY), LatentShape::plane(8, 8, 8));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_key() {
        for (message, part) in [
            (refused(|c| c.channel_multipliers = vec![1, 2], GREY), "autoencoder.channel_multipliers"),
            (refused(|c| c.channel_multipliers = vec![1, 0, 2], GREY), "autoencoder.channel_multipliers"),
            (refused(|c| c.groups_per_scale = 0, GREY), "autoencoder.groups_per_scale"),
            (refused(|c| c.encoder_channels = 1, GREY), "autoencoder.encoder_channels"),
            (refused(|c| c.progressive_input = true, GREY), "autoencoder.progressive_input"),
            (refused(|c| c.log_sigma_clamp = f64::NAN, GREY), "autoencoder.log_sigma_clamp"),
            (refused(|c| c.padding = 1, GREY), "30×30 images"),
            (refused(|c| c.padding = usize::MAX, GREY), "autoencoder.padding"),
            (refused(|_| (), ImageShape { height: 27, ..GREY }), "27×28 images"),
            (refused(|_| (), ImageShape { bits: 17, ..GREY }), "data.bits"),
            (
                refused(|c| c.likelihood = Some(PixelLikelihood::Bernoulli), ImageShape { bits: 8, ..GREY }),
                "these pixels have 8 bits",
            ),
            (refused(|_| (), ImageShape { channels: 4, bits: 8, ..GREY }), "1 or 3 channels, not 4"),
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
}
