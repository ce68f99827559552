//! Which parameters each loss reaches.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use lsgm_core::{
    Autoencoder, Decoder, Encoder, Group, LatentShape, Latents, Likelihood, ParamStore, Params, Pass, Posterior,
    Result, Rng,
};
use lsgm_nn::Linear;
use lsgm_prior::networks::UnetConfig;
use lsgm_prior::{NetworkConfig, Prior, PriorConfig, Weighting};

use super::{Loss, lsgm_loss, prior_loss, scalar, vae_loss};
use crate::config::{LsgmStage, VaeStage};
use crate::model::Model;

/// Points `[B, 3]`, two groups of one latent channel `[B, 1, 4]` each.
struct TwoGroups {
    encoders: [Linear; 2],
    decoder: Linear,
}

impl Encoder for TwoGroups {
    fn latent_shape(&self) -> LatentShape {
        LatentShape::line(2, 4)
    }

    fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
        let group = |encoder: &Linear| {
            let h = encoder.forward(x)?.reshape(((), 2, 4))?;
            Group::sample(h.narrow(1, 0, 1)?.contiguous()?, h.narrow(1, 1, 1)?.contiguous()?, false, pass.rng)
        };
        Ok(Posterior { groups: self.encoders.iter().map(group).collect::<Result<_>>()? })
    }
}

impl Decoder for TwoGroups {
    fn decode(&self, z: &Latents, _: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
        Ok(Box::new(Around(self.decoder.forward(&z.prior.flatten_from(1)?)?)))
    }
}

impl Autoencoder for TwoGroups {}

struct Around(Tensor);

impl Likelihood for Around {
    fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
        Ok(((x - &self.0)?.sqr()?.sum(1)? * -0.5)?)
    }

    fn sample(&self, _: f64, _: &mut Rng) -> Result<Tensor> {
        self.mean()
    }

    fn mean(&self) -> Result<Tensor> {
        Ok(self.0.clone())
    }
}

struct Bench {
    store: ParamStore,
    model: Model,
    frozen: Prior,
    x: Tensor,
}

impl Bench {
    fn new() -> Self {
        let unet = UnetConfig { channels: 8, channel_multipliers: vec![1], attention: vec![], ..UnetConfig::default() };
        let config = PriorConfig { alpha_init: 0.0, network: NetworkConfig::Unet(unet), ..PriorConfig::default() };
        let store = ParamStore::new(DType::F64, &Device::Cpu, Rng::new(1));
        let build = |params: &Params| -> Result<Model> {
            let encoder = |i: usize| Linear::new(3, 8, true, &params.pp("encoder").pp(i));
            let autoencoder = Box::new(TwoGroups {
                encoders: [encoder(0)?, encoder(1)?],
                decoder: Linear::new(8, 3, true, &params.pp("decoder"))?,
            });
            let prior = Prior::new(&config, autoencoder.latent_shape(), &params.pp("prior"))?;
            Ok(Model { autoencoder, prior })
        };
        let model = build(&store.root()).unwrap();
        let frozen = build(&store.frozen_root()).unwrap().prior;
        // Layers that start at zero would hide a path.
        let mut rng = Rng::new(2);
        for (_, var) in store.vars() {
            let noise = rng.normal_tensor(var.shape().clone(), DType::F64, &Device::Cpu).unwrap();
            var.set(&(var.as_tensor() + (noise * 0.2).unwrap()).unwrap()).unwrap();
        }
        let x = Rng::new(3).normal_tensor((6, 3), DType::F64, &Device::Cpu).unwrap();
        Self { store, model, frozen, x }
    }

