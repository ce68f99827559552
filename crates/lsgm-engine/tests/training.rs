//! The engine on a toy modality: items are points `[B, 3]`, latents `[B, 2, 2, 2]`, both maps linear.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{D, DType, Device, Tensor};
use lsgm_core::{
    Autoencoder, Auxiliary, Batch, Dataset, Decoder, Encoder, LatentShape, Latents, Likelihood, Params, Pass,
    Posterior, Result, Rng,
};
use lsgm_engine::{
    EvaluateConfig, Event, Interrupt, ModelSpec, Outcome, RunDir, SampleConfig, Stage, StageSelection, TrainConfig,
    Trainer, evaluate, interpolate, reconstruct, sample,
};
use lsgm_nn::ops::without_kernels;
use lsgm_nn::{Linear, Precision};
use lsgm_prior::solvers::Solver;
use lsgm_prior::{PriorConfig, Trace, Weighting};

struct Linearly {
    encoder: Linear,
    decoder: Linear,
}

impl Linearly {
    fn new(params: &Params) -> Result<Self> {
        Ok(Self {
            encoder: Linear::new(3, 16, true, &params.pp("encoder"))?,
            decoder: Linear::new(8, 3, true, &params.pp("decoder"))?,
        })
    }
}

impl Encoder for Linearly {
    fn latent_shape(&self) -> LatentShape {
        LatentShape::plane(2, 2, 2)
    }

    fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
        let h = self.encoder.forward(x)?.reshape(((), 4, 2, 2))?;
        Posterior::normal(h.narrow(1, 0, 2)?.contiguous()?, h.narrow(1, 2, 2)?.contiguous()?, pass.rng)
    }
}

impl Decoder for Linearly {
    fn decode(&self, z: &Latents, _: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
        Ok(Box::new(UnitNormal(self.decoder.forward(&z.prior.flatten_from(1)?)?)))
    }
}

impl Autoencoder for Linearly {}

struct UnitNormal(Tensor);

impl Likelihood for UnitNormal {
    fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
        let square = (x - &self.0)?.sqr()?.sum(D::Minus1)?;
        Ok(((square * -0.5)? - 1.5 * (2.0 * std::f64::consts::PI).ln())?)
    }

    fn sample(&self, temperature: f64, rng: &mut Rng) -> Result<Tensor> {
        let noise = rng.normal_tensor(self.0.shape().clone(), DType::F32, self.0.device())?;
        Ok((&self.0 + (noise * temperature)?)?)
    }

    fn mean(&self) -> Result<Tensor> {
        Ok(self.0.clone())
    }
}

/// Points around ±2; `poison` batches from the count-th on hold a NaN, `until` before that many. The first one is drawn to
/// check contracts.
#[derive(Default)]
struct Points {
    batches: AtomicUsize,
    poison: Option<(usize, usize)>,
}

impl Dataset for Points {
    fn len(&self) -> usize {
        64
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Batch> {
        let count = self.batches.fetch_add(1, Ordering::SeqCst);
        let mut values: Vec<f32> = Vec::new();
        for i in indices {
            let centre = if i % 2 == 0 { 2.0 } else { -2.0 };
            values.extend(rng.normals(3).into_iter().map(|v| centre + 0.3 * v));
        }
        if self.poison.is_some_and(|(from, until)| (from..until).contains(&count)) {
            values[0] = f32::NAN;
        }
        Ok(Batch { x: Tensor::from_vec(values, (indices.len(), 3), &Device::Cpu)?, labels: None })
    }
}

/// Items that are there already.
struct Drawn(Tensor);

impl Dataset for Drawn {
    fn len(&self) -> usize {
        self.0.dim(0).unwrap()
    }

