//! Models in layouts that no golden file has, under their published names.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lsgm_core::{LatentShape, ParamStore, Rng, Spatial};
use lsgm_image::{Nvae, SPECTRAL_STATE};
use lsgm_import::autoencoder::Architecture;
use lsgm_prior::networks::{NcsnppConfig, Progressive, ProgressiveCombine, ProgressiveInput, TimeFeatures};
use lsgm_prior::{NetworkConfig, Prior, PriorConfig, SdeConfig};
use serde_json::{Value, json};

/// Tensors under their published names.
pub(crate) type Weights = BTreeMap<String, Tensor>;

/// `args` with changes.
pub(crate) fn with(args: &Value, changes: &[(&str, Value)]) -> Value {
    let mut args = args.clone();
    for (key, value) in changes {
        args[*key] = value.clone();
    }
    args
}

/// `args` of an autoencoder with two scales of two groups, flows and progressive input, for images of 32 pixels.
pub(crate) fn hierarchy() -> Value {
    json!({
        "num_latent_scales": 2, "num_groups_per_scale": 2, "num_latent_per_group": 3, "num_channels_enc": 8,
        "num_channels_dec": 8, "num_preprocess_blocks": 1, "num_preprocess_cells": 1, "num_cell_per_cond_enc": 1,
        "num_postprocess_blocks": 1, "num_postprocess_cells": 1, "num_cell_per_cond_dec": 1, "decoder_dist": "dml",
        "channel_mult": [1, 1, 2], "arch_instance": "res_mbconv", "use_se": true, "dataset": "cifar10", "num_x_bits": 8,
        "num_nf": 2, "progressive_input_vae": "input_skip"
    })
}

/// `args` of a score network with two levels, the first of which has attention.
pub(crate) fn score_network() -> Value {
    json!({
        "num_channels_dae": 8, "num_scales_dae": 2, "num_cell_per_scale_dae": 1, "embedding_dim": 16,
        "embedding_type": "positional", "embedding_scale": 1000.0, "fir": true, "progressive": "none",
        "progressive_input": "none", "progressive_combine": "sum", "dropout": 0.1, "sde_type": "vpsde", "beta_start": 0.1,
        "beta_end": 20.0, "sigma2_0": 0.0, "sigma2_min": 3e-5, "sigma2_max": 0.999, "mixed_prediction": true,
        "dataset": "cifar10"
    })
}

/// The parameters of a fresh autoencoder, none of them at a value that hides it.
pub(crate) fn autoencoder(args: &Value, seed: u64) -> ParamStore {
    let architecture = Architecture::published(args).unwrap();
    let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(seed));
    Nvae::new(&architecture.nvae, architecture.image, &store.root()).unwrap();
    stirred(store, seed)
}

/// The config of a prior with these `args`, whose levels have 8 and 16 channels and attention in the first, and its
/// parameters.
pub(crate) fn prior(args: &Value, shape: LatentShape, seed: u64) -> (PriorConfig, ParamStore) {
    let text = |key: &str| args[key].as_str().unwrap();
    let real = |key: &str| args[key].as_f64().unwrap();
    let Spatial::Plane(_, width) = shape.spatial else { panic!("{shape:?}") };
    let network = NcsnppConfig {
        channels: 8,
        channel_multipliers: vec![1, 2],
        blocks: 1,
        attention: vec![width],
        fir: args["fir"].as_bool().unwrap(),
        skip_rescale: true,
        progressive: match text("progressive") {
            "none" => Progressive::None,
            "output_skip" => Progressive::OutputSkip,
            _ => Progressive::Residual,
        },
        progressive_input: match text("progressive_input") {
            "none" => ProgressiveInput::None,
            "input_skip" => ProgressiveInput::InputSkip,
            _ => ProgressiveInput::Residual,
        },
        progressive_combine: match text("progressive_combine") {
            "sum" => ProgressiveCombine::Sum,
            _ => ProgressiveCombine::Cat,
        },
        dropout: real("dropout"),
        embedding: 16,
        embedding_kind: match text("embedding_type") {
            "positional" => TimeFeatures::Positional,
            _ => TimeFeatures::Fourier,
        },
        embedding_scale: real("embedding_scale"),
    };
    let (sigma2_0, sigma2_min, sigma2_max) = (real("sigma2_0"), real("sigma2_min"), real("sigma2_max"));
    let (beta_start, beta_end) = (real("beta_start"), real("beta_end"));
    let config = PriorConfig {
        mixed: args["mixed_prediction"].as_bool().unwrap(),
        sde: match text("sde_type") {
            "vpsde" => SdeConfig::Vpsde { beta_start, beta_end, sigma2_0 },
            "sub_vpsde" => SdeConfig::SubVpsde { beta_start, beta_end, sigma2_0 },
            "vesde" => SdeConfig::Vesde { sigma2_min, sigma2_max, sigma2_0 },
            _ => SdeConfig::Geometric { sigma2_min, sigma2_max, sigma2_0 },
        },
        network: NetworkConfig::Ncsnpp(network),
        ..PriorConfig::default()
    };
    let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(seed));
    Prior::new(&config, shape, &store.root().pp("prior")).unwrap();
    (config, stirred(store, seed))
}

/// All values moved: tensors of ones and of zeros could take each other's place without a difference.
fn stirred(store: ParamStore, seed: u64) -> ParamStore {
    let mut rng = Rng::new(seed).fork("stir");
    let moved = store.tensors().into_iter().map(|(name, tensor)| {
        let noise = rng.uniforms(tensor.elem_count()).into_iter().map(|u| 0.1 * u).collect();
        let noise = Tensor::from_vec(noise, tensor.shape().clone(), &Device::Cpu).unwrap();
        (name, (tensor + noise).unwrap())
    });
    store.load(&moved.collect()).unwrap();
    store
}

/// The tensors below the first of `prefixes` that fits, as a published state dict has them: what only counts or follows
/// from others is there too, and the state of the spectral penalty is not.
pub(crate) fn published(store: &ParamStore, prefixes: &[&str]) -> Weights {
    let mut weights = Weights::new();
    for (name, tensor) in store.tensors() {
        let Some(name) = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)) else { continue };
        let (path, last) = name.rsplit_once('.').unwrap_or(("", name));
        match last {
            SPECTRAL_STATE => continue,
            "running_mean" => {
                let count = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
                weights.insert(format!("{path}.num_batches_tracked"), count);
            }
            "log_weight_norm" => {
                weights.insert(format!("{path}.weight_normalized"), tensor.clone());
            }
            _ => {}
        }
        weights.insert(name.to_owned(), tensor);
    }
    weights
}

/// A file in the layout of the golden ones.
pub(crate) fn write(path: &Path, args: &Value, weights: &Weights) {
    let tensors = weights.iter().map(|(name, tensor)| (format!("weights.{name}"), tensor.clone()));
    let metadata = HashMap::from([("args".to_owned(), args.to_string())]);
    safetensors::serialize_to_file(tensors, Some(metadata), path).unwrap();
}
