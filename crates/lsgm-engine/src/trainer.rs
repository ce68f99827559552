mod prepare;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};
use lsgm_core::{Dataset, Error, ParamStore, Pass, Result, Rng};
use lsgm_nn::ops::is_synchronous;
use lsgm_nn::optim::{Ema, GradientScale, Gradients, NormPenalty, Optimizer, OptimizerConfig};
use lsgm_nn::{backward, gpu, with_checkpoints, with_precision};
use lsgm_prior::Prior;

use crate::budget::Budget;
use crate::config::{SampleConfig, TrainConfig};
use crate::contract::Candidate;
use crate::events::{Event, Interrupt, Meter, Metrics, Observer};
use crate::losses::{Loss, lsgm_loss, prior_loss, vae_loss};
use crate::model::{Model, ModelSpec};
use crate::order::Order;
use crate::run_dir::{Checkpoint, RunDir};
use crate::sample::sample;
use crate::snapshot::capture;
use crate::state::{Stage, TrainState};

/// Which stages a call of [`Trainer::run`] works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StageSelection {
    /// Stage 1 and stop.
    Vae,
    /// Stage 2; stage 1 must be done.
    Lsgm,
    /// Everything that is left.
    #[default]
    All,
}

/// How a call of [`Trainer::run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The selected stages are done.
    Done,
    /// An [`Interrupt`] stopped it; the state was saved.
    Interrupted,
}

/// The parameters that one optimizer moves, and their averages.
struct Part {
    optimizer: Optimizer,
    averages: Vec<(String, Var)>,
}

/// Trains a model through its stages.
pub struct Trainer {
    spec: ModelSpec,
    config: TrainConfig,
    sampling: SampleConfig,
    data: Arc<dyn Dataset>,
    device: Device,
    run: Option<RunDir>,
    store: ParamStore,
    ema: ParamStore,
    model: Model,
    /// What algorithm 3 trains the encoder against: the prior's weights, or their average, without a way back.
    frozen_prior: Prior,
    optimizers: BTreeMap<&'static str, Part>,
    /// Where `train.lsgm.prior_regularizer` asks for it.
    prior_penalty: Option<NormPenalty>,
    order: Order,
    rng: Rng,
    state: TrainState,
    budgets: (Budget, Budget),
}

/// The set in the memory of a GPU, or as it is where that cannot be.
fn on_device(data: Arc<dyn Dataset>, device: &Device) -> Result<Arc<dyn Dataset>> {
    let limit = gpu::of(device).map_or(0, |gpu| (gpu.free + gpu.kept) / 4);
    let resident = if limit > 0 { data.resident(device, limit)? } else { None };
    Ok(resident.map_or(data, Arc::from))
}

impl Trainer {
    /// A trainer with freshly initialised weights. Without a run directory nothing is written.
    ///
    /// # Errors
    /// When a config value cannot be used, the data set is empty, or the model breaks a contract.
    pub fn new(
        spec: ModelSpec,
        config: TrainConfig,
        sampling: SampleConfig,
        data: Arc<dyn Dataset>,
        device: &Device,
        run: Option<RunDir>,
    ) -> Result<Self> {
        config.validate()?;
        config.validate_with(&spec.prior)?;
        sampling.validate()?;
        sampling.validate_with(&spec.prior)?;
        if data.is_empty() {
            let message = "the training split has no items: `Dataset::len` is 0";
            return Err(Error::config("data", message));
        }
        gpu::check_precision(device, config.precision, "train.precision")?;
        let data = if config.resident { on_device(data, device)? } else { data };
        let root = Rng::new(config.seed);
        let store = ParamStore::new(DType::F32, device, root.fork("parameters"));
        let model = spec.build(&store.root())?;
        let ema = store.deep_copy()?;
        let frozen = if config.lsgm.averaged_prior { &ema } else { &store };
        let frozen_prior = Prior::new(&spec.prior, model.latent_shape(), &frozen.frozen_root().pp("prior"))?;
        let prior_penalty = prior_penalty(&config, &store)?;
        let rng = root.fork("training");
        let steps_per_epoch = data.len() as f64 / config.batch_size as f64;
        let budgets = (config.vae.budget()?.resolve(steps_per_epoch), config.lsgm.budget()?.resolve(steps_per_epoch));
        let mut trainer = Self {
            order: Order::new(&root, data.len()),
            state: TrainState::new(rng.state()),
            device: device.clone(),
            optimizers: BTreeMap::new(),
            prior_penalty,
            spec,
            config,
            sampling,
            data,
            run,
            store,
            ema,
            model,
            frozen_prior,
            rng,
            budgets,
        };
        trainer.optimizers = trainer.fresh_optimizers(Stage::Vae)?;
        Ok(trainer)
    }

