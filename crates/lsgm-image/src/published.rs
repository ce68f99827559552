//! The layout in which trained NVAE and LSGM checkpoints are published: architecture arguments and tensor names.

use lsgm_core::{Error, Result};
use serde_json::Value;

use crate::config::{CellKind, ImageShape, NvaeConfig, PixelLikelihood};

/// Published modules that lie on the encoder's side; see [`published_name`].
const ENCODER: [&str; 6] = ["stem", "pre_process", "enc_tower", "progressive_input_cells", "enc_sampler", "nf_cells"];

/// Published modules that lie on the decoder's side. The decoder tower serves the encoder too: each group's posterior
/// depends on what the decoder has made of the groups before it.
const DECODER: [&str; 5] = ["prior_ftr0", "eps_conv", "dec_tower", "post_process", "image_conditional"];

/// Last part of the name of a buffer that the published state dict has no counterpart for: the left singular vector of a
/// convolution, from which the spectral penalty's power iteration goes on. All zeros start it afresh.
pub const SPECTRAL_STATE: &str = "spectral_u";

/// What a tensor of a published state dict is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishedName {
    /// The parameter or buffer of this name, with the same shape.
    Ours(String),
    /// Nothing: it follows from other tensors, or only counts.
    Redundant,
    /// No tensor of an NVAE.
    Unknown,
}

/// The name that the tensor `published` of a `vae_state_dict` has here: `encoder.` or `decoder.`, whichever side its
/// module lies on, and the published name.
///
/// * `stem`, `pre_process`, `enc_tower`, `progressive_input_cells`, `enc_sampler` and `nf_cells` are the encoder's;
///   `prior_ftr0`, `eps_conv`, `dec_tower`, `post_process` and `image_conditional` the decoder's.
/// * The wrapper of synchronised batch norm is left out: `conv.0.bn.weight` is `conv.0.weight`.
/// * `num_batches_tracked` and `weight_normalized` are redundant.
///
/// ```
/// use lsgm_image::{PublishedName, published_name};
/// let ours = |name: &str| PublishedName::Ours(name.to_owned());
/// assert_eq!(published_name("stem.weight"), ours("encoder.stem.weight"));
/// assert_eq!(published_name("dec_tower.1._ops.0.conv.0.bn.bias"), ours("decoder.dec_tower.1._ops.0.conv.0.bias"));
/// assert_eq!(published_name("dec_tower.1._ops.0.conv.3.weight_normalized"), PublishedName::Redundant);
/// assert_eq!(published_name("all_modules.0.weight"), PublishedName::Unknown);
/// ```
pub fn published_name(published: &str) -> PublishedName {
    let module = published.split('.').next().unwrap_or_default();
    let side = match module {
        m if ENCODER.contains(&m) => "encoder",
        m if DECODER.contains(&m) => "decoder",
        _ => return PublishedName::Unknown,
    };
    if matches!(published.rsplit('.').next(), Some("num_batches_tracked" | "weight_normalized")) {
        return PublishedName::Redundant;
    }
    PublishedName::Ours(format!("{side}.{}", published.replace(".bn.", ".")))
}