    fn batch(&self, indices: &[usize], _: &mut Rng) -> Result<Batch> {
        let rows: Vec<u32> = indices.iter().map(|i| *i as u32).collect();
        Ok(Batch { x: self.0.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?, labels: None })
    }
}

fn spec() -> ModelSpec {
    let prior: PriorConfig =
        toml::from_str("network = { kind = \"unet\", channels = 8, channel_multipliers = [1], attention = [] }")
            .unwrap();
    ModelSpec { autoencoder: Arc::new(|p: &Params| Ok(Box::new(Linearly::new(p)?) as Box<dyn Autoencoder>)), prior }
}

fn config(vae_steps: u64, lsgm_steps: u64) -> TrainConfig {
    let mut c =
        TrainConfig { batch_size: 10, checkpoint_every: 5, log_every: 5, sample_count: 0, ..TrainConfig::default() };
    c.vae.steps = Some(vae_steps);
    c.lsgm.steps = Some(lsgm_steps);
    c
}

fn trainer(data: Points, config: TrainConfig, run: Option<RunDir>) -> Trainer {
    Trainer::new(spec(), config, SampleConfig::default(), Arc::new(data), &Device::Cpu, run).unwrap()
}

fn bits(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Vec<u32>> {
    let values =
        |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect();
    tensors.iter().map(|(k, t)| (k.clone(), values(t))).collect()
}

#[test]
fn an_interrupted_run_goes_on_bit_for_bit_in_both_stages() {
    let whole = {
        let mut t = trainer(Points::default(), config(12, 13), None);
        assert_eq!(t.run(StageSelection::All, &Interrupt::default(), &mut ()).unwrap(), Outcome::Done);
        t.checkpoint().unwrap()
    };
    for stop_at in [7, 12, 20] {
        let dir = tempfile::tempdir().unwrap();
        {
            let interrupt = Interrupt::default();
            let mut t = trainer(Points::default(), config(12, 13), Some(RunDir::create(dir.path()).unwrap()));
            let mut steps = 0;
            let mut observer = |event: &Event<'_>| {
                if let Event::Step(..) = event {
                    steps += 1;
                    if steps == stop_at {
                        interrupt.stop();
                    }
                }
                Ok(())
            };
            assert_eq!(t.run(StageSelection::All, &interrupt, &mut observer).unwrap(), Outcome::Interrupted);
        }
        let mut t = trainer(Points::default(), config(12, 13), Some(RunDir::open(dir.path()).unwrap()));
        t.resume().unwrap();
        assert_eq!(t.state().step, stop_at);
        t.run(StageSelection::All, &Interrupt::default(), &mut ()).unwrap();
        let resumed = t.checkpoint().unwrap();
        assert_eq!(bits(&resumed.model), bits(&whole.model), "stopped at {stop_at}");
        assert_eq!(bits(&resumed.ema), bits(&whole.ema));
        assert_eq!(resumed.state.rng, whole.state.rng);
        let events = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
        let steps: Vec<u64> = events
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["step"].as_u64().unwrap())
            .collect();
        assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
    }
}

#[test]
fn a_penalty_keeps_the_norms_of_the_prior_low_and_goes_on_where_it_was() {
    let penalised = |weight: f64| {
        let mut c = config(0, 30);
        c.lsgm.prior_regularizer = weight;
        c
    };
    let norms = |t: &Trainer| {
        let kernels = t.parameters().vars().into_iter().filter(|(name, _)| name.starts_with("prior.network."));
        let penalty = lsgm_nn::optim::NormPenalty::new(kernels, true).unwrap();
        penalty.value().unwrap().to_scalar::<f32>().unwrap()
    };
    let trained = |weight| {
        let mut t = trainer(Points::default(), penalised(weight), None);
        t.run(StageSelection::All, &Interrupt::default(), &mut ()).unwrap();
        t
    };
    let (free, held) = (trained(0.0), trained(10.0));
    assert!(norms(&held) < 0.95 * norms(&free), "{} {}", norms(&held), norms(&free));
    let whole = held.checkpoint().unwrap();
    let vectors = |c: &lsgm_engine::Checkpoint| c.optimizer.keys().filter(|k| k.starts_with("norms/")).count();
    assert!(vectors(&whole) > 0 && vectors(&free.checkpoint().unwrap()) == 0);

    let interrupt = Interrupt::default();
    let mut observer = |event: &Event<'_>| {
        if matches!(event, Event::Step(_, 12)) {
            interrupt.stop();
        }
        Ok(())
    };
    let mut first = trainer(Points::default(), penalised(10.0), None);
    assert_eq!(first.run(StageSelection::All, &interrupt, &mut observer).unwrap(), Outcome::Interrupted);
    let mut second = trainer(Points::default(), penalised(10.0), None);
    second.restore(&first.checkpoint().unwrap()).unwrap();
    second.run(StageSelection::All, &Interrupt::default(), &mut ()).unwrap();
    let resumed = second.checkpoint().unwrap();
    assert_eq!(bits(&resumed.model), bits(&whole.model));
    assert_eq!(bits(&resumed.optimizer), bits(&whole.optimizer));
}

#[test]
fn stage_one_leaves_the_prior_alone_and_stage_two_moves_everything() {
    let mut t = trainer(Points::default(), config(4, 4), None);
    let start = t.checkpoint().unwrap().model;
    t.run(StageSelection::Vae, &Interrupt::default(), &mut ()).unwrap();
    assert_eq!(t.state().stage, Stage::Lsgm);
    let middle = t.checkpoint().unwrap().model;
    t.run(StageSelection::Lsgm, &Interrupt::default(), &mut ()).unwrap();
    let end = t.checkpoint().unwrap().model;
    let (start, middle, end) = (bits(&start), bits(&middle), bits(&end));
    for name in start.keys() {
        let prior = name.starts_with("prior.");
        assert_eq!(start[name] == middle[name], prior, "{name} in stage 1");
    }
    assert!(start.keys().any(|n| n.starts_with("prior.") && middle[n] != end[n]));
    assert!(start.keys().filter(|n| !n.starts_with("prior.")).all(|n| middle[n] != end[n]));
}

