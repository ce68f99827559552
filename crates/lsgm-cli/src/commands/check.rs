//! `lsgm check CONFIG`: what a training would do, before it is begun.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Device;
use lsgm_core::{Arrangement, Batch, Dataset, ParamStore, Pass, Rng, Split};
use lsgm_engine::{
    Event, Interrupt, Metrics, Model, Stage, StageBudget, StageSelection, TrainConfig, Trainer, format_duration,
};

use lsgm_nn::{Precision, gpu};

use crate::args::Check;
use crate::commands::parts::table;
use crate::config::{Config, Tree};
use crate::output::Output;
use crate::registry::Registry;
use crate::run::{Parts, apply, data_override};
use crate::{Error, Result, memory, terminal};

pub(super) fn run(args: &Check, registry: &Registry) -> Result<()> {
    let output = Output::prepare(&batch_file(args)?)?;
    let mut tree = Tree::read(&args.config)?;
    apply(&mut tree, &args.set, data_override(args.data.as_deref())?)?;
    let config = Config::resolve(tree, registry)?;
    let assets = config.sections.prepare(config.data_dir.as_deref()).map_err(|e| config.locate(e))?;
    let parts = Parts::new(&config, &assets)?;
    let device = args.device.device.open()?;
    let store = memory::store(&config, &device, &device);
    let model = parts.spec.build(&store.root()).map_err(|e| memory::explain(e, &config))?;
    let data: Arc<dyn Dataset> = split(&parts, &config, Split::Train)?.into();
    terminal::print(&format!("config    {}: modality {}\n", args.config.display(), config.modality))?;
    terminal::print(&format!("data      {}\n", splits(&parts, &config, data.len())?))?;
    if config.train.precision != Precision::F32 && device.is_cpu() {
        let precision = config.train.precision.name();
        terminal::notice(&format!("lsgm: train.precision = \"{precision}\" is for a GPU: a CPU computes in f32"));
    }

    let costs = measure(&parts, &config, &data, &device).map_err(|e| config.locate(e))?;
    let batch = first_batch(data.as_ref(), &config.train)?.to_device(&device)?;
    terminal::print(&shapes(&model, &batch, &store)?)?;
    for (stage, seconds) in costs {
        terminal::print(&time(&config.train, stage, seconds, data.len())?)?;
    }
    terminal::print(&memory_line(store.count(""), &device))?;
    for path in output.write_artifacts(&parts.modality.render(&batch.x, Arrangement::Samples)?)? {
        terminal::print(&format!("batch     {}: {} items of the train split\n", path.display(), batch.size()))?;
    }
    Ok(())
}

fn batch_file(args: &Check) -> Result<PathBuf> {
    if let Some(out) = &args.out {
        return Ok(out.clone());
    }
    match args.config.file_stem().and_then(|stem| stem.to_str()) {
        Some(stem) => Ok(PathBuf::from(format!("{stem}-batch"))),
        None => Err(Error::usage(format!("{}: is not a config file", args.config.display()))),
    }
}

fn split(parts: &Parts, config: &Config, split: Split) -> Result<Box<dyn Dataset>> {
    parts.modality.dataset(split, config.data_dir.as_deref()).map_err(|e| config.locate(e.into()))
}

/// How many items each split has. Data of one's own may come without a split for validation or test.
fn splits(parts: &Parts, config: &Config, train: usize) -> Result<String> {
    let mut text = format!("train {train}");
    for kind in [Split::Val, Split::Test] {
        match split(parts, config, kind) {
            Ok(data) => text.push_str(&format!(", {kind} {}", data.len())),
            Err(e) => text.push_str(&format!(", {kind} none ({e})")),
        }
    }
    Ok(text + " items")
}