impl NvaeConfig {
    /// The config of an NVAE that was trained with the published code, from its `args`.
    ///
    /// Keys that say nothing about the architecture are passed over. Images of `mnist` and `omniglot` are padded by 2.
    ///
    /// # Errors
    /// [`Error::Config`] with the key below `args` that is missing, of a wrong type, or has no counterpart.
    pub fn from_published_args(args: &Value) -> Result<Self> {
        let preprocess_blocks = number(args, "num_preprocess_blocks")?;
        let postprocess_blocks = number(args, "num_postprocess_blocks")?;
        if preprocess_blocks != postprocess_blocks {
            let message = format!("{postprocess_blocks} differs from num_preprocess_blocks = {preprocess_blocks}");
            return Err(Error::config("args.num_postprocess_blocks", message));
        }
        Ok(Self {
            cells: cells(args)?,
            squeeze_excite: flag(args, "use_se")?,
            encoder_channels: number(args, "num_channels_enc")?,
            decoder_channels: number(args, "num_channels_dec")?,
            channel_multipliers: multipliers(args)?,
            preprocess_blocks,
            preprocess_cells: number(args, "num_preprocess_cells")?,
            postprocess_cells: number(args, "num_postprocess_cells")?,
            latent_scales: number(args, "num_latent_scales")?,
            groups_per_scale: number(args, "num_groups_per_scale")?,
            latent_channels: number(args, "num_latent_per_group")?,
            encoder_cells: number(args, "num_cell_per_cond_enc")?,
            decoder_cells: number(args, "num_cell_per_cond_dec")?,
            flows: number_or(args, "num_nf", 0)?,
            progressive_input: match text_or(args, "progressive_input_vae", "none")? {
                "none" => false,
                // Published models of one scale have no cells for it.
                "input_skip" => number(args, "num_latent_scales")? > 1,
                other => return unknown("progressive_input_vae", other, "none, input_skip"),
            },
            log_sigma_clamp: match args.get("log_sig_q_scale") {
                None => 5.0,
                Some(v) => v.as_f64().ok_or_else(|| wrong("log_sig_q_scale", v, "a number"))?,
            },
            padding: if is_binary(args)? { 2 } else { 0 },
            likelihood: Some(likelihood(args)?),
        })
    }
}

/// The images for which a model was trained with the published code, from its `args`: `dataset`, `num_x_bits` and
/// `decoder_dist`.
///
/// # Errors
/// [`Error::Config`] with the key below `args`.
pub fn published_image(args: &Value) -> Result<ImageShape> {
    let dataset = text(args, "dataset")?;
    if is_binary(args)? {
        let bits = if likelihood(args)? == PixelLikelihood::Bernoulli { 1 } else { 8 };
        return Ok(ImageShape { channels: 1, height: 28, width: 28, bits });
    }
    // `celeba_64`, `celeba_256`, `imagenet_32`, `lsun_church_256`, ... end with their size.
    let size = match dataset {
        "cifar10" => 32,
        "ffhq" => 256,
        other => match other.rsplit('_').next().and_then(|size| size.parse().ok()) {
            Some(size) => size,
            None => return unknown("dataset", other, "mnist, omniglot, cifar10, ffhq, or a name that ends with _SIZE"),
        },
    };
    let bits = number_or(args, "num_x_bits", 8)?;
    let bits = u32::try_from(bits).map_err(|_| Error::config("args.num_x_bits", format!("{bits} is too large")))?;
    Ok(ImageShape { channels: 3, height: size, width: size, bits })
}

fn is_binary(args: &Value) -> Result<bool> {
    Ok(matches!(text(args, "dataset")?, "mnist" | "omniglot"))
}

fn cells(args: &Value) -> Result<CellKind> {
    match text(args, "arch_instance")? {
        // The variants with attention name it, but the autoencoder never builds it.
        "res_mbconv" | "res_mbconv_attn" | "res_mbconv_attn_half" => Ok(CellKind::ResMbconv),
        "res_bnswish" => Ok(CellKind::ResBnswish),
        "res_bnswish2" => Ok(CellKind::ResBnswish2),
        other => unknown("arch_instance", other, "res_mbconv, res_bnswish, res_bnswish2"),
    }
}

fn likelihood(args: &Value) -> Result<PixelLikelihood> {
    match text_or(args, "decoder_dist", "dml")? {
        "bin" => Ok(PixelLikelihood::Bernoulli),
        "dl" => Ok(PixelLikelihood::Logistic),
        "dml" => Ok(PixelLikelihood::LogisticMixture),
        "normal" => Ok(PixelLikelihood::Normal),
        other => unknown("decoder_dist", other, "bin, dl, dml, normal"),
    }
}

fn multipliers(args: &Value) -> Result<Vec<usize>> {
    let Some(value) = args.get("channel_mult") else { return Ok(vec![1, 2]) };
    let list = value.as_array().and_then(|all| all.iter().map(whole).collect::<Option<Vec<_>>>());
    list.ok_or_else(|| wrong("channel_mult", value, "a list of whole numbers"))
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

fn required<'a>(args: &'a Value, key: &str) -> Result<&'a Value> {
    args.get(key).ok_or_else(|| Error::config(format!("args.{key}"), "is missing: it decides the architecture"))
}