    /// Go on from a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint belongs to another architecture; the message lists the tensors that differ.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.store.load(&checkpoint.model)?;
        self.ema.load(&checkpoint.ema)?;
        self.state = checkpoint.state.clone();
        self.rng = Rng::restore(&checkpoint.state.rng)?;
        self.optimizers = self.fresh_optimizers(checkpoint.state.stage)?;
        for (name, part) in &mut self.optimizers {
            let Some(steps) = checkpoint.state.optimizer_steps.get(*name) else { continue };
            part.optimizer.restore(&under(name, &checkpoint.optimizer), *steps)?;
        }
        if let Some(penalty) = &self.prior_penalty {
            penalty.restore(&under(PENALTY, &checkpoint.optimizer))?;
        }
        Ok(())
    }

    /// Go on from the latest checkpoint of the run directory.
    ///
    /// # Errors
    /// As [`Trainer::restore`], and when there is no run directory or its files cannot be read.
    pub fn resume(&mut self) -> Result<()> {
        let run =
            self.run.as_ref().ok_or_else(|| Error::config("train", "there is no run directory to resume from"))?;
        let checkpoint = run.load(&self.device)?;
        run.truncate_events(checkpoint.state.events_bytes)?;
        self.restore(&checkpoint)
    }

    /// Counters and clocks.
    pub fn state(&self) -> &TrainState {
        &self.state
    }

    /// The trained weights.
    pub fn parameters(&self) -> &ParamStore {
        &self.store
    }

    /// The model on moving-average weights, for evaluation and sampling. It follows later training.
    pub fn averaged_model(&self) -> Result<Model> {
        self.copy_buffers()?;
        self.spec.build_frozen(&self.ema)
    }

    /// Everything needed to continue from here.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        self.copy_buffers()?;
        let mut state = self.state.clone();
        state.rng = self.rng.state();
        // Optimizers of a stage before have no moments here.
        state.optimizer_steps.clear();
        let mut moments = BTreeMap::new();
        for (name, part) in &self.optimizers {
            state.optimizer_steps.insert((*name).to_owned(), part.optimizer.steps());
            moments.extend(part.optimizer.state()?.into_iter().map(|(k, t)| (format!("{name}/{k}"), t)));
        }
        if let Some(penalty) = &self.prior_penalty {
            moments.extend(penalty.state().into_iter().map(|(k, t)| (format!("{PENALTY}/{k}"), t)));
        }
        capture(&self.store, &self.ema, &moments, &state)
    }

    /// Train.
    ///
    /// # Errors
    /// When the modality breaks a contract on the first batch ([`Error::Contract`] names the method), a step fails, the loss
    /// stays non-finite after all retries, or a file cannot be written. The last checkpoint stays as it is.
    pub fn run(
        &mut self,
        stages: StageSelection,
        interrupt: &Interrupt,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        match (stages, self.state.stage) {
            (_, Stage::Finished) => {
                return Err(Error::config("train", "this run is finished: nothing is left to train"));
            }
            (StageSelection::Lsgm, Stage::Vae) => {
                return Err(Error::config(
                    "train",
                    "stage 2 needs a finished stage 1: train with --stage vae or --stage all first",
                ));
            }
            (StageSelection::Vae, Stage::Lsgm) => {
                return Err(Error::config("train", "stage 1 of this run is done already"));
            }
            _ => {}
        }
        if self.state.step == 0 {
            self.check_contracts()?;
        }
        loop {
            let outcome = self.run_stage(interrupt, observer)?;
            let done = self.state.stage == Stage::Finished || stages == StageSelection::Vae;
            if outcome == Outcome::Interrupted || done {
                return Ok(outcome);
            }
        }
    }

    /// Try what the modality promises on the first batch. Training draws the same numbers afterwards.
    fn check_contracts(&mut self) -> Result<()> {
        let mut rng = self.rng.fork("contracts");
        let indices = self.order.batch(0, self.part_size());
        let batch = self.data.batch(&indices, &mut rng)?.to_device(&self.device)?;
        let candidate = Candidate { spec: &self.spec, store: &self.store, model: &self.model };
        candidate.check(&batch, indices.len(), &mut rng)
    }

    fn run_stage(&mut self, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<Outcome> {
        let stage = self.state.stage;
        observer.event(&Event::StageStarted(stage))?;
        // An autoencoder that was trained elsewhere meets a new prior.
        let elsewhere = self.state.step == 0 && self.state.ema_steps > 0;
        if stage == Stage::Lsgm && elsewhere && self.state.prior_ema_steps == 0 {
            self.prepare_prior(observer)?;
        }
        let mut good = self.checkpoint()?;
        let mut meter = Meter::default();
        loop {
            let stop = interrupt.requested();
            if stop || self.progress() >= 1.0 {
                // Nothing is kept that rests on a value which is not finite.
                match meter.read()? {
                    None if stop => {
                        self.save(observer)?;
                        return Ok(Outcome::Interrupted);
                    }
                    None => break,
                    Some(what) => {
                        self.roll_back(&good, what, observer)?;
                        meter = Meter::default();
                        continue;
                    }
                }
            }
            match self.step(&mut meter)? {
                None => {}
                Some(what) => {
                    self.roll_back(&good, what, observer)?;
                    meter = Meter::default();
                    continue;
                }
            }
            observer.event(&Event::Step(self.progress(), self.state.stage_step))?;
            if self.state.stage_step.is_multiple_of(self.config.log_every) {
                self.log(&mut meter, observer)?;
            }
            if self.config.sample_every > 0 && self.state.stage_step.is_multiple_of(self.config.sample_every) {
                self.show_samples(observer)?;
            }
            if self.state.stage_step.is_multiple_of(self.config.checkpoint_every) {
                good = self.save(observer)?;
            }
        }
        if meter.steps > 0 {
            self.log(&mut meter, observer)?;
        }
        self.show_samples(observer)?;
        if stage == Stage::Vae {
            self.prepare_prior(observer)?;
        }
        self.next_stage()?;
        self.save(observer)?;
        Ok(Outcome::Done)
    }

    fn progress(&self) -> f64 {
        let budget = if self.state.stage == Stage::Vae { self.budgets.0 } else { self.budgets.1 };
        budget.progress(self.state.stage_step, self.state.stage_seconds)
    }

    /// Items that go through the model together.
    fn part_size(&self) -> usize {
        self.config.batch_size.div_ceil(self.config.accumulate)
    }

    fn next_stage(&mut self) -> Result<()> {
        self.state.stage = match self.state.stage {
            Stage::Vae => Stage::Lsgm,
            Stage::Lsgm | Stage::Finished => Stage::Finished,
        };
        self.state.stage_step = 0;
        self.state.stage_seconds = 0.0;
        self.optimizers = self.fresh_optimizers(self.state.stage)?;
        Ok(())
    }

    fn fresh_optimizers(&self, stage: Stage) -> Result<BTreeMap<&'static str, Part>> {
        let part = |config: &OptimizerConfig, prior: bool| -> Result<Part> {
            let select = |store: &ParamStore| {
                store.vars().into_iter().filter(|(name, _)| name.starts_with("prior.") == prior).collect::<Vec<_>>()
            };
            Ok(Part { optimizer: Optimizer::new(config.clone(), select(&self.store))?, averages: select(&self.ema) })
        };
        let c = &self.config;
        Ok(match stage {
            Stage::Vae => BTreeMap::from([("vae", part(&c.vae.optimizer, false)?)]),
            Stage::Lsgm if c.lsgm.prior_only => BTreeMap::from([("prior", part(&c.lsgm.prior_optimizer, true)?)]),
            Stage::Lsgm => BTreeMap::from([
                ("vae", part(&c.lsgm.vae_optimizer, false)?),
                ("prior", part(&c.lsgm.prior_optimizer, true)?),
            ]),
            Stage::Finished => BTreeMap::new(),
        })
    }

    /// Buffers are no parameters: the averaged model takes them as they are.
    fn copy_buffers(&self) -> Result<()> {
        for ((_, from), (_, to)) in self.store.buffers().iter().zip(self.ema.buffers()) {
            to.set(from.as_tensor())?;
        }
        Ok(())
    }

    /// One optimizer step. `Some` tells what was not finite. On a CPU weights are untouched then; the host does not wait
    /// for a GPU in every step, and learns of it when it next looks, before the next checkpoint at the latest.
    fn step(&mut self, meter: &mut Meter) -> Result<Option<String>> {
        let clock = Instant::now();
        let progress = self.progress();
        let at_once = is_synchronous(&self.device);
        let gradients = self.gradients(progress, meter)?;
        let mut prepared = Vec::with_capacity(gradients.len());
        for (name, gradients) in gradients {
            let norm = gradients.norm_tensor()?;
            meter.add([(if name == "prior" { "prior_gradient_norm" } else { "gradient_norm" }, norm.clone())]);
            prepared.push((name, gradients, norm));
        }
        if at_once && let Some(what) = meter.read()? {
            return Ok(Some(what));
        }
        for (name, gradients, norm) in prepared {
            let (rate, clip) = self.learning_rate(name, progress);
            let decay = self.ema_decay(name);
            let scale = GradientScale::clip(&norm, clip)?;
            if let Some(Part { optimizer, averages }) = self.optimizers.get_mut(name) {
                optimizer.step(&gradients, rate, scale, Some(Ema { averages, decay }))?;
            }
            meter.add_number(if name == "prior" { "prior_learning_rate" } else { "learning_rate" }, rate);
        }
        if self.looks_after_this_step()
            && let Some(what) = meter.read()?
        {
            return Ok(Some(what));
        }
        let seconds = clock.elapsed().as_secs_f64();
        self.count(seconds);
        meter.count(seconds);
        Ok(None)
    }

    /// Whether something is told or kept after the step in work.
    fn looks_after_this_step(&self) -> bool {
        let (step, c) = (self.state.stage_step + 1, &self.config);
        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        due(c.log_every) || due(c.checkpoint_every) || due(c.sample_every)
    }

    /// The gradients of each optimizer's parameters, means over the parts of the batch.
    fn gradients(&mut self, progress: f64, meter: &mut Meter) -> Result<Vec<(&'static str, Gradients)>> {
        let indices = self.order.batch(self.state.items, self.config.batch_size);
        let x = self.data.batch(&indices, &mut self.rng)?.to_device(&self.device)?.x;
        let parts = x.chunk(self.config.accumulate, 0)?;
        let mut total: Option<Vec<(&'static str, Gradients)>> = None;
        for part in &parts {
            let share = part.dim(0)? as f64 / x.dim(0)? as f64;
            let gradients = self.gradients_of(part, share, progress, meter)?;
            match &mut total {
                None => total = Some(gradients),
                Some(total) => {
                    for ((_, total), (_, gradients)) in total.iter_mut().zip(&gradients) {
                        total.add(gradients)?;
                    }
                }
            }
        }
        let mut total = total.unwrap_or_default();
        if let (Some(penalty), Some(part)) = (&self.prior_penalty, self.optimizers.get("prior")) {
            // Once for a step, however many parts its batch has.
            let graph = backward(&(penalty.value()? * self.config.lsgm.prior_regularizer)?)?;
            let of_penalty = Gradients::collect(&graph, part.optimizer.vars());
            let mut prior = total.iter_mut().filter(|(name, _)| *name == "prior");
            prior.try_for_each(|(_, gradients)| gradients.add(&of_penalty))?;
        }
        Ok(total)
    }

    /// What a part of a batch, a `share` of it, adds to the gradients and to the values of the step.
    fn gradients_of(
        &mut self,
        x: &Tensor,
        share: f64,
        progress: f64,
        meter: &mut Meter,
    ) -> Result<Vec<(&'static str, Gradients)>> {
        let (precision, recompute) = (self.config.precision, self.config.recompute);
        let mut gradients = || -> Result<_> {
            let loss = self.loss(x, progress)?;
            if share == 1.0 {
                meter.add(loss.values);
                return backward(&loss.total);
            }
            for (name, value) in loss.values {
                meter.add([(name, (value * share)?)]);
            }
            backward(&(loss.total * share)?)
        };
        let graph = with_precision(precision, || with_checkpoints(recompute, &mut gradients))?;
        let of = |part: &Part| Gradients::collect(&graph, part.optimizer.vars());
        Ok(self.optimizers.iter().map(|(name, part)| (*name, of(part))).collect())
    }

    fn loss(&mut self, x: &Tensor, progress: f64) -> Result<Loss> {
        let mut pass = Pass::train(&mut self.rng);
        let (model, lsgm) = (&self.model, &self.config.lsgm);
        match self.state.stage {
            Stage::Vae => vae_loss(model, x, &self.config.vae, progress, &mut pass),
            _ if lsgm.prior_only => prior_loss(model, x, lsgm, &mut pass),
            _ => lsgm_loss(model, &self.frozen_prior, x, lsgm, progress, &mut pass),
        }
    }

    fn learning_rate(&self, part: &str, progress: f64) -> (f64, f64) {
        let (vae, lsgm) = (&self.config.vae, &self.config.lsgm);
        let (rate, factor, clip) = match (self.state.stage, part) {
            (Stage::Vae, _) => (vae.learning_rate, vae.schedule().factor(progress), vae.gradient_clip),
            (_, "prior") => (lsgm.prior_learning_rate, lsgm.prior_schedule().factor(progress), lsgm.gradient_clip),
            _ => (lsgm.vae_learning_rate, lsgm.vae_schedule().factor(progress), lsgm.gradient_clip),
        };
        (rate * factor * self.state.learning_rate_scale, clip)
    }

    /// The moving average of a part starts with a short memory, so that its random initial weights are soon forgotten.
    fn ema_decay(&self, part: &str) -> f64 {
        let n = if part == "prior" { self.state.prior_ema_steps } else { self.state.ema_steps } as f64;
        self.config.ema_decay.min((1.0 + n) / (10.0 + n))
    }

    fn count(&mut self, seconds: f64) {
        let s = &mut self.state;
        s.stage_step += 1;
        s.step += 1;
        s.ema_steps += u64::from(self.optimizers.contains_key("vae"));
        s.prior_ema_steps += u64::from(self.optimizers.contains_key("prior"));
        s.items += self.config.batch_size as u64;
        s.stage_seconds += seconds;
        s.seconds += seconds;
    }

    fn log(&mut self, meter: &mut Meter, observer: &mut dyn Observer) -> Result<()> {
        let (values, steps, seconds) = meter.take();
        let metrics = Metrics {
            stage: self.state.stage,
            step: self.state.step,
            progress: self.progress(),
            seconds: self.state.seconds,
            epoch: self.state.items as f64 / self.data.len() as f64,
            items_per_second: (steps * self.config.batch_size as u64) as f64 / seconds.max(1e-9),
            values,
        };
        self.write_event(&metrics)?;
        observer.event(&Event::Metrics(&metrics))
    }

    fn write_event(&mut self, event: &impl serde::Serialize) -> Result<()> {
        if let Some(run) = &self.run {
            let line = serde_json::to_string(event).map_err(|e| Error::Other(e.into()))?;
            self.state.events_bytes = run.append_event(&line)?;
        }
        Ok(())
    }

    fn show_samples(&mut self, observer: &mut dyn Observer) -> Result<()> {
        if self.config.sample_count == 0 {
            return Ok(());
        }
        // A generator of its own, always at the same place: sheets show the same latents, and training draws the same
        // numbers whether sheets are written or not.
        let mut rng = Rng::new(self.config.seed).fork("sheets");
        let (model, count) = (self.averaged_model()?, self.config.sample_count);
        let items = match self.state.stage {
            Stage::Vae => normal_prior_samples(&model, count, &self.device, &mut rng),
            _ => sample(&model, count, &sheet_config(&self.sampling), &self.device, &mut rng, &mut |_| {})
                .map(|samples| samples.items),
        };
        // A sheet that cannot be drawn, such as one whose prior no solver can follow yet, is no reason to stop training.
        match &items {
            Ok(items) => observer.event(&Event::Samples(self.state.stage, self.state.step, items)),
            Err(error) => observer.event(&Event::NoSamples(self.state.stage, self.state.step, error)),
        }
    }

    fn save(&mut self, observer: &mut dyn Observer) -> Result<Checkpoint> {
        let checkpoint = self.checkpoint()?;
        if let Some(run) = &self.run {
            run.save(&checkpoint)?;
            observer.event(&Event::Saved(self.state.step))?;
        }
        Ok(checkpoint)
    }

    fn roll_back(&mut self, good: &Checkpoint, what: String, observer: &mut dyn Observer) -> Result<()> {
        let (from, scale, rollbacks) =
            (self.state.step + 1, self.state.learning_rate_scale * 0.5, self.state.rollbacks + 1);
        if rollbacks > self.config.retries {
            return Err(Error::contract(
                "training",
                format!(
                    "{what} at step {from}, after {} retries with ever lower learning rates. The last checkpoint is intact; \
                     lower the learning rate or gradient_clip, or check the data",
                    self.config.retries
                ),
            ));
        }
        self.restore(good)?;
        if let Some(run) = &self.run {
            run.truncate_events(self.state.events_bytes)?;
        }
        self.state.learning_rate_scale = scale;
        self.state.rollbacks = rollbacks;
        // Other noise than the one that led here.
        self.rng = self.rng.fork(&format!("retry {rollbacks}"));
        let event = Event::RolledBack { from, to: self.state.step, what: what.clone(), learning_rate_scale: scale };
        self.write_event(&serde_json::json!({ "rolled_back": { "from": from, "to": good.state.step, "what": what, "learning_rate_scale": scale } }))?;
        observer.event(&event)
    }
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("state", &self.state).finish_non_exhaustive()
    }
}