    fn gradients(&self, loss: impl FnOnce(&mut Pass<'_>) -> Result<Loss>) -> BTreeMap<String, Vec<f64>> {
        let mut rng = Rng::new(4);
        let grads = loss(&mut Pass::train(&mut rng)).unwrap().total.backward().unwrap();
        let found = |(name, var): (String, candle_core::Var)| {
            let grad = grads.get(var.as_tensor())?.flatten_all().unwrap().to_vec1().unwrap();
            Some((name, grad))
        };
        self.store.vars().into_iter().filter_map(found).collect()
    }

    /// The bound under N(0, I), averaged over the last group, up to a constant.
    fn under_the_normal_prior(&self, pass: &mut Pass<'_>) -> Result<Loss> {
        let (posterior, likelihood) = self.model.autoencoder.reconstruct(&self.x, pass)?;
        let surprise = (posterior.conditional()?.square()?.sum((1, 2))? * 0.5)?;
        let bound = ((posterior.neg_entropy()? + surprise)? - likelihood.log_prob(&self.x)?)?;
        Ok(Loss { total: bound.mean_all()?, values: Vec::new() })
    }

    fn stage_two(&self, config: &LsgmStage, progress: f64) -> BTreeMap<String, Vec<f64>> {
        self.gradients(|pass| lsgm_loss(&self.model, &self.frozen, &self.x, config, progress, pass))
    }
}

/// The gradients of the part of the model whose names start with one of `prefixes`.
fn part(gradients: &BTreeMap<String, Vec<f64>>, prefixes: &[&str]) -> Vec<f64> {
    let of = |name: &String| prefixes.iter().any(|p| name.starts_with(p));
    gradients.iter().filter(|(name, _)| of(name)).flat_map(|(_, g)| g.clone()).collect()
}

fn off(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

const VAE: [&str; 2] = ["encoder.", "decoder."];

/// Stage 2 with a constant weight of entropy and cross entropy at its start.
fn stage(algorithm: u8, weighting: Weighting, kl_weight: f64) -> LsgmStage {
    LsgmStage { algorithm, weighting, kl_start: kl_weight, kl_annealing: 1.0, ..LsgmStage::default() }
}

#[test]
fn stage_one_and_a_frozen_autoencoder_have_their_own_parameters() {
    let bench = Bench::new();
    let config = VaeStage::default();
    let first = bench.gradients(|pass| vae_loss(&bench.model, &bench.x, &config, 0.0, pass));
    assert!(part(&first, &["prior."]).is_empty() && first.keys().any(|n| n.starts_with("encoder.")));
    let alone = bench.gradients(|pass| prior_loss(&bench.model, &bench.x, &stage(2, Weighting::UnIw, 1.0), pass));
    assert!(part(&alone, &VAE).is_empty() && alone.keys().any(|n| n.starts_with("prior.")));
}

#[test]
fn the_likelihood_loss_of_algorithms_two_and_three_never_touches_the_prior() {
    let bench = Bench::new();
    for algorithm in [2, 3] {
        let [half, none] = [0.5, 0.0].map(|w| bench.stage_two(&stage(algorithm, Weighting::UnIw, w), 0.0));
        assert_eq!(off(&part(&half, &["prior."]), &part(&none, &["prior."])), 0.0, "algorithm {algorithm}");
        assert!(part(&half, &["prior."]).iter().any(|g| g.abs() > 1e-3));
        assert!(off(&part(&half, &["encoder."]), &part(&none, &["encoder."])) > 1e-3);
    }
    // Under algorithm 1 there is one loss.
    let [half, none] = [0.5, 0.1].map(|w| bench.stage_two(&stage(1, Weighting::LlIw, w), 0.0));
    assert!(off(&part(&half, &["prior."]), &part(&none, &["prior."])) > 1e-3);
}

#[test]
fn the_unweighted_loss_never_touches_encoder_or_decoder() {
    let bench = Bench::new();
    // Without the likelihood terms, the autoencoder sees the reconstruction alone.
    let silent = VaeStage { kl_start: 0.0, kl_annealing: 1.0, ..VaeStage::default() };
    let reconstruction = part(&bench.gradients(|p| vae_loss(&bench.model, &bench.x, &silent, 0.0, p)), &VAE);
    for algorithm in [2, 3] {
        for weighting in [Weighting::UnIw, Weighting::UnUniform, Weighting::ReIw] {
            let found = bench.stage_two(&stage(algorithm, weighting, 0.0), 0.0);
            assert!(off(&part(&found, &VAE), &reconstruction) < 1e-12, "{algorithm} {weighting:?}");
            assert!(part(&found, &["prior."]).iter().any(|g| g.abs() > 1e-3));
        }
    }
    // Under algorithm 3 times of their own make the encoder's gradient the same whatever the prior is trained with.
    let [a, b] = [Weighting::UnIw, Weighting::ReUniform].map(|w| bench.stage_two(&stage(3, w, 1.0), 0.0));
    assert_eq!(off(&part(&a, &VAE), &part(&b, &VAE)), 0.0);
    assert!(off(&part(&a, &["prior."]), &part(&b, &["prior."])) > 1e-3);
}

#[test]
fn a_warm_up_leads_the_encoder_over_and_leaves_the_prior_alone() {
    let bench = Bench::new();
    let normal = part(&bench.gradients(|pass| bench.under_the_normal_prior(pass)), &["encoder."]);
    for (algorithm, weighting) in [(1, Weighting::LlIw), (2, Weighting::UnIw), (3, Weighting::UnIw)] {
        let config =
            |warmup| LsgmStage { algorithm, weighting, encoder_gradient_warmup: warmup, ..LsgmStage::default() };
        let at = |warmup, progress| bench.stage_two(&config(warmup), progress);
        let (start, middle, end, never) = (at(0.5, 0.0), at(0.5, 0.25), at(0.5, 0.5), at(0.0, 0.0));
        let encoder = |g: &BTreeMap<String, Vec<f64>>| part(g, &["encoder."]);
        // Up to the cut-off of the diffusion's time.
        let size = normal.iter().map(|g| g.abs()).fold(0.0, f64::max);
        assert!(off(&encoder(&start), &normal) < 2e-3 * size, "{} of {size}", off(&encoder(&start), &normal));
        assert_eq!(off(&encoder(&end), &encoder(&never)), 0.0);
        assert!(off(&encoder(&start), &encoder(&end)) > 1e-3);
        let half: Vec<f64> = encoder(&start).iter().zip(encoder(&end)).map(|(a, b)| 0.5 * (a + b)).collect();
        assert!(off(&encoder(&middle), &half) < 1e-10);
        assert!(off(&part(&start, &["prior."]), &part(&end, &["prior."])) < 1e-12);
    }
}

#[test]
fn balancing_moves_the_encoder_during_the_annealing_alone_and_no_reported_value() {
    let bench = Bench::new();
    let config = |kl_balance| LsgmStage { kl_balance, kl_start: 0.3, kl_annealing: 0.5, ..LsgmStage::default() };
    let run = |balance: bool, progress: f64| {
        let config = config(balance);
        let mut values = Vec::new();
        let grads = bench.gradients(|pass| {
            let loss = lsgm_loss(&bench.model, &bench.frozen, &bench.x, &config, progress, pass)?;
            values = loss.values.iter().map(|(name, v)| Ok((*name, scalar(v)?))).collect::<Result<Vec<_>>>()?;
            Ok(loss)
        });
        (grads, values)
    };
    let ((plain, values), (balanced, balanced_values)) = (run(false, 0.1), run(true, 0.1));
    assert!(off(&part(&plain, &["encoder."]), &part(&balanced, &["encoder."])) > 1e-3);
    for prefix in ["prior.", "decoder."] {
        assert!(off(&part(&plain, &[prefix]), &part(&balanced, &[prefix])) < 1e-12);
    }
    // All but the loss itself.
    for ((name, a), (_, b)) in values.iter().zip(&balanced_values).skip(1) {
        assert!((a - b).abs() < 1e-9, "{name}");
    }
    let (plain, balanced) = (run(false, 0.6).0, run(true, 0.6).0);
    assert_eq!(off(&part(&plain, &["encoder."]), &part(&balanced, &["encoder."])), 0.0);
}
