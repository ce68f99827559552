//! The score-based prior without any modality: density estimation of latents that come as a tensor.

use lsgm::nn::backward;
use lsgm::nn::optim::{Gradients, Optimizer, OptimizerConfig};
use lsgm::prior::networks::TransformerConfig;
use lsgm::prior::solvers::{self, Solver, SolverConfig};
use lsgm::prior::{NetworkConfig, Prediction, Prior, PriorConfig, Weighting};
use lsgm::{DType, Device, LatentShape, ParamStore, Pass, Result, Rng, Tensor};

/// Fit a prior to latents `[B, 2, 1]` whose two channels have standard deviations 0.5 and 1.5, and draw from it. Returns the
/// standard deviations of what is drawn.
pub(crate) fn run(steps: usize) -> Result<[f64; 2]> {
    let device = Device::Cpu;
    let mut rng = Rng::new(3);
    let network = TransformerConfig { channels: 64, blocks: 2, heads: 1, embedding: 32, ..Default::default() };
    let config = PriorConfig {
        network: NetworkConfig::Transformer(network),
        mixed: false,
        prediction: Prediction::Correction,
        ..PriorConfig::default()
    };
    let store = ParamStore::new(DType::F32, &device, rng.fork("parameters"));
    let prior = Prior::new(&config, LatentShape::line(2, 1), &store.root())?;
    let mut optimizer = Optimizer::new(OptimizerConfig::default(), store.vars())?;
    let scale = Tensor::new(&[[[0.5f32], [1.5]]], &device)?;
    for step in 0..steps {
        let z0 = rng.normal_tensor((128, 2, 1), DType::F32, &device)?.broadcast_mul(&scale)?;
        let times = prior.stratified_times(Weighting::LlAngle, 128, &mut rng)?;
        let loss = prior.cross_entropy(&z0, &times, &mut Pass::train(&mut rng))?.mean_all()?;
        let gradients = Gradients::collect(&backward(&loss)?, optimizer.vars());
        let rate = 4e-3 * (1.0 - step as f64 / steps as f64);
        optimizer.step(&gradients, rate, 1.0, None)?;
    }
    // Without a way back for gradients, sampling costs less.
    let prior = Prior::new(&config, prior.shape(), &store.frozen_root())?;
    let z1 = prior.sample_base(1000, 1.0, DType::F32, &device, &mut rng)?;
    let solver = SolverConfig { solver: Solver::Heun, steps: 12, ..SolverConfig::default() };
    let (z0, _) = solvers::sample(&prior, &z1, &solver, &mut rng, &mut |_| Ok(()))?;
    let deviation = |channel| -> Result<f64> {
        let squares = z0.narrow(1, channel, 1)?.sqr()?.mean_all()?.to_scalar::<f32>()?;
        Ok(f64::from(squares).sqrt())
    };
    Ok([deviation(0)?, deviation(1)?])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_spread_of_the_latents_is_learned() {
        let [narrow, wide] = super::run(800).unwrap();
        // N(0, I), where it starts, has 1 and 1.
        assert!((narrow - 0.5).abs() < 0.15 && (wide - 1.5).abs() < 0.2, "{narrow} {wide}");
    }
}
