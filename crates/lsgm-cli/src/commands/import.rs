//! `lsgm import CHECKPOINT --out RUN`: a published checkpoint as a run directory.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use lsgm_core::{ParamStore, Rng};
use lsgm_engine::{RunDir, Stage, TrainState};
use lsgm_import::autoencoder::{self, Architecture};
use lsgm_import::{Checkpoint, Half, Part, Tensors, averaged, fit, prior};
use lsgm_prior::PriorConfig;
use toml::Value;

use crate::args::Import;
use crate::config::{Config, Tree, section};
use crate::registry::Registry;
use crate::run::{Override, Parts, apply, data_folder};
use crate::{Error, Result, terminal};

pub(super) fn run(args: &Import, registry: &Registry) -> Result<()> {
    refuse_existing(&args.out)?;
    let checkpoint = lsgm_import::read(&args.checkpoint).map_err(lsgm_core::Error::from)?;
    let models = Models::new(&checkpoint)?;
    let config = models.config(args, registry)?;
    let (tensors, store) = models.tensors(&config)?;
    let checked = if args.verify { models.verify(&store, &tensors)? } else { String::new() };
    write(&args.out, &config, tensors, models.state(config.train.seed))?;
    terminal::print(&format!("{}{checked}{}: {}\n", models.describe(&store), args.out.display(), models.advice()))
}

/// A run directory is made anew: what is there may be a run of somebody's.
fn refuse_existing(out: &Path) -> Result<()> {
    let refuse = |what: &str| Err(Error::usage(format!("{}: {what}: choose another --out", out.display())));
    match fs::read_dir(out).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => refuse("holds files already"),
        Err(_) if out.exists() => refuse("is a file"),
        Err(_) => Ok(()),
    }
}

/// Values that a half which a checkpoint lacks may have.
const NEW_HALF: usize = 1 << 28;

/// Say which file the `args` of an error are from.
fn named(half: &Half, error: lsgm_core::Error) -> Error {
    match error {
        lsgm_core::Error::Config { .. } => Error::usage(format!("{}: {error}", half.path.display())),
        other => other.into(),
    }
}

/// The models of a checkpoint, and one in the place of a half that is missing.
struct Models<'a> {
    checkpoint: &'a Checkpoint,
    architecture: Architecture,
    prior: PriorConfig,
}

impl<'a> Models<'a> {
    fn new(checkpoint: &'a Checkpoint) -> Result<Self> {
        let architecture = match (&checkpoint.autoencoder, &checkpoint.prior) {
            (Some(half), _) => Architecture::published(&half.args).map_err(|e| named(half, e))?,
            (None, Some(half)) => Architecture::for_prior(half).map_err(|e| named(half, e))?,
            (None, None) => return Err(Error::usage("the checkpoint holds no model")),
        };
        let prior = match &checkpoint.prior {
            None => PriorConfig::default(),
            Some(half) => prior::config(half, &architecture.latent_shape()).map_err(|e| named(half, e))?,
        };
        Ok(Self { checkpoint, architecture, prior })
    }

    /// The config of the run, with the changes of the command line.
    fn config(&self, args: &Import, registry: &Registry) -> Result<Config> {
        let half = self.checkpoint.autoencoder.as_ref().or(self.checkpoint.prior.as_ref());
        let published = half.map(|half| half.args.clone()).unwrap_or_default();
        let mut values = lsgm_import::config::sections(&published, &self.architecture);
        let mut model = section::write("autoencoder", &self.architecture.nvae)?;
        if let Value::Table(model) = &mut model {
            model.insert("kind".to_owned(), "nvae".into());
        }
        values.insert("autoencoder".to_owned(), model);
        values.insert("prior".to_owned(), section::write("prior", &self.prior)?);
        let mut tree = Tree::of(values, &args.checkpoint);
        let data = args.data.as_deref().map(data_folder).transpose()?.map(|dir| dir.display().to_string());
        apply(&mut tree, &args.set, Override::optional("data_dir", "--data", data))?;
        Config::resolve(tree, registry)
    }

