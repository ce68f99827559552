//! What the golden files do not show: several scales, flows, every kind of cell, and training.

use candle_core::{DType, Device, Tensor};
use lsgm_core::{Autoencoder, Decoder, Encoder, Latents, ParamStore, Pass, Rng};
use lsgm_image::{CellKind, ImageShape, Nvae, NvaeConfig, PixelLikelihood};
use lsgm_nn::ops;

const RGB: ImageShape = ImageShape { channels: 3, height: 16, width: 24, bits: 8 };

/// Latents at a half and at a quarter of the image's size.
fn hierarchical() -> NvaeConfig {
    NvaeConfig {
        encoder_channels: 8,
        decoder_channels: 4,
        channel_multipliers: vec![1, 1, 2],
        preprocess_blocks: 1,
        preprocess_cells: 1,
        postprocess_cells: 1,
        latent_scales: 2,
        groups_per_scale: 2,
        latent_channels: 2,
        flows: 1,
        progressive_input: true,
        ..NvaeConfig::default()
    }
}

fn build(config: &NvaeConfig, image: ImageShape) -> (ParamStore, Nvae) {
    let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(1));
    let nvae = Nvae::new(config, image, &store.root()).unwrap();
    (store, nvae)
}

/// Pixels with `2^bits` values.
fn images(image: ImageShape, batch: usize) -> Tensor {
    let steps = ((1u32 << image.bits) - 1) as f64;
    let x = Rng::new(2).uniform_tensor((batch, image.channels, image.height, image.width), DType::F32, &Device::Cpu);
    ((x.unwrap() * steps).unwrap().round().unwrap() / steps).unwrap()
}

#[test]
fn groups_of_the_smallest_size_are_the_priors_and_the_others_go_beside() {
    let (_, nvae) = build(&hierarchical(), RGB);
    assert_eq!(nvae.latent_shape(), lsgm_core::LatentShape::plane(4, 4, 6));
    let x = images(RGB, 2);
    let (posterior, likelihood) = nvae.reconstruct(&x, &mut Pass::eval(&mut Rng::new(3))).unwrap();
    assert_eq!(posterior.groups.iter().map(|g| g.side).collect::<Vec<_>>(), [false, false, true, true]);
    assert!(posterior.groups.iter().all(|g| g.base.is_some()), "every group has gone through its flow");
    let z = posterior.latents().unwrap();
    assert_eq!((z.prior.dims(), z.side[0].dims(), z.side.len()), (&[2, 4, 4, 6][..], &[2, 2, 8, 12][..], 2));
    let again = nvae.decode(&z, &mut Pass::eval(&mut Rng::new(4))).unwrap();
    let values = |t: Tensor| t.to_vec1::<f32>().unwrap();
    assert_eq!(values(likelihood.log_prob(&x).unwrap()), values(again.log_prob(&x).unwrap()));
    // Without them the decoder draws.
    let draw = |seed| {
        let likelihood = nvae.decode(&z.prior.clone().into(), &mut Pass::eval(&mut Rng::new(seed))).unwrap();
        values(likelihood.mean().unwrap().flatten_all().unwrap())
    };
    assert_eq!(draw(5), draw(5));
    assert_ne!(draw(5), draw(6));
    let wrong = Latents { side: vec![z.prior.clone()], ..z };
    assert!(nvae.decode(&wrong, &mut Pass::eval(&mut Rng::new(4))).err().unwrap().to_string().contains("side latents"));
}

/// `Σ σ_max + Σ max |γ|`, from the weights as convolutions use them.
#[test]
fn the_penalty_is_about_every_convolution_and_every_batch_norm() {
    let (store, nvae) = build(&NvaeConfig { flows: 0, cells: CellKind::ResBnswish, ..hierarchical() }, RGB);
    let tensors = store.tensors();
    let scalar = |t: Tensor| f64::from(t.to_scalar::<f32>().unwrap());
    let mut expected = 0.0;
    for (name, weight) in &tensors {
        let Some(path) = name.strip_suffix(".weight") else { continue };
        expected += match (tensors.get(&format!("{path}.log_weight_norm")), weight.dims()) {
            (Some(log_norm), [rows, ..]) => {
                let kernel = ops::weight_norm(weight, &log_norm.flatten_all().unwrap().exp().unwrap(), 1e-5).unwrap();
                let start = Tensor::zeros(*rows, DType::F32, &Device::Cpu).unwrap();
                scalar(ops::spectral_norm(&kernel, &start, 200).unwrap().0)
            }
            (None, [_]) => scalar(weight.abs().unwrap().max(0).unwrap()),
            _ => 0.0,
        };
    }
    // Each look brings the power iteration nearer.
    let found = (0..60).fold(0.0, |_, _| scalar(nvae.regularizer().unwrap().unwrap()));
    assert!((found - expected).abs() < 1e-3 * expected, "{found} {expected}");
}