fn number(args: &Value, key: &str) -> Result<usize> {
    let value = required(args, key)?;
    whole(value).ok_or_else(|| wrong(key, value, "a whole number"))
}

fn number_or(args: &Value, key: &str, otherwise: usize) -> Result<usize> {
    if args.get(key).is_some() { number(args, key) } else { Ok(otherwise) }
}

fn flag(args: &Value, key: &str) -> Result<bool> {
    let value = required(args, key)?;
    value.as_bool().ok_or_else(|| wrong(key, value, "true or false"))
}

fn text<'a>(args: &'a Value, key: &str) -> Result<&'a str> {
    let value = required(args, key)?;
    value.as_str().ok_or_else(|| wrong(key, value, "a string"))
}

fn text_or<'a>(args: &'a Value, key: &str, otherwise: &'a str) -> Result<&'a str> {
    if args.get(key).is_some() { text(args, key) } else { Ok(otherwise) }
}

fn wrong(key: &str, value: &Value, expected: &str) -> Error {
    Error::config(format!("args.{key}"), format!("{value} is not {expected}"))
}

fn unknown<T>(key: &str, value: &str, known: &str) -> Result<T> {
    Err(Error::config(format!("args.{key}"), format!("`{value}` is unknown; known are {known}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn args() -> Value {
        json!({
            "num_latent_scales": 1, "num_groups_per_scale": 2, "num_latent_per_group": 20, "num_channels_enc": 64,
            "num_channels_dec": 64, "num_preprocess_blocks": 2, "num_preprocess_cells": 3, "num_cell_per_cond_enc": 1,
            "num_postprocess_blocks": 2, "num_postprocess_cells": 3, "num_cell_per_cond_dec": 1, "decoder_dist": "bin",
            "channel_mult": [1, 2, 2], "arch_instance": "res_mbconv", "use_se": true, "dataset": "mnist", "epochs": 200
        })
    }

    fn with(key: &str, value: Value) -> Value {
        let mut args = args();
        args[key] = value;
        args
    }

    #[test]
    fn the_published_mnist_arguments_are_read() {
        let config = NvaeConfig::from_published_args(&args()).unwrap();
        assert_eq!((config.encoder_channels, config.padding, config.flows), (64, 2, 0));
        assert_eq!(config.likelihood, Some(PixelLikelihood::Bernoulli));
        let image = published_image(&args()).unwrap();
        assert_eq!(image, ImageShape { channels: 1, height: 28, width: 28, bits: 1 });
        config.validate(&image).unwrap();
        assert_eq!(config.latent_shape(&image), lsgm_core::LatentShape::plane(40, 8, 8));
    }

    #[test]
    fn sizes_and_bits_follow_the_data_set() {
        let mut celeba = with("dataset", json!("celeba_256"));
        celeba["num_x_bits"] = json!(5);
        assert_eq!(published_image(&celeba).unwrap(), ImageShape { channels: 3, height: 256, width: 256, bits: 5 });
        assert_eq!(published_image(&with("dataset", json!("cifar10"))).unwrap().height, 32);
    }

    #[test]
    fn bad_arguments_are_named() {
        let mut missing = args();
        missing.as_object_mut().unwrap().remove("num_channels_enc");
        for (args, part) in [
            (missing, "args.num_channels_enc`: is missing"),
            (with("num_nf", json!("two")), "args.num_nf`: \"two\" is not a whole number"),
            (with("use_se", json!(1)), "args.use_se"),
            (with("channel_mult", json!([1, -2])), "args.channel_mult"),
            (with("arch_instance", json!("res_wnelu")), "`res_wnelu` is unknown"),
            (with("num_postprocess_blocks", json!(1)), "1 differs from num_preprocess_blocks = 2"),
            (json!([1, 2]), "is missing"),
        ] {
            let message = NvaeConfig::from_published_args(&args).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        assert!(published_image(&with("dataset", json!("faces"))).unwrap_err().to_string().contains("_SIZE"));
    }
}
