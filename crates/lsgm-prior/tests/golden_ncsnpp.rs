//! NCSN++ with the mixed score, and the probability-flow ODE on it, against the published implementation.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use lsgm_core::{LatentShape, ParamStore, Pass, Rng};
use lsgm_prior::networks::NcsnppConfig;
use lsgm_prior::solvers::{Rk45Options, probability_flow_rk45};
use lsgm_prior::{NetworkConfig, Prior, PriorConfig, ScoreNetwork};

const NFE: usize = 458;

struct Golden {
    store: ParamStore,
    io: BTreeMap<String, Tensor>,
}

fn golden() -> Option<Golden> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden/ncsnpp_vpsde.safetensors");
    let Ok(tensors) = candle_core::safetensors::load(path, &Device::Cpu) else {
        eprintln!("skipped: {path} is not there");
        return None;
    };
    let mut weights = BTreeMap::new();
    let mut io = BTreeMap::new();
    for (name, tensor) in tensors {
        if let Some(name) = name.strip_prefix("io.") {
            io.insert(name.to_owned(), tensor);
        } else if let Some(name) = name.strip_prefix("weights.all_modules.") {
            weights.insert(format!("network.all_modules.{name}"), tensor);
        } else if let Some(name) = name.strip_prefix("weights.") {
            weights.insert(name.to_owned(), tensor);
        }
    }
    let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(0));
    Prior::new(&config(), LatentShape::plane(8, 8, 8), &store.root()).unwrap();
    // Every published name and shape is ours, and the other way round.
    store.load(&weights).unwrap();
    Some(Golden { store, io })
}

fn config() -> PriorConfig {
    let network = NcsnppConfig { channels: 32, embedding: 32, ..NcsnppConfig::default() };
    PriorConfig { network: NetworkConfig::Ncsnpp(network), t_eps: 0.01, ..PriorConfig::default() }
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn predictions_match() {
    let Some(Golden { store, io }) = golden() else { return };
    let shape = LatentShape::plane(8, 8, 8);
    let NetworkConfig::Ncsnpp(network) = config().network else { unreachable!() };
    let network = lsgm_prior::networks::Ncsnpp::new(&network, shape, &store.frozen_root().pp("network")).unwrap();
    let pass = || Rng::new(0);
    let pred = network.forward(&io["z"], &io["t"], &mut Pass::eval(&mut pass())).unwrap();
    let prior = Prior::new(&config(), shape, &store.frozen_root()).unwrap();
    let mixed = prior.epsilon(&io["z"], &io["t"], &mut Pass::eval(&mut pass())).unwrap();
    let (pred, mixed) = (worst(&pred, &io["pred"]), worst(&mixed, &io["mixed"]));
    eprintln!("largest differences: prediction {pred:e}, mixed {mixed:e}");
    assert!(pred < 1e-4 && mixed < 1e-4, "{pred} {mixed}");
}

/// The stored end point is one of many that rounding allows. At this tolerance the solver's own error is 0.14, and which
/// steps it accepts near t = 0 hangs on the last digits: the same solve with the network, the coefficients of the SDE and
/// the drift in `f32` or `f64`, in nine combinations, ends between 1.8e-3 and 4.8e-3 away in its worst value (values are of
/// size 9) after 458 to 488 evaluations. All of it in `f32`, as the published sampler has it, ends 1.8e-3 away; all of it in
/// `f64` 4.8e-3. So the worst value cannot be held to 2e-3 by better arithmetic; the end point as a whole can, while a
/// tolerance that is 1 % off ends 0.03 away.
#[test]
fn the_probability_flow_ends_where_scipys_does() {
    let Some(Golden { store, io }) = golden() else { return };
    let prior = Prior::new(&config(), LatentShape::plane(8, 8, 8), &store.frozen_root()).unwrap();
    let options = Rk45Options::with_tolerance(1e-5);
    let (z0, nfe) = probability_flow_rk45(&prior, &io["ode_z1"], 1.0, 1e-5, &options, &mut |_| Ok(())).unwrap();
    let difference = (&z0 - &io["ode_z0"]).unwrap();
    let rms = difference.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    let worst = worst(&z0, &io["ode_z0"]);
    eprintln!("difference {rms:e} (root mean square), {worst:e} (largest); {nfe} evaluations instead of {NFE}");
    assert!(rms < 2e-3 && worst < 6e-3, "{rms} {worst}");
    assert!(nfe.abs_diff(NFE) * 10 <= NFE, "{nfe}");
}
