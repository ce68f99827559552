//! NVAE against the published implementation.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use lsgm_core::{Autoencoder, Decoder, Latents, ParamStore, Pass, Rng};
use lsgm_image::{Inference, Nvae, NvaeConfig, PublishedName, SPECTRAL_STATE, published_image, published_name};
use safetensors::SafeTensors;

struct Golden {
    store: ParamStore,
    nvae: Nvae,
    io: BTreeMap<String, Tensor>,
    /// The input without padding, in [0, 1].
    x: Tensor,
    groups: usize,
}

fn golden(name: &str) -> Option<Golden> {
    let path = format!("{}/../../../shared/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let Ok(bytes) = std::fs::read(&path) else {
        eprintln!("skipped: {path} is not there");
        return None;
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let args = serde_json::from_str(&header.metadata().as_ref().unwrap()["args"]).unwrap();
    let (config, image) = (NvaeConfig::from_published_args(&args).unwrap(), published_image(&args).unwrap());
    let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(0));
    let nvae = Nvae::new(&config, image, &store.root()).unwrap();

    // Every published name and shape is ours, and the other way round but for the state of the penalty.
    let state = store.tensors().into_iter().filter(|(name, _)| name.ends_with(SPECTRAL_STATE));
    let mut weights: BTreeMap<String, Tensor> = state.map(|(name, t)| (name, t.copy().unwrap())).collect();
    let mut io = BTreeMap::new();
    for (name, tensor) in candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap() {
        if let Some(name) = name.strip_prefix("io.") {
            io.insert(name.to_owned(), tensor);
        } else if let Some(published) = name.strip_prefix("weights.") {
            match published_name(published) {
                PublishedName::Ours(ours) => assert!(weights.insert(ours, tensor).is_none(), "{published}"),
                PublishedName::Redundant => {}
                PublishedName::Unknown => panic!("{published}"),
            }
        }
    }
    store.load(&weights).unwrap();
    let (height, width) = (image.height, image.width);
    let x = io["x"].narrow(2, config.padding, height).unwrap().narrow(3, config.padding, width).unwrap();
    let x = x.affine(0.5, 0.5).unwrap().contiguous().unwrap();
    Some(Golden { store, nvae, io, x, groups: config.groups_per_scale })
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// The largest difference relative to `b`.
fn worst_relative(a: &Tensor, b: &Tensor) -> f32 {
    ((a - b).unwrap() / b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

fn agrees(name: &str) {
    let Some(Golden { nvae, io, x, groups, .. }) = golden(name) else { return };
    let Inference { posterior, logits } =
        nvae.infer(&x, false, &mut |group, _| Ok(io[&format!("noise.{group}")].clone())).unwrap();
    let mut log_q = 0.0f64;
    for (g, group) in posterior.groups.iter().enumerate() {
        let published = io[&format!("log_q.{g}")].flatten_from(1).unwrap().sum(1).unwrap();
        log_q = log_q.max(f64::from(worst_relative(&group.log_q().unwrap(), &published)));
        assert!(worst(&group.z, &io[&format!("eps.{g}")]) < 1e-4, "sample of group {g}");
    }
    let total = worst_relative(&posterior.log_q().unwrap(), &io["log_q"]);
    let reconstruction = nvae.likelihood(&logits).unwrap().log_prob(&x).unwrap().neg().unwrap();
    let reconstruction = worst_relative(&reconstruction, &io["recon_nll"]);
    let logits = worst(&logits, &io["logits"]);

    let latents: Vec<&Tensor> = (0..groups).map(|g| &io[&format!("decode_eps.{g}")]).collect();
    let latents = Latents::from(Tensor::cat(&latents, 1).unwrap());
    let decoded = worst(&nvae.generate(&latents, false, &mut Rng::new(0)).unwrap(), &io["decode_logits"]);
    eprintln!(
        "{name}: logits {logits:e}, log q {total:e} (groups {log_q:e}), reconstruction {reconstruction:e}, decoded {decoded:e}"
    );
    assert!(logits < 1e-4 && total < 1e-5 && reconstruction < 1e-5 && decoded < 1e-4);
}

#[test]
fn the_binary_model_with_depthwise_cells_agrees() {
    agrees("nvae_binary_mbconv");
}

#[test]
fn the_rgb_model_with_plain_cells_agrees() {
    agrees("nvae_rgb_bnswish");
}

/// Encoding and decoding apart give what one pass gives, and the penalty leaves its state in the buffers.
#[test]
fn both_ways_through_the_model_are_the_same() {
    let Some(Golden { store, nvae, x, .. }) = golden("nvae_rgb_bnswish") else { return };
    let (posterior, together) = nvae.reconstruct(&x, &mut Pass::eval(&mut Rng::new(3))).unwrap();
    let apart = lsgm_core::Encoder::encode(&nvae, &x, &mut Pass::eval(&mut Rng::new(3))).unwrap();
    let (z, z_apart) = (posterior.latents().unwrap(), apart.latents().unwrap());
    assert_eq!(worst(&z.prior, &z_apart.prior), 0.0);
    let decoded = nvae.decode(&z_apart, &mut Pass::eval(&mut Rng::new(4))).unwrap();
    let (a, b) = (together.log_prob(&x).unwrap(), decoded.log_prob(&x).unwrap());
    assert_eq!(worst(&a, &b), 0.0);

    let first = nvae.regularizer().unwrap().unwrap().to_scalar::<f32>().unwrap();
    let second = nvae.regularizer().unwrap().unwrap().to_scalar::<f32>().unwrap();
    assert!((first - second).abs() < 1e-2 * first && second >= first * (1.0 - 1e-5), "{first} {second}");
    for (name, u) in store.buffers().iter().filter(|(name, _)| name.ends_with(SPECTRAL_STATE)) {
        let length = u.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((length - 1.0).abs() < 1e-3, "{name}: {length}");
    }
}
