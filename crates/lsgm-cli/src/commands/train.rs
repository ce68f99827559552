//! `lsgm train CONFIG`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use lsgm_core::Split;
use lsgm_engine::{Outcome, RunDir, Stage, StageSelection, Trainer, format_duration};

use crate::args::{StageArgument, Train};
use crate::commands::finish;
use crate::commands::watch::Watch;
use crate::config::{Config, Tree};
use crate::interrupt::StopsTraining;
use crate::output::Output;
use crate::registry::Registry;
use crate::run::{Override, Parts, Run, another_architecture, apply, data_override, stored_config};
use crate::{Error, Result, memory, terminal};

pub(super) fn run(args: &Train, registry: &Registry) -> Result<()> {
    let folder = run_folder(args)?;
    let device = args.device.device.open()?;
    let (mut trainer, parts, config) = match args.resume {
        true => resume(args, &folder, registry, &device)?,
        false => begin(args, &folder, registry, &device)?,
    };
    train(&mut trainer, &parts, args.stage, &folder).map_err(|e| config.locate(e))?;
    if trainer.state().stage != Stage::Finished {
        return Ok(());
    }
    let model = trainer.averaged_model()?;
    finish::run(&Run { config, modality: parts.modality, model, device, path: folder.clone() }, &folder)
}

fn train(trainer: &mut Trainer, parts: &Parts, stage: StageArgument, folder: &Path) -> Result<()> {
    let stop = StopsTraining::new();
    let mut watch = Watch::new(parts.modality.clone(), folder.join("samples"));
    let outcome = trainer.run(selection(stage), &stop.interrupt, &mut watch)?;
    drop(watch);
    let state = trainer.state();
    let (time, place) = (format_duration(state.seconds), folder.display());
    match outcome {
        Outcome::Done => {
            terminal::notice(&format!("lsgm: trained {} steps in {time}; run directory {place}", state.step));
            Ok(())
        }
        Outcome::Interrupted => {
            let message = format!("stopped and saved after {} steps; --resume continues {place}", state.step);
            Err(Error::Interrupted(message))
        }
    }
}

fn selection(stage: StageArgument) -> StageSelection {
    match stage {
        StageArgument::Vae => StageSelection::Vae,
        StageArgument::Lsgm => StageSelection::Lsgm,
        StageArgument::All => StageSelection::All,
    }
}

/// The run directory: `--out`, the run itself when it was named in place of a config, or `runs/` and the config's name.
fn run_folder(args: &Train) -> Result<PathBuf> {
    if let Some(out) = &args.out {
        return Ok(out.clone());
    }
    if args.config.is_dir() {
        return Ok(args.config.clone());
    }
    match args.config.file_stem() {
        Some(stem) => Ok(Path::new("runs").join(stem)),
        None => Err(Error::usage(format!("{}: is not a config file", args.config.display()))),
    }
}

/// A new run. Nothing is written before config and data are known to be good.
fn begin(args: &Train, folder: &Path, registry: &Registry, device: &Device) -> Result<(Trainer, Parts, Config)> {
    if args.config.is_dir() {
        let message = format!("{}: is a folder, not a config file; --resume continues a run", args.config.display());
        return Err(Error::usage(message));
    }
    check_stage(args.stage, Stage::Vae, folder)?;
    let config = settle(Tree::read(&args.config)?, args, registry)?;
    let assets = config.sections.prepare(config.data_dir.as_deref()).map_err(|e| config.locate(e))?;
    let parts = Parts::new(&config, &assets)?;
    check_model(&parts, &config, device)?;
    let data = training_data(&parts, &config)?;
    let run = RunDir::create(folder)?;
    run.write("config.toml", config.to_toml()?.as_bytes())?;
    run.write_assets(&assets)?;
    let trainer =
        Trainer::new(parts.spec.clone(), config.train.clone(), config.sample.clone(), data, device, Some(run))
            .map_err(|e| config.locate(e.into()))?;
    Ok((trainer, parts, config))
}