/// What the state of the prior's penalty has in front of its names, as the moments of an optimizer have the part's.
const PENALTY: &str = "norms";

fn prior_penalty(config: &TrainConfig, store: &ParamStore) -> Result<Option<NormPenalty>> {
    if config.lsgm.prior_regularizer == 0.0 {
        return Ok(None);
    }
    let parameters = store.vars().into_iter().filter(|(name, _)| name.starts_with("prior.network."));
    NormPenalty::new(parameters, config.lsgm.prior_regularizer_spectral).map(Some)
}

/// The tensors whose names begin with `part/`, without that.
fn under(part: &str, tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let name = |k: &String| Some(k.strip_prefix(part)?.strip_prefix('/')?.to_owned());
    tensors.iter().filter_map(|(k, t)| Some((name(k)?, t.clone()))).collect()
}

/// Sheets during training need no more than the eye sees, and show the same latents each time.
fn sheet_config(config: &SampleConfig) -> SampleConfig {
    SampleConfig { tolerance: config.tolerance.max(1e-3), candidates: 1, ..config.clone() }
}

fn normal_prior_samples(model: &Model, count: usize, device: &Device, rng: &mut Rng) -> Result<Tensor> {
    let z = rng.normal_tensor(model.latent_shape().dims(count), DType::F32, device)?;
    model.autoencoder.decode(&z.into(), &mut Pass::eval(rng))?.mean()
}