#[test]
fn algorithms_two_and_three_train_everything_and_a_frozen_autoencoder_stays() {
    let trained = |change: fn(&mut TrainConfig)| {
        let mut c = config(0, 60);
        change(&mut c);
        let mut t = trainer(Points::default(), c, None);
        let start = bits(&t.checkpoint().unwrap().model);
        let mut losses = Vec::new();
        let mut observer = |event: &Event<'_>| {
            if let Event::Metrics(m) = event {
                losses.push(m.values["loss"]);
            }
            Ok(())
        };
        t.run(StageSelection::All, &Interrupt::default(), &mut observer).unwrap();
        let end = bits(&t.checkpoint().unwrap().model);
        (start.into_iter().map(|(k, v)| (v != end[&k], k)).collect::<Vec<_>>(), losses)
    };
    for change in [
        (|c| (c.lsgm.algorithm, c.lsgm.weighting) = (2, Weighting::UnIw)) as fn(&mut TrainConfig),
        |c| (c.lsgm.algorithm, c.lsgm.weighting) = (3, Weighting::ReIw),
        |c| (c.lsgm.algorithm, c.lsgm.averaged_prior) = (3, true),
    ] {
        let (moved, losses) = trained(change);
        for part in ["encoder.", "decoder.", "prior."] {
            assert!(moved.iter().any(|(moved, name)| *moved && name.starts_with(part)), "{part}");
        }
        assert!(losses[losses.len() - 1] < losses[0] - 1.0, "{losses:?}");
    }
    let (moved, _) = trained(|c| (c.lsgm.prior_only, c.lsgm.weighting) = (true, Weighting::UnIw));
    assert!(moved.iter().all(|(moved, name)| !moved || name.starts_with("prior.")));
    assert!(moved.iter().any(|(moved, _)| *moved));
}

/// What an autoencoder that is trained no further has learned counts as it is evaluated: averaged.
#[test]
fn a_prior_is_trained_on_the_encoder_that_is_evaluated() {
    let mut c = config(20, 3);
    c.lsgm.prior_only = true;
    let mut t = trainer(Points::default(), c, None);
    t.run(StageSelection::All, &Interrupt::default(), &mut ()).unwrap();
    let end = t.checkpoint().unwrap();
    let of_autoencoder = |tensors: &BTreeMap<String, Tensor>| -> BTreeMap<_, _> {
        bits(tensors).into_iter().filter(|(name, _)| !name.starts_with("prior.")).collect()
    };
    assert_eq!(of_autoencoder(&end.model), of_autoencoder(&end.ema));
}

/// However long stage 1 was, the average of the prior soon forgets where the prior started.
#[test]
fn averages_of_the_prior_start_with_a_short_memory() {
    let mut c = config(150, 3);
    c.ema_decay = 0.999;
    let mut t = trainer(Points::default(), c, None);
    let of_prior = |tensors: &BTreeMap<String, Tensor>| -> BTreeMap<String, Tensor> {
        tensors
            .iter()
            .filter(|(name, _)| name.starts_with("prior."))
            .map(|(k, v)| (k.clone(), v.copy().unwrap()))
            .collect()
    };
    let start = of_prior(&t.checkpoint().unwrap().model);
    t.run(StageSelection::All, &Interrupt::default(), &mut ()).unwrap();
    let end = t.checkpoint().unwrap();
    let (moved, averaged) =
        (largest_difference(&of_prior(&end.model), &start), largest_difference(&of_prior(&end.ema), &start));
    assert!(averaged > 0.5 * moved && moved > 0.0, "{averaged} of {moved}");
}

#[test]
fn a_sheet_that_cannot_be_drawn_does_not_stop_the_training() {
    let mut c = config(2, 2);
    c.sample_count = 2;
    let sampling = SampleConfig { temperature: 1e300, ..SampleConfig::default() };
    let mut t = Trainer::new(spec(), c, sampling, Arc::new(Points::default()), &Device::Cpu, None).unwrap();
    let mut missing = Vec::new();
    let mut observer = |event: &Event<'_>| {
        if let Event::NoSamples(stage, step, error) = event {
            missing.push((*stage, *step, error.to_string()));
        }
        Ok(())
    };
    assert_eq!(t.run(StageSelection::All, &Interrupt::default(), &mut observer).unwrap(), Outcome::Done);
    assert!(matches!(missing.as_slice(), [(Stage::Lsgm, 4, _)]), "{missing:?}");
}

