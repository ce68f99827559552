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
    for pass in 0..passes {
        let z1 = model.prior.sample_base(config.batch_size, config.temperature, DType::F32, device, rng)?;
        let (z0, _) = solvers::sample(&model.prior, &z1, &config.solver(), rng, &mut |_| Ok(()))?;
        model.autoencoder.decode(&z0.into(), &mut Pass::train(rng))?;
        progress((pass + 1) as f64 / passes as f64);
    }
    Ok(())
}
