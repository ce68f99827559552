use candle_core::{DType, Device};
use lsgm_core::{Pass, Result, Rng};
use lsgm_prior::solvers;

use crate::config::SampleConfig;
use crate::model::Model;

/// Let the decoder's batch norms follow the latents that sampling gives them, in `passes` passes: each draws
/// `config.batch_size` latents from the prior and decodes them in training mode, so that the running statistics move
/// towards those of these batches (NVAE, section 4.3). What a decoder without such statistics does stays the same.
///
/// The stored statistics of the run do not change. `progress` is told the share that is done.
///
/// # Errors
/// When the solver or the decoder fails.
pub fn readjust_batch_norm(
    model: &Model,
    passes: usize,
    config: &SampleConfig,
    device: &Device,
    rng: &mut Rng,
    progress: &mut dyn FnMut(f64),
) -> Result<()> {
    let prior = config.guided(&model.prior);
    for pass in 0..passes {
        let z1 = model.prior.sample_base(config.batch_size, config.temperature, DType::F32, device, rng)?;
        let (z0, _) = solvers::sample(&prior, &z1, &config.solver(), rng, &mut |_| Ok(()))?;
        model.autoencoder.decode(&z0.into(), &mut Pass::train(rng))?;
        progress((pass + 1) as f64 / passes as f64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;
    use lsgm_core::{Autoencoder, Decoder, Encoder, LatentShape, Latents, Likelihood, ParamStore, Params, Posterior};
    use lsgm_nn::{BatchNorm, ops::Activation};
    use lsgm_prior::solvers::{Grid, Solver};
    use lsgm_prior::{Prior, PriorConfig};

    /// A decoder that shows its batch norm's output.
    struct Normed(BatchNorm);

    impl Encoder for Normed {
        fn latent_shape(&self) -> LatentShape {
            LatentShape::plane(2, 4, 4)
        }

        fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
            Posterior::normal(x.clone(), x.zeros_like()?, pass.rng)
        }
    }

    impl Decoder for Normed {
        fn decode(&self, z: &Latents, pass: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
            // Far from what a fresh batch norm expects.
            Ok(Box::new(Shown(self.0.forward(&z.prior.affine(3.0, 7.0)?, pass.training)?)))
        }
    }

    impl Autoencoder for Normed {}

    struct Shown(Tensor);

    impl Likelihood for Shown {
        fn log_prob(&self, _: &Tensor) -> Result<Tensor> {
            Ok(self.0.flatten_from(1)?.sum(1)?)
        }

        fn sample(&self, _: f64, _: &mut Rng) -> Result<Tensor> {
            self.mean()
        }

        fn mean(&self) -> Result<Tensor> {
            Ok(self.0.clone())
        }
    }

    #[test]
    fn batch_norms_come_to_expect_what_sampling_gives_them() {
        let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(1));
        let build = |params: &Params| -> Result<Model> {
            let norm = BatchNorm::new(2, 1e-5, 0.05, Activation::Identity, &params.pp("decoder.norm"))?;
            let prior = Prior::new(&PriorConfig::default(), LatentShape::plane(2, 4, 4), &params.pp("prior"))?;
            Ok(Model { autoencoder: Box::new(Normed(norm)), prior })
        };
        let model = build(&store.frozen_root()).unwrap();
        let config = SampleConfig {
            solver: Solver::Ddim,
            steps: 2,
            grid: Grid::default(),
            batch_size: 64,
            ..SampleConfig::default()
        };
        let moments = || {
            let samples =
                crate::sample(&model, 256, &config, &Device::Cpu, &mut Rng::new(3), &mut |_| {}).unwrap().items;
            let mean = samples.mean_all().unwrap().to_scalar::<f32>().unwrap();
            let square = samples.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
            (mean, square - mean * mean)
        };
        assert!((moments().0 - 7.0).abs() < 0.5 && moments().1 > 2.0, "{:?}", moments());
        let mut shares = Vec::new();
        readjust_batch_norm(&model, 120, &config, &Device::Cpu, &mut Rng::new(2), &mut |s| shares.push(s)).unwrap();
        let (mean, variance) = moments();
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert_eq!((shares.len(), shares[119]), (120, 1.0));
    }
}