/// Before stage 2 has made a step, a mixture knows where the encoder puts things.
#[test]
fn a_mixture_starts_from_the_latents_of_stage_one() {
    let mut spec = spec();
    spec.prior = toml::from_str(
        "alpha_init = 5.0\n[network]\nkind = \"mixture\"\ncomponents = 8\n\
         [network.transformer]\nchannels = 8\nblocks = 1\nheads = 1\nembedding = 8",
    )
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let mut config = config(150, 5);
    config.ema_decay = 0.9;
    let data = Arc::new(Points::default());
    let mut t = Trainer::new(spec, config, SampleConfig::default(), data.clone(), &Device::Cpu, Some(run)).unwrap();
    let gain = |t: &Trainer| {
        let model = t.averaged_model().unwrap();
        let config = EvaluateConfig { ode_items: 0, ..EvaluateConfig::default() };
        evaluate(&model, data.as_ref(), 3, None, &config, &Device::Cpu, &mut |_| {}).unwrap().gain.mean
    };
    let before = gain(&t);
    t.run(StageSelection::Vae, &Interrupt::default(), &mut ()).unwrap();
    assert!(gain(&t) > before + 0.5, "{} {before}", gain(&t));
    let saved = t.checkpoint().unwrap();
    for name in ["prior.network.means", "prior.network.log_variance", "prior.network.log_shares"] {
        let values = |map: &BTreeMap<String, Tensor>| map[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&saved.model), values(&saved.ema), "{name}");
    }
}

/// Of the two channels the second says nothing: its weights are zero, and stage 1 has no steps to change that.
#[test]
fn inactive_channels_are_masked_when_stage_one_ends_and_stay_so_in_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec();
    spec.prior.mask_inactive = true;
    let trainer = |run: RunDir| {
        let data = Arc::new(Points::default());
        Trainer::new(spec.clone(), config(0, 6), SampleConfig::default(), data, &Device::Cpu, Some(run)).unwrap()
    };
    let mut t = trainer(RunDir::create(dir.path()).unwrap());
    for (name, var) in t.parameters().vars() {
        // Rows of mu and log sigma of the second channel: 4 to 8 and 12 to 16.
        if name.starts_with("encoder.") {
            let row = |i: usize| if (i / 4).is_multiple_of(2) { 1f32 } else { 0.0 };
            let rows: Vec<f32> = (0..16).map(row).collect();
            let mask = Tensor::from_vec(rows, 16, &Device::Cpu).unwrap();
            let mask = if var.rank() == 2 { mask.unsqueeze(1).unwrap() } else { mask };
            var.set(&var.as_tensor().broadcast_mul(&mask).unwrap()).unwrap();
        }
    }
    let mut masked = Vec::new();
    let mut observer = |event: &Event<'_>| {
        if let Event::Masked { active } = event {
            masked.push(active.to_vec());
        }
        Ok(())
    };
    t.run(StageSelection::All, &Interrupt::default(), &mut observer).unwrap();
    assert_eq!(masked, [[true, false]]);
    drop(t);
    let mut again = trainer(RunDir::open(dir.path()).unwrap());
    again.resume().unwrap();
    for tensors in [again.checkpoint().unwrap().model, again.checkpoint().unwrap().ema] {
        assert_eq!(tensors["prior.active_channels"].flatten_all().unwrap().to_vec1::<f32>().unwrap(), [1.0, 0.0]);
    }
    let alpha = again.averaged_model().unwrap().prior.alpha().unwrap();
    assert!(alpha[0] > 0.0 && alpha[1] == 0.0);
    let events = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
    assert!(events.contains("\"active_channels\":[true,false]"), "{events}");

    let mut deaf = config(0, 1);
    deaf.vae.inactive_kl = 1e6;
    let data = Arc::new(Points::default());
    let mut t = Trainer::new(spec.clone(), deaf, SampleConfig::default(), data, &Device::Cpu, None).unwrap();
    let message = t.run(StageSelection::All, &Interrupt::default(), &mut ()).unwrap_err().to_string();
    assert!(message.contains("train.vae.inactive_kl") && message.contains("nothing is left"), "{message}");
}

#[test]
fn a_time_limit_is_shared_as_the_stages_are() {
    let mut c = config(30, 10);
    c.limit_time(std::time::Duration::from_secs(8), StageSelection::All).unwrap();
    assert_eq!((c.vae.time_budget.as_deref(), c.lsgm.time_budget.as_deref()), (Some("6000ms"), Some("2000ms")));
    c.limit_time(std::time::Duration::from_secs(5), StageSelection::Lsgm).unwrap();
    let mut none = config(0, 1);
    (none.lsgm.steps, none.lsgm.epochs) = (None, Some(3.0));
    none.limit_time(std::time::Duration::from_secs(4), StageSelection::All).unwrap();
    assert_eq!((none.vae.time_budget.as_deref(), none.lsgm.time_budget.as_deref()), (Some("0ms"), Some("4000ms")));
    assert_eq!((c.vae.time_budget.as_deref(), c.lsgm.time_budget.as_deref()), (Some("6000ms"), Some("5000ms")));
    c.validate().unwrap();
}