    fn halves(&self) -> impl Iterator<Item = &Half> {
        self.checkpoint.autoencoder.iter().chain(&self.checkpoint.prior)
    }

    /// Values that the model may have, so that what `args` ask for is held against what the files hold before memory is
    /// taken. A half that the files lack is made anew.
    fn most_values(&self) -> usize {
        let held: usize = self.halves().flat_map(|half| half.weights.values()).map(Tensor::elem_count).sum();
        held.saturating_mul(2).saturating_add(NEW_HALF)
    }

    /// Weights and their averages: what the checkpoint has, in the places that the model has for it; the rest as it
    /// starts anew.
    fn tensors(&self, config: &Config) -> Result<(Imported, ParamStore)> {
        let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(config.train.seed).fork("parameters"))
            .limited(self.most_values());
        let parts = Parts::new(config, &Default::default())?;
        let another_model = |half: &Half, message: &str| {
            Error::usage(format!(
                "{}: {message}: `args` describe another model than the one whose tensors lie beside them",
                half.path.display()
            ))
        };
        let of_file = |e: lsgm_core::Error| match (e, self.halves().next()) {
            (lsgm_core::Error::Contract { message, .. }, Some(half)) => another_model(half, &message),
            (e @ lsgm_core::Error::ModelTooLarge { .. }, Some(half)) => another_model(half, &e.to_string()),
            (e, _) => config.locate(e.into()),
        };
        parts.spec.build(&store.root()).map_err(of_file)?;
        let fresh = store.deep_copy()?.tensors();
        let (mut model, mut averages) = (fresh.clone(), fresh);
        let of_autoencoder = |half: &Half, t: &Tensors| {
            fit(&half.path, Part::AUTOENCODER, t, autoencoder::place, autoencoder::is_own, &store)
        };
        let of_prior = |half: &Half, t: &Tensors| fit(&half.path, Part::PRIOR, t, prior::place, |_| false, &store);
        let autoencoder = self.checkpoint.autoencoder.as_ref().map(|half| placed(half, &of_autoencoder));
        let prior = self.checkpoint.prior.as_ref().map(|half| placed(half, &of_prior));
        // What is wrong with either half is told at once.
        if let (Some(Err(a)), Some(Err(b))) = (&autoencoder, &prior) {
            return Err(Error::usage(format!("{a}\n{b}")));
        }
        for half in [autoencoder, prior].into_iter().flatten() {
            let (weights, means) = half.map_err(lsgm_core::Error::from)?;
            model.extend(weights);
            averages.extend(means);
        }
        Ok((Imported { model, averages }, store))
    }

    /// Recompute what the files carry; one line for each output.
    fn verify(&self, store: &ParamStore, tensors: &Imported) -> Result<String> {
        store.load(&tensors.model)?;
        let mut checks = Vec::new();
        if let Some(half) = &self.checkpoint.autoencoder {
            checks.extend(autoencoder::verify(half, &self.architecture, store)?);
        }
        if let Some(half) = &self.checkpoint.prior {
            checks.extend(prior::verify(half, &self.prior, self.architecture.latent_shape(), store)?);
        }
        if checks.is_empty() {
            return Err(Error::usage("--verify: the files carry no inputs and outputs (`io.*`) to compare with"));
        }
        let unchecked: Vec<&str> = self.outputs().filter(|name| checks.iter().all(|c| c.name != *name)).collect();
        if !unchecked.is_empty() {
            let message = format!(
                "--verify: the files carry outputs that cannot be recomputed, for they lack the inputs or the model has no such \
                 group: {}",
                unchecked.join(", ")
            );
            return Err(Error::usage(message));
        }
        let line = |c: &lsgm_import::Check| {
            format!("{:<14} {} {:.1e}, at most {:.0e} allowed", c.name, c.measure, c.difference, c.tolerance)
        };
        let wrong: Vec<String> = checks.iter().filter(|c| !c.passes()).map(line).collect();
        if !wrong.is_empty() {
            return Err(lsgm_core::Error::contract("import", format!("outputs differ: {}", wrong.join("; "))).into());
        }
        Ok(checks.iter().map(|c| format!("{}\n", line(c))).collect())
    }

    /// The outputs among what the files carry.
    fn outputs(&self) -> impl Iterator<Item = &str> {
        let is_output = |name: &&str| {
            let known = ["eps", "log_q", "recon_nll", "logits", "decode_logits", "pred", "mixed", "ode_z0"];
            known.contains(&name.split('.').next().unwrap_or_default())
        };
        let names: BTreeSet<&str> = self.halves().flat_map(|half| half.io.keys()).map(String::as_str).collect();
        names.into_iter().filter(is_output)
    }

    /// Stage 2 follows on a trained autoencoder, stage 1 on one that is new.
    fn state(&self, seed: u64) -> TrainState {
        let (autoencoder, prior) = (self.checkpoint.autoencoder.is_some(), self.checkpoint.prior.is_some());
        let settled = |there: bool| if there { TrainState::SETTLED } else { 0 };
        let stage = if autoencoder { Stage::Lsgm } else { Stage::Vae };
        TrainState {
            ema_steps: settled(autoencoder),
            prior_ema_steps: settled(prior),
            ..TrainState::starting(stage, seed)
        }
    }

    fn describe(&self, store: &ParamStore) -> String {
        let line = |name: &str, half: &Option<Half>, count: usize, otherwise: &str| match half {
            None => format!("{name:<12} {otherwise}\n"),
            Some(half) => {
                let averages = match half.averages.is_empty() {
                    true => "no averages of its own",
                    false => "with averages",
                };
                format!("{name:<12} {count} parameters from {}, {averages}\n", half.path.display())
            }
        };
        let (autoencoder, prior) = (store.count("encoder.") + store.count("decoder."), store.count("prior."));
        line("autoencoder", &self.checkpoint.autoencoder, autoencoder, "none in the checkpoint; a new one, untrained")
            + &line("prior", &self.checkpoint.prior, prior, "none in the checkpoint; a new one, close to N(0, I)")
    }

    /// What can be done with the run.
    fn advice(&self) -> &'static str {
        match (&self.checkpoint.autoencoder, &self.checkpoint.prior) {
            (Some(_), Some(_)) => "ready to sample and to evaluate; `train --resume` goes on with stage 2",
            (Some(_), None) => "`train --resume` goes on with stage 2, which trains the prior",
            _ => "`train --resume` begins with stage 1, which trains the autoencoder",
        }
    }
}