/// The run in `folder`, with its own config changed by the command line.
fn resume(args: &Train, folder: &Path, registry: &Registry, device: &Device) -> Result<(Trainer, Parts, Config)> {
    let run = RunDir::open(folder)?;
    let stored = Config::resolve(stored_config(&run)?, registry)?;
    let config = settle(stored_config(&run)?, args, registry)?;
    refuse_another_model(&stored.differences(&config)?)?;
    if args.config.is_file() {
        tell_ignored_changes(&settle(Tree::read(&args.config)?, args, registry)?, &config)?;
    } else if !args.config.exists() {
        return Err(Error::usage(format!("{}: there is no such file", args.config.display())));
    }
    let parts = Parts::new(&config, &run.assets()?)?;
    let data = training_data(&parts, &config)?;
    let (train, sample) = (config.train.clone(), config.sample.clone());
    let mut trainer = Trainer::new(parts.spec.clone(), train, sample, data, device, Some(run))
        .map_err(|e| config.locate(e.into()))?;
    trainer.resume().map_err(|e| another_architecture(folder, e))?;
    check_stage(args.stage, trainer.state().stage, folder)?;
    Output::prepare(&folder.join("config.toml"))?.write(config.to_toml()?.as_bytes())?;
    Ok((trainer, parts, config))
}

/// Refuse a `--stage` that a run cannot do now.
fn check_stage(wanted: StageArgument, now: Stage, folder: &Path) -> Result<()> {
    let message = match (wanted, now) {
        (_, Stage::Finished) => "this run is finished: sample or evaluate it, or train anew with another --out",
        (StageArgument::Lsgm, Stage::Vae) => {
            "--stage lsgm: stage 1 is not done yet: train with --stage vae or all first"
        }
        (StageArgument::Vae, Stage::Lsgm) => "--stage vae: stage 1 of this run is done: --stage lsgm or all goes on",
        _ => return Ok(()),
    };
    Err(Error::usage(format!("{}: {message}", folder.display())))
}

/// Apply the command line to a config and resolve it.
fn settle(mut tree: Tree, args: &Train, registry: &Registry) -> Result<Config> {
    let seed =
        args.seed.map(|n| i64::try_from(n).map_err(|_| Error::usage(format!("--seed {n}: give at most {}", i64::MAX))));
    let overrides =
        [Override::optional("train.seed", "--seed", seed.transpose()?), data_override(args.data.as_deref())?];
    apply(&mut tree, &args.set, overrides.into_iter().flatten())?;
    let mut config = Config::resolve(tree, registry)?;
    if let Some(total) = args.time_budget {
        config.train.limit_time(total, selection(args.stage))?;
    }
    Ok(config)
}

/// The prior's values can be checked only against the latents of the autoencoder, so the model is built once and dropped.
fn check_model(parts: &Parts, config: &Config, device: &Device) -> Result<()> {
    parts
        .spec
        .build(&memory::store(config, &Device::Cpu, device).root())
        .map(drop)
        .map_err(|e| memory::explain(e, config))
}

fn training_data(parts: &Parts, config: &Config) -> Result<Arc<dyn lsgm_core::Dataset>> {
    let data = parts.modality.dataset(Split::Train, config.data_dir.as_deref()).map_err(|e| config.locate(e.into()))?;
    let (items, batch) = (data.len(), config.train.batch_size);
    if items == 0 {
        return Err(Error::usage("the train split of the data is empty: there is nothing to train on"));
    }
    if items < batch {
        terminal::notice(&format!(
            "lsgm: the train split has {items} items, fewer than a batch of {batch}: they repeat in it"
        ));
    }
    Ok(data.into())
}

/// A run goes on with the model and the data it began with.
fn refuse_another_model(differences: &[String]) -> Result<()> {
    let fixed = |d: &&String| ["data.", "autoencoder.", "prior."].iter().any(|section| d.starts_with(section));
    if let Some(d) = differences.iter().find(|d| d.starts_with("train.seed")) {
        return Err(Error::usage(format!(
            "a run cannot go on with another seed ({d}): the order of its items would change in the middle, and its noise would \
             not; train anew with another --out"
        )));
    }
    match differences.iter().find(fixed) {
        None => Ok(()),
        Some(d) => Err(Error::usage(format!(
            "a run cannot go on with another model or other data ({d}): its checkpoint belongs to the architecture it began with; \
             train anew with another --out"
        ))),
    }
}

fn tell_ignored_changes(file: &Config, used: &Config) -> Result<()> {
    let differences = file.differences(used)?;
    if !differences.is_empty() {
        terminal::notice(&format!(
            "lsgm: the run goes on with its own config, not with what the file says by now ({}); --set changes a key",
            differences.join(", ")
        ));
    }
    Ok(())
}