#[test]
fn every_parameter_of_every_kind_of_cell_is_trained() {
    for (cells, squeeze_excite) in
        [(CellKind::ResMbconv, true), (CellKind::ResBnswish, false), (CellKind::ResBnswish2, true)]
    {
        let config = NvaeConfig { cells, squeeze_excite, ..hierarchical() };
        let (store, nvae) = build(&config, RGB);
        let x = images(RGB, 3);
        let (posterior, likelihood) = nvae.reconstruct(&x, &mut Pass::train(&mut Rng::new(3))).unwrap();
        let mut loss = likelihood.log_prob(&x).unwrap().neg().unwrap();
        for kl in posterior.kl_groups().unwrap() {
            loss = (loss + kl).unwrap();
        }
        let loss = (loss.mean_all().unwrap() + (nvae.regularizer().unwrap().unwrap() * 1e-2).unwrap()).unwrap();
        assert!(loss.to_scalar::<f32>().unwrap().is_finite());
        let gradients = loss.backward().unwrap();
        for (name, var) in store.vars() {
            let found = gradients.get(var.as_tensor()).unwrap_or_else(|| panic!("no gradient for {name}"));
            let size = found.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(size.is_finite(), "{name}");
            // The first channel of a flow sees nothing of its own place, and one channel in all sees nothing at 1×1.
            assert!(size > 0.0 || name.contains("nf_cells"), "no gradient for {name}");
        }
        let moved = store.buffers().into_iter().filter(|(name, _)| name.ends_with("running_mean"));
        for (name, mean) in moved {
            let size = mean.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(size > 0.0, "{name} did not move");
        }
    }
}

#[test]
fn grey_images_and_every_distribution_work() {
    let small =
        NvaeConfig { channel_multipliers: vec![1, 2], preprocess_blocks: 1, encoder_channels: 4, ..hierarchical() };
    let small = NvaeConfig { latent_scales: 1, progressive_input: false, padding: 1, ..small };
    for (likelihood, channels, bits) in [
        (None, 1, 1),
        (None, 1, 8),
        (None, 3, 5),
        (Some(PixelLikelihood::Logistic), 3, 8),
        (Some(PixelLikelihood::Normal), 1, 8),
    ] {
        let image = ImageShape { channels, bits, height: 6, width: 6 };
        let config = NvaeConfig { likelihood, ..small.clone() };
        let (_, nvae) = build(&config, image);
        let x = images(image, 2);
        let (posterior, p) = nvae.reconstruct(&x, &mut Pass::eval(&mut Rng::new(3))).unwrap();
        assert!(p.log_prob(&x).unwrap().to_vec1::<f32>().unwrap().iter().all(|l| l.is_finite()));
        assert_eq!(posterior.latents().unwrap().prior.dims(), [2, 4, 4, 4]);
        for shown in [p.mean().unwrap(), p.sample(1.0, &mut Rng::new(4)).unwrap()] {
            assert_eq!(shown.dims(), x.dims());
            let values = shown.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
        }
    }
}

#[test]
fn images_of_another_shape_are_refused() {
    let (_, nvae) = build(&hierarchical(), RGB);
    for wrong in [(2, 3, 16, 16), (2, 1, 16, 24)] {
        let x = Tensor::zeros(wrong, DType::F32, &Device::Cpu).unwrap();
        let message = nvae.encode(&x, &mut Pass::eval(&mut Rng::new(0))).unwrap_err().to_string();
        assert!(message.contains("instead of [B, 3, 16, 24]"), "{message}");
    }
    let z = Tensor::zeros((1, 4, 4, 4), DType::F32, &Device::Cpu).unwrap();
    let message = nvae.decode(&z.into(), &mut Pass::eval(&mut Rng::new(0))).err().unwrap().to_string();
    assert!(message.contains("decoder"), "{message}");
}