#[test]
fn a_passing_nan_is_rolled_back_and_a_lasting_one_is_an_error() {
    let mut rollbacks = Vec::new();
    let mut t = trainer(Points { poison: Some((8, 10)), ..Points::default() }, config(20, 0), None);
    let mut observer = |event: &Event<'_>| {
        if let Event::RolledBack { from, to, learning_rate_scale, .. } = event {
            rollbacks.push((*from, *to, *learning_rate_scale));
        }
        Ok(())
    };
    assert_eq!(t.run(StageSelection::Vae, &Interrupt::default(), &mut observer).unwrap(), Outcome::Done);
    assert_eq!(rollbacks, [(8, 5, 0.5), (6, 5, 0.25)]);
    assert!(t.parameters().tensors().values().all(|v| v.sum_all().unwrap().to_scalar::<f32>().unwrap().is_finite()));

    let mut t = trainer(Points { poison: Some((8, usize::MAX)), ..Points::default() }, config(20, 0), None);
    let message = t.run(StageSelection::Vae, &Interrupt::default(), &mut ()).unwrap_err().to_string();
    assert!(message.contains("NaN at step 6, after 4 retries"), "{message}");
}

#[test]
fn a_trained_model_is_evaluated_sampled_and_interpolated() {
    let mut t = trainer(Points::default(), config(150, 150), None);
    let frozen = t.averaged_model().unwrap();
    let evaluation = EvaluateConfig { batch_size: 16, ode_items: 32, time_samples: 16, ..EvaluateConfig::default() };
    let eval = || evaluate(&frozen, &Points::default(), 3, Some(48), &evaluation, &Device::Cpu, &mut |_| {}).unwrap();
    let before = eval();
    t.run(StageSelection::All, &Interrupt::default(), &mut ()).unwrap();
    let after = eval();
    // The averaged model shares the trainer's averaged weights: no copy, no swap.
    assert!(after.nelbo.mean < before.nelbo.mean - 1.0, "{} {}", before.nelbo.mean, after.nelbo.mean);
    assert_eq!((after.n, after.ode.as_ref().unwrap().n), (48, 32));
    let ode = after.ode.unwrap();
    // Next to no noise of times and none of probes: what is left is how far the two bounds are apart.
    let fine = EvaluateConfig { time_samples: 512, ode_trace: Trace::Exact, ..evaluation.clone() };
    let fine =
        evaluate(&frozen, &Points::default(), 3, Some(48), &fine, &Device::Cpu, &mut |_| {}).unwrap().ode.unwrap();
    assert!((fine.nelbo_ode.mean - fine.nelbo_same_items.mean).abs() < 0.5, "{fine:?}");
    assert!((after.gain.mean - (after.nelbo_normal_prior.mean - after.nelbo.mean)).abs() < 1e-9);
    assert!(ode.probe_stderr.is_none(), "one probe has no spread");
    let traced = |ode_trace, ode_probes| {
        let config = EvaluateConfig { ode_trace, ode_probes, ..evaluation.clone() };
        let found = evaluate(&frozen, &Points::default(), 3, Some(48), &config, &Device::Cpu, &mut |_| {}).unwrap();
        let ode = found.ode.unwrap();
        (ode.nelbo_ode.mean, ode.probe_stderr.unwrap())
    };
    let (exact, none) = traced(Trace::Exact, 1);
    assert_eq!(none, 0.0);
    for trace in [Trace::Rademacher, Trace::Gaussian] {
        let (estimate, error) = traced(trace, 4);
        assert!(error > 0.0 && (estimate - exact).abs() < 4.0 * error, "{trace:?}: {estimate} {exact} {error}");
    }

    let mut rng = Rng::new(4);
    let config = SampleConfig { batch_size: 3, ..SampleConfig::default() };
    let samples = sample(&frozen, 7, &config, &Device::Cpu, &mut rng, &mut |_| {}).unwrap();
    assert_eq!((samples.items.dims(), samples.latents.dims()), (&[7, 3][..], &[7, 2, 2, 2][..]));
    // Of several candidates those are kept that the prior finds less surprising.
    let surprise = |candidates| {
        let config = SampleConfig { candidates, mean: false, decoder_temperature: 0.0, ..SampleConfig::default() };
        let drawn = sample(&frozen, 32, &config, &Device::Cpu, &mut Rng::new(5), &mut |_| {}).unwrap();
        assert_eq!((drawn.items.dims(), drawn.latents.dims()), (&[32, 3][..], &[32, 2, 2, 2][..]));
        let z0 = drawn.latents.clone().into();
        let decoded = frozen.autoencoder.decode(&z0, &mut Pass::eval(&mut Rng::new(0))).unwrap().mean().unwrap();
        let apart = (&drawn.items - decoded).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(apart < 1e-5, "items are those of their latents");
        let found = evaluate(&frozen, &Drawn(drawn.items), 3, None, &evaluation, &Device::Cpu, &mut |_| {}).unwrap();
        (found.cross_entropy.mean + found.neg_entropy.mean, drawn.nfe)
    };
    let ((one, nfe), (best, nfe_of_all)) = (surprise(1), surprise(6));
    assert!(best < one - 0.5 && nfe_of_all > 4.0 * nfe, "{one} {best} {nfe} {nfe_of_all}");
    let x = Points::default().batch(&[0, 1], &mut rng).unwrap().x;
    let pairs = reconstruct(&frozen, &x, &config, &mut rng).unwrap();
    assert_eq!(pairs.dims(), [4, 3]);
    assert_eq!(pairs.get(2).unwrap().to_vec1::<f32>().unwrap(), x.get(1).unwrap().to_vec1::<f32>().unwrap());
    let paths =
        interpolate(&frozen, &x.narrow(0, 0, 1).unwrap(), &x.narrow(0, 1, 1).unwrap(), 5, &config, &mut rng).unwrap();
    assert_eq!(paths.items.dims(), [5, 3]);
}

