//! Layouts that published `args` can describe beside those of the golden files: a model of each is written under its
//! published names, read back by nothing but these and its `args`, and computes the same.

#[path = "common/layouts.rs"]
mod layouts;

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use layouts::{Weights, with};
use lsgm_core::{LatentShape, ParamStore, Pass, Rng};
use lsgm_image::Nvae;
use lsgm_import::autoencoder::{self, Architecture};
use lsgm_import::{Half, Part, fit, prior, read};
use lsgm_prior::{NetworkConfig, Prior};
use serde_json::{Value, json};

fn store(seed: u64) -> ParamStore {
    ParamStore::new(DType::F32, &Device::Cpu, Rng::new(seed))
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// What is read from a file of these weights and `args`.
fn through_a_file(args: &Value, weights: &Weights) -> lsgm_import::Checkpoint {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    layouts::write(&path, args, weights);
    read(&path).unwrap()
}

/// The published names that are in `weights` with their shapes.
#[track_caller]
fn has(weights: &Weights, expected: &[(&str, &[usize])]) {
    for (name, dims) in expected {
        let found = weights.get(*name).unwrap_or_else(|| panic!("no `{name}` in {:?}", weights.keys()));
        assert_eq!(found.dims(), *dims, "{name}");
    }
}

/// The autoencoder that `args` describe, its published weights, and what it makes of images.
fn autoencoder_of(args: &Value) -> (Architecture, Weights, Vec<f32>) {
    let architecture = Architecture::published(args).unwrap();
    let store = layouts::autoencoder(args, 1);
    let found = outputs(&architecture, &store);
    (architecture, layouts::published(&store, &["encoder.", "decoder."]), found)
}

/// The latents of every group and the decoder's parameters for one image.
fn outputs(architecture: &Architecture, store: &ParamStore) -> Vec<f32> {
    let image = architecture.image;
    let nvae = Nvae::new(&architecture.nvae, image, &store.frozen_root()).unwrap();
    let dims = (1, image.channels, image.height, image.width);
    let x = Tensor::from_vec(Rng::new(2).uniforms(image.channels * image.height * image.width), dims, &Device::Cpu);
    let mut rng = Rng::new(3);
    let mut noise = |_: usize, dims: &[usize]| rng.normal_tensor(dims, DType::F32, &Device::Cpu);
    let found = nvae.infer(&x.unwrap(), false, &mut noise).unwrap();
    let latents = found.posterior.groups.iter().flat_map(|group| values(&group.z));
    latents.chain(values(&found.logits)).collect()
}

/// The autoencoder read back; it is the one that was written.
fn check_autoencoder(args: &Value) -> Weights {
    let (architecture, weights, expected) = autoencoder_of(args);
    let half = through_a_file(args, &weights).autoencoder.unwrap();
    let again = Architecture::published(&half.args).unwrap();
    assert_eq!((&again.nvae, again.image), (&architecture.nvae, architecture.image));
    let other = store(9);
    Nvae::new(&again.nvae, again.image, &other.root()).unwrap();
    let path = Path::new("x.safetensors");
    let place = autoencoder::place;
    other.load(&fit(path, Part::AUTOENCODER, &half.weights, place, autoencoder::is_own, &other).unwrap()).unwrap();
    assert_eq!(outputs(&again, &other), expected);
    weights
}

#[test]
fn several_scales_with_flows_and_progressive_input() {
    let weights = check_autoencoder(&layouts::hierarchy());
    has(
        &weights,
        &[
            // Two pairs of flow cells for each of four groups, six hidden channels for a latent one.
            ("nf_cells.0.cell1.conv.convz.0.weight", &[18, 3, 3, 3]),
            ("nf_cells.0.cell1.conv.convz.2.weight", &[18, 1, 5, 5]),
            ("nf_cells.7.cell2.mu.conv_0.weight", &[3, 18, 1, 1]),
            ("nf_cells.7.cell2.mu.conv_0.bias", &[3]),
            // The input enters once more in front of the smaller scale.
            ("progressive_input_cells.0.conv.conv_0.weight", &[16, 8, 3, 3]),
            ("enc_sampler.0.1.weight", &[6, 16, 3, 3]),
            ("enc_sampler.3.1.weight", &[6, 8, 3, 3]),
            // The first group starts from a learned tensor of the smaller size.
            ("prior_ftr0", &[16, 8, 8]),
        ],
    );
    let cells = |module: &str| {
        let of = |name: &String| name.strip_prefix(module)?.split('.').next().map(str::to_owned);
        weights.keys().filter_map(of).collect::<BTreeSet<_>>().len()
    };
    assert_eq!(cells("nf_cells."), 8);
    assert_eq!(cells("enc_sampler."), 4);
    assert_eq!(cells("progressive_input_cells."), 1);
}

#[test]
fn other_cells_and_likelihoods() {
    let args = with(&layouts::hierarchy(), &[("arch_instance", json!("res_bnswish2")), ("num_nf", json!(0))]);
    let weights = check_autoencoder(&args);
    has(&weights, &[("enc_tower.0._ops.0.bn_act_0.weight", &[8]), ("enc_tower.0._ops.0.conv_1.weight", &[8, 8, 3, 3])]);
    assert!(!weights.keys().any(|name| name.starts_with("nf_cells.") || name.contains("_ops.1.")));

    let args = with(&args, &[("arch_instance", json!("res_bnswish")), ("progressive_input_vae", json!("none"))]);
    let weights = check_autoencoder(&with(&args, &[("use_se", json!(false))]));
    has(&weights, &[("enc_tower.0._ops.1.conv_0.weight", &[8, 8, 3, 3])]);
    assert!(!weights.keys().any(|name| name.contains(".se.") || name.starts_with("progressive_input")));

    // Means and scales; one Normal for each value; ten logistics with mixing shares and coefficients for each pixel.
    for (likelihood, channels) in [("dl", 6), ("normal", 6), ("dml", 100)] {
        let weights = check_autoencoder(&with(&args, &[("decoder_dist", json!(likelihood))]));
        has(&weights, &[("image_conditional.1.weight", &[channels, 8, 3, 3])]);
    }
    for bits in [5, 8] {
        let architecture = Architecture::published(&with(&args, &[("num_x_bits", json!(bits))])).unwrap();
        assert_eq!(architecture.image.bits, bits);
    }
}

#[test]
fn the_smallest_architectures() {
    let one_scale = [("num_latent_scales", json!(1)), ("channel_mult", json!([1, 2]))];
    let weights = check_autoencoder(&with(&layouts::hierarchy(), &one_scale));
    assert!(!weights.keys().any(|name| name.starts_with("progressive_input")), "one scale has no cells for it");
    for key in ["num_cell_per_cond_enc", "num_cell_per_cond_dec"] {
        check_autoencoder(&with(&layouts::hierarchy(), &[(key, json!(0))]));
    }
    let without_towers =
        ["num_preprocess_blocks", "num_preprocess_cells", "num_postprocess_blocks", "num_postprocess_cells"];
    let changes: Vec<_> = without_towers.into_iter().map(|key| (key, json!(0))).collect();
    let args = with(&with(&layouts::hierarchy(), &changes), &[("channel_mult", json!([1, 2]))]);
    let weights = check_autoencoder(&args);
    assert!(!weights.keys().any(|name| name.starts_with("pre_process") || name.starts_with("post_process")));
    let cells = with(&layouts::hierarchy(), &[("num_preprocess_cells", json!(0))]);
    assert!(Architecture::published(&cells).unwrap_err().to_string().contains("preprocess_cells"));
}

/// The prior that `args` and a network describe, read back.
fn check_prior(args: &Value) -> Weights {
    check_prior_of(args, LatentShape::plane(6, 16, 16))
}

fn check_prior_of(args: &Value, shape: LatentShape) -> Weights {
    let (config, first) = layouts::prior(args, shape, 4);
    let weights = layouts::published(&first, &["prior.network.", "prior."]);
    let half: Half = through_a_file(args, &weights).prior.unwrap();
    assert_eq!(prior::latent_channels(&half).unwrap(), 6);
    // Widths and places of attention are found again by the weights alone.
    let again = prior::config(&half, &shape).unwrap();
    let (NetworkConfig::Ncsnpp(found), NetworkConfig::Ncsnpp(written)) = (&again.network, &config.network) else {
        panic!("{again:?}");
    };
    assert_eq!(found, written);
    assert_eq!((again.sde, again.mixed), (config.sde, config.mixed));
    let second = store(9);
    Prior::new(&again, shape, &second.root().pp("prior")).unwrap();
    let path = Path::new("x.safetensors");
    second.load(&fit(path, Part::PRIOR, &half.weights, prior::place, |_| false, &second).unwrap()).unwrap();
    let noise = |store: &ParamStore, config| {
        let prior = Prior::new(config, shape, &store.frozen_root().pp("prior")).unwrap();
        let mut rng = Rng::new(6);
        let z = rng.normal_tensor(shape.dims(2), DType::F32, &Device::Cpu).unwrap();
        values(&prior.epsilon_all(&z, 0.3, &mut Pass::eval(&mut rng)).unwrap())
    };
    assert_eq!(noise(&first, &config), noise(&second, &again));
    weights
}

#[test]
fn priors_with_every_way_in_and_out() {
    let usual = layouts::score_network();
    let plain = check_prior(&usual);
    has(&plain, &[("all_modules.2.weight", &[8, 6, 3, 3]), ("mixing_logit", &[1, 6, 1, 1])]);
    for progressive in ["none", "output_skip", "residual"] {
        for progressive_input in ["none", "input_skip", "residual"] {
            for (fir, combine) in [(false, "sum"), (true, "sum"), (true, "cat")] {
                let change = [
                    ("progressive", json!(progressive)),
                    ("progressive_input", json!(progressive_input)),
                    ("progressive_combine", json!(combine)),
                    ("fir", json!(fir)),
                ];
                let weights = check_prior(&with(&usual, &change));
                // Below the first level: an input of six channels that is joined with eight, by a convolution of its own.
                match (progressive_input, fir) {
                    ("none", _) => has(&weights, &[("all_modules.6.Conv_0.weight", &[16, 8, 3, 3])]),
                    ("input_skip", _) => has(&weights, &[("all_modules.6.Conv_0.weight", &[8, 6, 1, 1])]),
                    (_, true) => has(&weights, &[("all_modules.6.Conv2d_0.weight", &[8, 6, 3, 3])]),
                    (_, false) => has(&weights, &[("all_modules.6.Conv_0.weight", &[8, 6, 3, 3])]),
                }
            }
        }
    }
}

#[test]
fn priors_with_other_times_and_processes() {
    let usual = layouts::score_network();
    let weights = check_prior(&with(&usual, &[("embedding_type", json!("fourier")), ("embedding_scale", json!(16.0))]));
    has(&weights, &[("temb_fun.w", &[1, 8]), ("all_modules.0.weight", &[64, 16])]);
    for sde in ["geometric_sde", "sub_vpsde", "vesde"] {
        check_prior(&with(&usual, &[("sde_type", json!(sde)), ("sigma2_0", json!(3e-5))]));
    }
    // The lower level has a single position.
    check_prior_of(&usual, LatentShape::plane(6, 2, 2));
    let weights = check_prior(&with(&usual, &[("mixed_prediction", json!(false))]));
    assert!(!weights.contains_key("mixing_logit"));
}
