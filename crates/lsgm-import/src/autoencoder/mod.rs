//! The published NVAE: its `args` and names as ours, and its outputs recomputed.

mod verify;

pub use verify::verify;

use candle_core::Tensor;
use lsgm_core::{Error, LatentShape, Result};
use lsgm_image::{ImageShape, NvaeConfig, PublishedName, SPECTRAL_STATE, published_image, published_name};
use serde_json::Value;

use crate::fit::Place;
use crate::{Half, prior};

/// An NVAE and the images it is for.
#[derive(Debug, Clone)]
pub struct Architecture {
    /// The model.
    pub nvae: NvaeConfig,
    /// Its images.
    pub image: ImageShape,
}

impl Architecture {
    /// What `args` describe.
    ///
    /// # Errors
    /// [`Error::Config`] with the key below `args` that is missing, has a wrong type or no counterpart here.
    pub fn published(args: &Value) -> Result<Self> {
        let found = Self { nvae: NvaeConfig::from_published_args(args)?, image: published_image(args)? };
        found.nvae.validate(&found.image)?;
        Ok(found)
    }

    /// An autoencoder for a prior that comes alone: the one that its `args` describe, or a small one whose latents have the
    /// prior's shape.
    ///
    /// # Errors
    /// As [`Architecture::published`]; when nothing tells how large the latents are.
    pub fn for_prior(half: &Half) -> Result<Self> {
        let mut args = half.args.clone();
        let grey = matches!(args.get("dataset").and_then(Value::as_str), Some("mnist" | "omniglot"));
        if let Value::Object(args) = &mut args {
            args.entry("decoder_dist").or_insert_with(|| if grey { "bin" } else { "dml" }.into());
        }
        if args.get("num_latent_scales").is_some() {
            return Self::published(&args);
        }
        let image = published_image(&args)?;
        let (channels, height) = (prior::latent_channels(half)?, latent_height(half)?);
        let padding = if grey { 2 } else { 0 };
        let halvings = (0..16).find(|k| (image.height + 2 * padding) >> k == height).unwrap_or(1).max(1);
        let nvae = NvaeConfig {
            padding,
            preprocess_blocks: halvings,
            channel_multipliers: (0..=halvings).map(|level| if level == 0 { 1 } else { 2 }).collect(),
            groups_per_scale: 1,
            latent_channels: channels,
            ..NvaeConfig::default()
        };
        nvae.validate(&image)?;
        Ok(Self { nvae, image })
    }

    /// The latents that the prior models.
    pub fn latent_shape(&self) -> LatentShape {
        self.nvae.latent_shape(&self.image)
    }
}

/// The height of the latents that a prior's own inputs have.
fn latent_height(half: &Half) -> Result<usize> {
    let inputs = ["z", "ode_z1"].iter().find_map(|name| half.io.get(*name)).map(Tensor::dims);
    match inputs {
        Some([_, _, height, _]) => Ok(*height),
        _ => Err(Error::input(
            &half.path,
            "nothing tells how large the latents of this prior are: import it together with its autoencoder, or with \
             the autoencoder's `args`",
        )),
    }
}

/// What a published tensor of the autoencoder is here.
pub fn place(published: &str) -> Place {
    match published_name(published) {
        PublishedName::Ours(name) => Place::Ours(name),
        PublishedName::Redundant => Place::Redundant,
        PublishedName::Unknown => Place::Unknown,
    }
}

/// Whether one of our buffers has no counterpart in the published layout.
pub fn is_own(name: &str) -> bool {
    name.rsplit('.').next() == Some(SPECTRAL_STATE)
}