/// The seconds that a step of each stage takes: the second of two, since the first one fills caches.
fn measure(parts: &Parts, config: &Config, data: &Arc<dyn Dataset>, device: &Device) -> Result<Vec<(Stage, f64)>> {
    let mut train = config.train.clone();
    (train.vae.steps, train.vae.epochs, train.vae.time_budget) = (Some(2), None, None);
    (train.lsgm.steps, train.lsgm.epochs, train.lsgm.time_budget) = (Some(2), None, None);
    (train.log_every, train.sample_every, train.sample_count) = (1, 0, 0);
    let mut last = [None, None];
    let mut observer = |event: &Event<'_>| {
        if let Event::Metrics(Metrics { stage, items_per_second, .. }) = event {
            last[usize::from(*stage != Stage::Vae)] = Some((*stage, train.batch_size as f64 / items_per_second));
        }
        Ok(())
    };
    let spec = parts.spec.clone();
    Trainer::new(spec, train.clone(), config.sample.clone(), data.clone(), device, None)?.run(
        StageSelection::All,
        &Interrupt::default(),
        &mut observer,
    )?;
    Ok(last.into_iter().flatten().collect())
}

/// As many items as a step takes, in random order.
fn first_batch(data: &dyn Dataset, train: &TrainConfig) -> Result<Batch> {
    let mut rng = Rng::new(train.seed).fork("check");
    let mut indices: Vec<usize> = (0..data.len()).collect();
    rng.shuffle(&mut indices);
    indices.truncate(train.batch_size);
    Ok(data.batch(&indices, &mut rng)?)
}

/// What goes through the model, and what it is made of.
fn shapes(model: &Model, batch: &Batch, store: &ParamStore) -> Result<String> {
    let mut rng = Rng::new(0);
    let posterior = model.autoencoder.encode(&batch.x, &mut Pass::eval(&mut rng))?;
    let latents = posterior.latents()?;
    let decoded = model.autoencoder.decode(&latents, &mut Pass::eval(&mut rng))?.mean()?;
    let (items, z0, mean) = (batch.x.dims(), latents.prior.dims(), decoded.dims());
    let groups = posterior.groups.len();
    let mut text = format!("items     {items:?} {}\n", batch.x.dtype().as_str());
    text.push_str(&format!("latents   {z0:?} in {groups} group{}", if groups == 1 { "" } else { "s" }));
    for side in &latents.side {
        text.push_str(&format!(", beside them {:?}", side.dims()));
    }
    text.push_str(&format!("\ndecoded   {mean:?}\n\n{}\n", table(&store.vars())));
    Ok(text)
}

/// What a step of a stage takes, and what follows for the whole stage.
fn time(train: &TrainConfig, stage: Stage, seconds: f64, items: usize) -> Result<String> {
    let budget = if stage == Stage::Vae { train.vae.budget()? } else { train.lsgm.budget()? };
    let steps_per_epoch = items as f64 / train.batch_size as f64;
    let whole = match budget {
        StageBudget::Seconds(s) => format!("about {:.0} steps in {}", s / seconds, format_duration(s)),
        StageBudget::Steps(n) => format!("about {} for {n} steps", format_duration(n as f64 * seconds)),
        StageBudget::Epochs(n) => {
            format!("about {} for {n} epochs", format_duration(n * steps_per_epoch * seconds))
        }
    };
    Ok(format!("step      {:.1} ms in stage {}: {whole}\n", 1000.0 * seconds, stage.name()))
}

fn memory_line(parameters: usize, device: &Device) -> String {
    let megabytes = |bytes: usize| format!("{:.0} MB", bytes as f64 / 1e6);
    let own =
        format!("{} of weights, averages, gradients and moments", megabytes(parameters * memory::BYTES_PER_PARAMETER));
    let on_gpu = gpu::peak_memory(device).ok().filter(|bytes| *bytes > 0).map(|bytes| bytes as usize);
    match on_gpu.or_else(memory::peak) {
        Some(bytes) => format!("memory    {} at the peak of these steps, with {own}\n", megabytes(bytes)),
        None => format!("memory    {own}, and the activations of a step\n"),
    }
}
