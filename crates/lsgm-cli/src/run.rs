//! A trained model, opened from its run directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use lsgm_core::{Assets, Dataset, ParamStore, Rng, Split};
use lsgm_engine::{Model, ModelSpec, RunDir, Stage};
use toml::Value;

use crate::args::BatchNormChoice;
use crate::config::{Config, Tree};
use crate::device::DeviceChoice;
use crate::progress::Progress;
use crate::registry::{AnyModality, Registry};
use crate::{Error, Result, terminal};

/// A config value from an argument of its own, such as `--seed 3`.
pub(crate) struct Override {
    /// Full dotted key.
    pub(crate) key: &'static str,
    pub(crate) value: Value,
    /// What the user wrote.
    pub(crate) label: String,
}

impl Override {
    /// `argument value`, when it was given.
    pub(crate) fn optional<T>(key: &'static str, argument: &str, value: Option<T>) -> Option<Self>
    where
        T: std::fmt::Display + Into<Value>,
    {
        value.map(|v| Self { key, label: format!("{argument} {v}"), value: v.into() })
    }
}

/// Apply the arguments of the command line to a config; `--set` goes first.
pub(crate) fn apply(tree: &mut Tree, set: &[String], overrides: impl IntoIterator<Item = Override>) -> Result<()> {
    for argument in set {
        tree.set_argument(argument)?;
    }
    for o in overrides {
        tree.set(o.key, o.value, &o.label)?;
    }
    Ok(())
}

/// The config stored in a run directory.
pub(crate) fn stored_config(run: &RunDir) -> Result<Tree> {
    Tree::parse(&run.config()?, &run.path().join("config.toml"))
}

/// The modality and the model that a config describes.
pub(crate) struct Parts {
    pub(crate) modality: Arc<dyn AnyModality>,
    pub(crate) spec: ModelSpec,
}

impl Parts {
    pub(crate) fn new(config: &Config, assets: &Assets) -> Result<Self> {
        let modality = config.sections.open(assets).map_err(|e| config.locate(e))?;
        let builder = modality.clone();
        let spec =
            ModelSpec { autoencoder: Arc::new(move |params| builder.build(params)), prior: config.prior.clone() };
        Ok(Self { modality, spec })
    }
}

/// A trained model and what it was made with.
pub(crate) struct Run {
    pub(crate) config: Config,
    pub(crate) modality: Arc<dyn AnyModality>,
    /// On moving-average weights.
    pub(crate) model: Model,
    pub(crate) device: Device,
    /// Run directory.
    pub(crate) path: PathBuf,
}

impl Run {
    /// Open the run at `path` on a device, with changes to its config.
    pub(crate) fn open(
        path: &Path,
        registry: &Registry,
        set: &[String],
        overrides: impl IntoIterator<Item = Override>,
        device: DeviceChoice,
    ) -> Result<Self> {
        let run = RunDir::read(path)?;
        let mut tree = stored_config(&run)?;
        apply(&mut tree, set, overrides)?;
        let config = Config::resolve(tree, registry)?;
        let parts = Parts::new(&config, &run.assets()?)?;
        let device = device.open()?;
        let (weights, state) = run.load_ema(&device)?;
        if state.stage == Stage::Vae {
            terminal::notice("lsgm: stage 2 of this run has not begun: the prior is still close to N(0, I)");
        }
        let store = ParamStore::new(DType::F32, &device, Rng::new(0));
        let model = parts.spec.build_frozen(&store).map_err(|e| config.locate(e.into()))?;
        store.load(&weights).map_err(|e| another_architecture(path, e))?;
        Ok(Self { config, modality: parts.modality, model, device, path: path.to_owned() })
    }

    /// Follow `--readjust-bn`.
    pub(crate) fn readjust_batch_norm(&self, choice: &BatchNormChoice, seed: u64) -> Result<()> {
        let Some(passes) = choice.readjust_bn else { return Ok(()) };
        let mut rng = Rng::new(seed).fork("readjust");
        let mut progress = Progress::new("readjust");
        let config = &self.config.sample;
        lsgm_engine::readjust_batch_norm(&self.model, passes, config, &self.device, &mut rng, &mut |share| {
            progress.update(share, "");
        })?;
        Ok(())
    }

    /// The folder of the data: the user's `dir`, or the one that the run was trained on.
    pub(crate) fn data_dir(&self, dir: Option<&Path>) -> Result<Option<PathBuf>> {
        Ok(dir.map(data_folder).transpose()?.or_else(|| self.config.data_dir.clone()))
    }

    /// A split of the run's data, or of the data in `dir`.
    pub(crate) fn dataset(&self, split: Split, dir: Option<&Path>) -> Result<Box<dyn Dataset>> {
        let dir = self.data_dir(dir)?;
        let data = self.modality.dataset(split, dir.as_deref()).map_err(|e| self.config.locate(e.into()))?;
        match data.is_empty() {
            true => Err(lsgm_core::Error::config("data", format!("the {split} split is empty")).into()),
            false => Ok(data),
        }
    }
}

/// The folder of `--data`, in a form that holds from any working directory.
pub(crate) fn data_folder(dir: &Path) -> Result<PathBuf> {
    if !dir.is_dir() {
        return Err(Error::usage(format!("--data {}: there is no such folder", dir.display())));
    }
    std::path::absolute(dir).map_err(|e| lsgm_core::Error::io(dir, e).into())
}

/// What `--data` changes in a config.
pub(crate) fn data_override(dir: Option<&Path>) -> Result<Option<Override>> {
    let Some(dir) = dir.map(data_folder).transpose()? else { return Ok(None) };
    match dir.to_str() {
        Some(text) => Ok(Override::optional("data_dir", "--data", Some(text.to_owned()))),
        None => Err(Error::usage(format!("{}: the name is not UTF-8, which a config cannot hold", dir.display()))),
    }
}

/// Weights that do not fit the model of the config.
pub(crate) fn another_architecture(run: &Path, error: lsgm_core::Error) -> Error {
    match error {
        lsgm_core::Error::Contract { message, .. } => lsgm_core::Error::input(
            run,
            format!("the checkpoint belongs to another architecture than config.toml describes: {message}"),
        )
        .into(),
        other => other.into(),
    }
}
