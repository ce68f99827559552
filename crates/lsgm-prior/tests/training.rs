//! A short training on a distribution whose density is known.

mod common;

use candle_core::{DType, Device};
use common::{Mixture, latents};
use lsgm_core::{LatentShape, ParamStore, Pass, Rng};
use lsgm_nn::optim::{Gradients, Optimizer, OptimizerConfig, OptimizerKind};
use lsgm_prior::networks::TransformerConfig;
use lsgm_prior::{NetworkConfig, OdeOptions, Prior, PriorConfig, Trace, Weighting, ode_log_prob};

const STEPS: usize = 2000;
const BATCH: usize = 512;

#[test]
#[ignore = "trains for half a minute"]
fn a_short_training_finds_the_density_of_a_mixture() {
    let data = Mixture::wide();
    let shape = LatentShape::line(2, 1);
    let network = TransformerConfig {
        channels: 32,
        blocks: 2,
        heads: 1,
        expansion: 2,
        embedding: 32,
        ..TransformerConfig::default()
    };
    let config =
        PriorConfig { alpha_init: -2.0, network: NetworkConfig::Transformer(network), ..PriorConfig::default() };
    let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(1));
    let prior = Prior::new(&config, shape, &store.root()).unwrap();
    let adam = OptimizerConfig { kind: OptimizerKind::Adam, ..OptimizerConfig::default() };
    let mut optimizer = Optimizer::new(adam, store.vars()).unwrap();
    let mut rng = Rng::new(2);
    let clock = std::time::Instant::now();
    for step in 0..STEPS {
        let z0 = latents(&data.draw(BATCH, &mut rng)).to_dtype(DType::F32).unwrap();
        let times = prior.stratified_times(Weighting::LlIw, BATCH, &mut rng).unwrap();
        let loss = prior.cross_entropy(&z0, &times, &mut Pass::train(&mut rng)).unwrap().mean_all().unwrap();
        let gradients = Gradients::collect(&loss.backward().unwrap(), &store.vars());
        let progress = step as f64 / STEPS as f64;
        let rate = 8e-3 * (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0;
        let clip = (3.0 / gradients.norm().unwrap()).min(1.0);
        optimizer.step(&gradients, rate, clip, None).unwrap();
    }

    let x = data.draw(400, &mut rng);
    let truth = x.iter().map(|x| data.log_density(*x)).sum::<f64>() / x.len() as f64;
    let z0 = latents(&x).to_dtype(DType::F32).unwrap();
    let frozen = Prior::new(&config, shape, &store.frozen_root()).unwrap();
    let options = OdeOptions { tolerance: 1e-4, t_eps: 1e-4, trace: Trace::Exact, ..OdeOptions::default() };
    let found = ode_log_prob(&frozen, &z0, &options, &mut rng).unwrap();
    let log_p = found.log_p.mean_all().unwrap().to_scalar::<f64>().unwrap();
    eprintln!("log-likelihood {log_p:.4} instead of {truth:.4} nats, {} evaluations, {:?}", found.nfe, clock.elapsed());
    assert!((log_p - truth).abs() < 0.02, "{log_p} {truth}");

    // The bound is on the right side of the density, up to its sampling error.
    let many = latents(&data.draw(5_000, &mut rng)).to_dtype(DType::F32).unwrap();
    let times = frozen.stratified_times(Weighting::LlIw, 5_000, &mut rng).unwrap();
    let bound = frozen.cross_entropy(&many, &times, &mut Pass::eval(&mut rng)).unwrap();
    let bound: Vec<f32> = bound.to_vec1().unwrap();
    let bound = bound.iter().map(|&b| f64::from(b)).sum::<f64>() / bound.len() as f64;
    eprintln!("cross-entropy bound {bound:.4}");
    assert!((bound + truth).abs() < 0.1, "{bound} {truth}");
}