#[test]
fn configs_that_cannot_work_are_refused_with_the_key() {
    let refused = |change: fn(&mut TrainConfig)| {
        let mut c = config(1, 1);
        change(&mut c);
        c.validate().unwrap_err().to_string()
    };
    assert!(refused(|c| c.batch_size = 0).contains("train.batch_size"));
    assert!(refused(|c| c.vae.learning_rate = f64::NAN).contains("train.vae.learning_rate"));
    assert!(refused(|c| c.vae.epochs = Some(1.0)).contains("exactly one"));
    assert!(refused(|c| c.lsgm.steps = None).contains("train.lsgm"));
    assert!(refused(|c| c.lsgm.warmup = 1.5).contains("train.lsgm.warmup"));
    assert!(refused(|c| c.lsgm.algorithm = 4).contains("use 1, 2 or 3"));
    assert!(refused(|c| c.lsgm.weighting = Weighting::UnIw).contains("algorithm 1 needs"));
    assert!(refused(|c| c.lsgm.encoder_weighting = Weighting::ReIw).contains("encoder_weighting"));
    assert!(refused(|c| c.vae.free_bits = -1.0).contains("train.vae.free_bits"));
    assert!(refused(|c| c.vae.inactive_kl = f64::NAN).contains("train.vae.inactive_kl"));
    assert!(
        refused(|c| (c.vae.regularizer_start, c.vae.kl_annealing) = (Some(1.0), 0.0)).contains("regularizer_start")
    );
    assert!(refused(|c| c.lsgm.kl_balance = true).contains("give kl_annealing"));
    assert!(refused(|c| c.lsgm.prior_regularizer = -1.0).contains("train.lsgm.prior_regularizer"));
    assert!(refused(|c| c.lsgm.vae_final_ratio = Some(1.5)).contains("train.lsgm.vae_final_ratio"));
    assert!(refused(|c| c.lsgm.encoder_gradient_warmup = 2.0).contains("train.lsgm.encoder_gradient_warmup"));
    let mut c = config(1, 1);
    (c.vae.steps, c.vae.time_budget) = (None, Some("5 minutes".into()));
    assert!(c.validate().unwrap_err().to_string().contains("`5 minutes` is not a duration"));

    let prior: PriorConfig = toml::from_str("sde = { kind = \"geometric\" }\nt_eps = 0.0").unwrap();
    let mut c = config(1, 1);
    (c.lsgm.algorithm, c.lsgm.weighting) = (2, Weighting::UnIw);
    assert!(c.lsgm.validate_with(&prior).unwrap_err().to_string().contains("train.lsgm.weighting"));
    let prior: PriorConfig = toml::from_str("network = { kind = \"transformer\" }").unwrap();
    let mut c = config(1, 1);
    c.lsgm.prior_regularizer = 1e-2;
    assert!(c.lsgm.validate_with(&prior).unwrap_err().to_string().contains("this prior.network has none"));
    let prior: PriorConfig = toml::from_str("network = { kind = \"mixture\" }").unwrap();
    let mut c = config(1, 1);
    c.precision = Precision::Tf32;
    assert!(c.validate_with(&prior).unwrap_err().to_string().contains("train.precision"));
    c.precision = Precision::Bf16;
    c.validate_with(&prior).unwrap();
    let refused = |change: fn(&mut SampleConfig)| {
        let mut c = SampleConfig::default();
        change(&mut c);
        c.validate().and_then(|()| c.validate_with(&PriorConfig::default())).unwrap_err().to_string()
    };
    assert!(refused(|c| (c.solver, c.tolerance) = (Solver::Heun, 0.0)).contains("sample.tolerance"));
    assert!(refused(|c| c.decoder_temperature = 0.5).contains("sample.mean = false"));
    assert!(refused(|c| c.context_below = 0.5).contains("without `sample.context`"));
    assert!(refused(|c| c.t_eps = Some(1.0)).contains("sample.t_eps"));
    assert!(refused(|c| c.candidates = 0).contains("sample.candidates"));
    assert!(refused(|c| (c.solver, c.precision) = (Solver::Rk45, Precision::Bf16)).contains("sample.precision"));
}

