//! Files in the published layout, against the published implementation. Skipped with a word where they are absent.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use lsgm_core::{LatentShape, ParamStore, Rng};
use lsgm_image::Nvae;
use lsgm_import::autoencoder::{self, Architecture};
use lsgm_import::{Check, ImportError, Part, fit, prior, read};
use lsgm_prior::{NetworkConfig, Prior, SdeConfig};

fn golden(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden").join(name);
    if !path.exists() {
        eprintln!("skipped: there is no {}", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn a_published_prior_is_recomputed() {
    let Some(path) = golden("ncsnpp_vpsde.safetensors") else { return };
    let found = read(&path).unwrap();
    assert!(found.autoencoder.is_none());
    let half = found.prior.unwrap();
    let shape = Architecture::for_prior(&half).unwrap().latent_shape();
    assert_eq!(shape, LatentShape::plane(8, 8, 8));
    let config = prior::config(&half, &shape).unwrap();
    let NetworkConfig::Ncsnpp(network) = &config.network else { panic!("{config:?}") };
    assert_eq!((network.channels, &network.channel_multipliers[..], network.blocks), (32, &[1, 1][..], 2));
    assert!(network.attention.is_empty() && config.mixed);
    assert_eq!(config.sde, SdeConfig::default());

    let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(0));
    Prior::new(&config, shape, &store.root().pp("prior")).unwrap();
    let weights = fit(&path, Part::PRIOR, &half.weights, prior::place, |_| false, &store).unwrap();
    store.load(&weights).unwrap();
    let checks = prior::verify(&half, &config, shape, &store).unwrap();
    assert_eq!(checks.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["pred", "mixed", "ode_z0", "ode_nfe"]);
    assert!(checks.iter().all(Check::passes), "{checks:?}");
}

#[test]
fn published_autoencoders_are_recomputed() {
    for name in ["nvae_binary_mbconv.safetensors", "nvae_rgb_bnswish.safetensors"] {
        let Some(path) = golden(name) else { return };
        let half = read(&path).unwrap().autoencoder.unwrap();
        let architecture = Architecture::published(&half.args).unwrap();
        let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(0));
        Nvae::new(&architecture.nvae, architecture.image, &store.root()).unwrap();
        let (place, own) = (autoencoder::place, autoencoder::is_own);
        store.load(&fit(&path, Part::AUTOENCODER, &half.weights, place, own, &store).unwrap()).unwrap();
        let checks = autoencoder::verify(&half, &architecture, &store).unwrap();
        let of_groups = |name: &str| checks.iter().filter(|c| c.name.starts_with(name)).count();
        let groups = architecture.nvae.groups_per_scale;
        assert_eq!((of_groups("eps."), of_groups("log_q.")), (groups, groups));
        let names: Vec<_> = checks.iter().map(|c| c.name.as_str()).filter(|n| !n.contains('.')).collect();
        assert_eq!(names, ["log_q", "recon_nll", "logits", "decode_logits"]);
        assert!(checks.iter().all(Check::passes), "{checks:?}");
    }
}

#[test]
fn what_does_not_fit_is_named_tensor_by_tensor() {
    let Some(path) = golden("ncsnpp_vpsde.safetensors") else { return };
    let mut half = read(&path).unwrap().prior.unwrap();
    let shape = LatentShape::plane(8, 8, 8);
    let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(0));
    Prior::new(&prior::config(&half, &shape).unwrap(), shape, &store.root().pp("prior")).unwrap();
    let extra = half.weights.remove("all_modules.0.bias").unwrap();
    half.weights.insert("all_modules.99.bias".into(), extra.clone());
    half.weights.insert("mixing_logit".into(), extra);
    let error = fit(&path, Part::PRIOR, &half.weights, prior::place, |_| false, &store).unwrap_err();
    let ImportError::Tensors { differences, .. } = error else { panic!("{error}") };
    assert_eq!(
        differences,
        [
            "`all_modules.99.bias` is unknown",
            "`mixing_logit` has shape [128] instead of [1, 8, 1, 1]",
            "`all_modules.0.bias` is missing"
        ]
    );
}
