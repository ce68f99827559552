//! Training steps of an NVAE in the published MNIST layout, alone and with the NCSN++ prior: `networks.py` has the same.

use candle_core::{DType, Tensor};
use lsgm::image::{ImageShape, Nvae, NvaeConfig};
use lsgm::nn::optim::{Gradients, Optimizer, OptimizerConfig, OptimizerKind};
use lsgm::nn::{Precision, backward, with_checkpoints, with_precision};
use lsgm::prior::networks::NcsnppConfig;
use lsgm::prior::solvers::{Rk45Options, probability_flow_rk45};
use lsgm::prior::{NetworkConfig, Prior, PriorConfig, SdeConfig, Weighting};
use lsgm::{Autoencoder, Encoder, ParamStore, Pass, Result, Rng};
use serde::Deserialize;

use crate::placement::device;
use crate::rows::Step;

/// Sizes of both networks.
#[derive(Deserialize)]
pub(crate) struct Sizes {
    batch: usize,
    channels: usize,
    cells: usize,
    latents: usize,
    groups: usize,
    /// Channels and blocks of the prior, where the row has one.
    #[serde(default)]
    prior_channels: usize,
    #[serde(default)]
    blocks: usize,
    /// Whether blocks are computed again on the way back, to save memory.
    #[serde(default)]
    recompute: bool,
}

impl Sizes {
    fn autoencoder(&self, store: &ParamStore) -> Result<Nvae> {
        let config = NvaeConfig {
            encoder_channels: self.channels,
            decoder_channels: self.channels,
            preprocess_cells: self.cells,
            postprocess_cells: self.cells,
            groups_per_scale: self.groups,
            latent_channels: self.latents,
            padding: 2,
            ..Default::default()
        };
        Nvae::new(&config, ImageShape { channels: 1, height: 28, width: 28, bits: 1 }, &store.root())
    }

    fn prior(&self) -> PriorConfig {
        let network = NcsnppConfig { channels: self.prior_channels, blocks: self.blocks, ..Default::default() };
        let sde = SdeConfig::Geometric { sigma2_min: 3e-5, sigma2_max: 0.999, sigma2_0: 3e-5 };
        PriorConfig { sde, network: NetworkConfig::Ncsnpp(network), ..Default::default() }
    }

    /// Binary images.
    fn images(&self) -> Result<Tensor> {
        let noise = Rng::new(2).normal_tensor((self.batch, 1, 28, 28), DType::F32, device()?)?;
        Ok(noise.gt(0.84)?.to_dtype(DType::F32)?)
    }
}

fn optimizer(kind: OptimizerKind, store: &ParamStore, of_prior: bool) -> Result<Optimizer> {
    let vars = store.vars().into_iter().filter(|(name, _)| name.starts_with("prior.") == of_prior).collect();
    Optimizer::new(OptimizerConfig { kind, ..Default::default() }, vars)
}

/// A step of the autoencoder under N(0, I).
pub(crate) fn nvae(sizes: &Sizes) -> Result<Step> {
    let store = ParamStore::new(DType::F32, device()?, Rng::new(1));
    let (model, x, mut rng) = (sizes.autoencoder(&store)?, sizes.images()?, Rng::new(3));
    let mut optimizer = optimizer(OptimizerKind::Adamax, &store, false)?;
    Ok(Box::new(move || {
        let (posterior, likelihood) = model.reconstruct(&x, &mut Pass::train(&mut rng))?;
        let mut loss = likelihood.log_prob(&x)?.neg()?;
        for kl in posterior.kl_groups()? {
            loss = (loss + kl)?;
        }
        let gradients = Gradients::collect(&backward(&loss.mean_all()?)?, optimizer.vars());
        optimizer.step(&gradients, 1e-3, 1.0, None)
    }))
}

/// A joint step of autoencoder and prior: algorithm 1, one noise level for each item.
pub(crate) fn lsgm(sizes: &Sizes) -> Result<Step> {
    let store = ParamStore::new(DType::F32, device()?, Rng::new(1));
    let (model, x, mut rng) = (sizes.autoencoder(&store)?, sizes.images()?, Rng::new(3));
    let prior = Prior::new(&sizes.prior(), model.latent_shape(), &store.root().pp("prior"))?;
    let recompute = sizes.recompute;
    let mut optimizers =
        [optimizer(OptimizerKind::Adamax, &store, false)?, optimizer(OptimizerKind::Adam, &store, true)?];
    Ok(Box::new(move || {
        let store = with_checkpoints(recompute, || {
            let (posterior, decode) = model.encode_to_decode(&x, &mut Pass::train(&mut rng))?;
            let z0 = posterior.latents()?.prior;
            let times = prior.sample_times(Weighting::LlUniform, x.dim(0)?, &mut rng)?;
            let cross_entropy = prior.cross_entropy(&z0, &times, &mut Pass::train(&mut rng))?;
            let likelihood = decode(&mut Pass::train(&mut rng))?;
            let loss = ((posterior.neg_entropy()? + cross_entropy)? - likelihood.log_prob(&x)?)?;
            backward(&loss.mean_all()?)
        })?;
        for optimizer in &mut optimizers {
            let gradients = Gradients::collect(&store, optimizer.vars());
            optimizer.step(&gradients, 1e-4, 1.0, None)?;
        }
        Ok(())
    }))
}

/// Latents from noise to data by the probability-flow ODE at tolerance 1e-5, products in TF32 on a GPU.
pub(crate) fn sample(sizes: &Sizes) -> Result<Step> {
    let store = ParamStore::new(DType::F32, device()?, Rng::new(1));
    let shape = sizes.autoencoder(&store)?.latent_shape();
    let prior = Prior::new(&sizes.prior(), shape, &store.frozen_root().pp("prior"))?;
    let z1 = prior.sample_base(sizes.batch, 1.0, DType::F32, device()?, &mut Rng::new(2))?;
    let options = Rk45Options::with_tolerance(1e-5);
    Ok(Box::new(move || {
        with_precision(Precision::Tf32, || {
            probability_flow_rk45(&prior, &z1, 1.0, 1e-5, &options, &mut |_| Ok(()))?;
            Ok(())
        })
    }))
}