/// What a toy model has beside encoder and decoder.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    /// A term beside the bound.
    Term,
    /// An item with a first number above 0 is a thousand times as much as another.
    Extent,
}

struct With(Beside, Linearly);

impl Encoder for With {
    fn latent_shape(&self) -> LatentShape {
        self.1.latent_shape()
    }

    fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
        self.1.encode(x, pass)
    }
}

impl Decoder for With {
    fn decode(&self, z: &Latents, pass: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
        self.1.decode(z, pass)
    }
}

impl Autoencoder for With {
    fn extent(&self, x: &Tensor) -> Result<Option<Tensor>> {
        if self.0 != Beside::Extent {
            return Ok(None);
        }
        let above = x.narrow(1, 0, 1)?.squeeze(1)?.gt(0.0)?.to_dtype(DType::F32)?;
        Ok(Some(((above * 999.0)? + 1.0)?))
    }

    fn auxiliary(&self, x: &Tensor, likelihood: &dyn Likelihood) -> Result<Vec<Auxiliary>> {
        if self.0 != Beside::Term {
            return Ok(Vec::new());
        }
        let loss = ((likelihood.mean()? - x)?.abs()?.mean_all()? * 100.0)?;
        Ok(vec![Auxiliary { name: "distance", loss }])
    }
}

#[test]
fn a_choice_of_candidates_holds_nats_against_the_extent() {
    let build = |p: &Params| Ok(Box::new(With(Beside::Extent, Linearly::new(p)?)) as Box<dyn Autoencoder>);
    let spec = ModelSpec { autoencoder: Arc::new(build), ..spec() };
    let data = Arc::new(Points::default());
    let t = Trainer::new(spec, config(1, 1), SampleConfig::default(), data, &Device::Cpu, None).unwrap();
    let above = |candidates| {
        let config = SampleConfig { candidates, ..SampleConfig::default() };
        let model = t.averaged_model().unwrap();
        let drawn = sample(&model, 40, &config, &Device::Cpu, &mut Rng::new(5), &mut |_| {}).unwrap();
        drawn.items.to_vec2::<f32>().unwrap().iter().filter(|item| item[0] > 0.0).count()
    };
    let (one, best) = (above(1), above(8));
    assert!((8..=32).contains(&one) && best == 40, "{one} {best}");
}

/// A term beside the bound is logged under its name, moves the weights, and is no part of the bound's own figures.
#[test]
fn a_term_beside_the_bound_is_trained_and_told_apart() {
    let run = |with_term: bool| {
        let build = move |p: &Params| {
            let plain = Linearly::new(p)?;
            Ok(if with_term { Box::new(With(Beside::Term, plain)) as Box<dyn Autoencoder> } else { Box::new(plain) })
        };
        let spec = ModelSpec { autoencoder: Arc::new(build), ..spec() };
        let data = Arc::new(Points::default());
        let sampling = SampleConfig::default();
        let mut trainer = Trainer::new(spec, config(10, 10), sampling, data, &Device::Cpu, None).unwrap();
        let mut figures = Vec::new();
        let mut observer = |event: &Event<'_>| {
            if let Event::Metrics(m) = event {
                figures.push(m.values.clone());
            }
            Ok(())
        };
        trainer.run(StageSelection::All, &Interrupt::default(), &mut observer).unwrap();
        (figures, bits(&trainer.parameters().tensors()))
    };
    let ((with, weights), (without, plain)) = (run(true), run(false));
    for figures in &with {
        assert!(figures["distance"] > 0.0 && figures["distance"].is_finite());
        let parts = ["reconstruction", "kl", "neg_entropy", "cross_entropy"];
        let bound: f64 = parts.iter().filter_map(|p| figures.get(*p)).sum();
        let named = figures.get("nelbo").or_else(|| figures.get("nelbo_normal_prior")).copied().unwrap();
        assert!((named - bound).abs() < 1e-3 * bound.abs().max(1.0), "{figures:?}");
    }
    assert!(without.iter().all(|figures| !figures.contains_key("distance")));
    assert_ne!(weights, plain);
}