/// The tensors of a run.
struct Imported {
    model: Tensors,
    averages: Tensors,
}

/// Write the run aside, then rename it.
fn write(out: &Path, config: &Config, tensors: Imported, state: TrainState) -> Result<()> {
    let aside = aside(out);
    let written = write_run(&aside, config, tensors, state)
        .and_then(|()| fs::rename(&aside, out).map_err(|e| lsgm_core::Error::io(out, e).into()));
    if written.is_err() {
        // The reason for the failure matters more than whether the rest could be cleaned away.
        let _ = fs::remove_dir_all(&aside);
    }
    written
}

fn write_run(folder: &Path, config: &Config, tensors: Imported, state: TrainState) -> Result<()> {
    let run = RunDir::create(folder)?;
    run.write("config.toml", config.to_toml()?.as_bytes())?;
    let (model, ema) = (tensors.model, tensors.averages);
    Ok(run.save(&lsgm_engine::Checkpoint { model, ema, optimizer: Tensors::new(), state })?)
}

fn aside(out: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(out.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    out.with_file_name(name)
}

/// The weights of a half and their averages, in the places that the model has for them.
fn placed(
    half: &Half,
    place: &dyn Fn(&Half, &Tensors) -> lsgm_import::Result<Tensors>,
) -> lsgm_import::Result<(Tensors, Tensors)> {
    Ok((place(half, &half.weights)?, place(half, &averaged(&half.weights, &half.averages))?))
}