/// The largest difference of two sets of parameters.
fn largest_difference(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> f32 {
    assert!(a.keys().eq(b.keys()));
    let differences = a.values().zip(b.values()).map(|(a, b)| (a - b).unwrap().abs().unwrap().max_all().unwrap());
    differences.fold(0.0, |largest, d| largest.max(d.to_scalar::<f32>().unwrap()))
}

/// With one group of latents and no batch norm, parts of a batch draw the noise of the whole one after the other.
#[test]
fn the_parts_of_a_batch_add_up_to_it() {
    let run = |accumulate: usize| {
        let mut figures = Vec::new();
        let config = TrainConfig { accumulate, log_every: 1, ..config(3, 0) };
        let mut t = trainer(Points::default(), config, None);
        let mut observer = |event: &Event<'_>| {
            if let Event::Metrics(m) = event {
                figures.push((m.values["loss"], m.values["gradient_norm"]));
            }
            Ok(())
        };
        t.run(StageSelection::Vae, &Interrupt::default(), &mut observer).unwrap();
        (t.parameters().tensors(), figures)
    };
    let (whole, figures) = run(1);
    // Five parts of two items; three of four, four and two.
    for parts in [2, 5, 3] {
        let (tensors, of_parts) = run(parts);
        assert!(largest_difference(&whole, &tensors) < 1e-4, "{parts} parts");
        for ((loss, norm), (l, n)) in figures.iter().zip(&of_parts) {
            assert!((loss - l).abs() < 1e-4 * loss.abs() && (norm - n).abs() < 1e-4 * norm, "{parts} parts");
        }
    }
}

/// A penalty so strong that nothing else counts.
#[test]
fn the_penalty_counts_once_however_many_parts_a_batch_has() {
    let norm = |accumulate: usize, prior_only: bool| {
        let mut found = 0.0;
        let mut config = TrainConfig { accumulate, log_every: 1, ..config(0, 1) };
        (config.lsgm.prior_regularizer, config.lsgm.prior_only) = (1e6, prior_only);
        let mut observer = |event: &Event<'_>| {
            if let Event::Metrics(m) = event {
                found = m.values["prior_gradient_norm"];
            }
            Ok(())
        };
        let mut t = trainer(Points::default(), config, None);
        t.run(StageSelection::All, &Interrupt::default(), &mut observer).unwrap();
        found
    };
    let whole = norm(1, false);
    assert!(whole > 1e6);
    for (parts, prior_only) in [(2, false), (5, false), (1, true), (3, true)] {
        let found = norm(parts, prior_only);
        assert!((found - whole).abs() < 1e-3 * whole, "{parts} parts: {found} {whole}");
    }
}

/// Where the host does not wait for the device: the same training, looked at when something is logged.
#[test]
fn a_device_without_kernels_trains_the_same_model() {
    let run = || {
        let mut t = trainer(Points::default(), config(7, 8), None);
        let mut figures = Vec::new();
        let mut observer = |event: &Event<'_>| {
            if let Event::Metrics(m) = event {
                figures.push(m.values.clone());
            }
            Ok(())
        };
        t.run(StageSelection::All, &Interrupt::default(), &mut observer).unwrap();
        (t.parameters().tensors(), figures)
    };
    let ((tensors, figures), (composed, composed_figures)) = (run(), without_kernels(run));
    assert!(largest_difference(&tensors, &composed) < 1e-3, "{}", largest_difference(&tensors, &composed));
    assert_eq!(figures.len(), composed_figures.len());
    for (a, b) in figures.iter().zip(&composed_figures) {
        assert!(a.keys().eq(b.keys()));
        for (name, value) in a {
            assert!((value - b[name]).abs() < 1e-3 * value.abs().max(1e-2), "{name}: {value} against {}", b[name]);
        }
    }
}

/// A value that is not finite is noticed late there, and nothing is kept that rests on it.
#[test]
fn a_late_look_rolls_back_to_the_same_checkpoint() {
    without_kernels(|| {
        let mut rollbacks = Vec::new();
        let mut t = trainer(Points { poison: Some((8, 9)), ..Points::default() }, config(13, 0), None);
        let mut observer = |event: &Event<'_>| {
            if let Event::RolledBack { from, to, what, .. } = event {
                rollbacks.push((*from, *to, what.clone()));
            }
            Ok(())
        };
        assert_eq!(t.run(StageSelection::Vae, &Interrupt::default(), &mut observer).unwrap(), Outcome::Done);
        // Step 8 saw the value, and the log of step 10 looked.
        assert_eq!(rollbacks, [(10, 5, "loss = NaN".to_owned())]);
        assert!(largest_difference(&t.parameters().tensors(), &t.parameters().tensors()).is_finite());
        // One in the very last steps, after the last log.
        let mut t = trainer(Points { poison: Some((12, 13)), ..Points::default() }, config(12, 0), None);
        assert_eq!(t.run(StageSelection::Vae, &Interrupt::default(), &mut ()).unwrap(), Outcome::Done);
        assert_eq!(t.state().rollbacks, 1);
        assert!(largest_difference(&t.parameters().tensors(), &t.parameters().tensors()).is_finite());
    });
}
