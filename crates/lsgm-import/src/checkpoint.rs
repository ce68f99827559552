//! A checkpoint in the published layout, whatever kind of file it comes in.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::Value;

use crate::pickle::Id;
use crate::torch::TorchFile;
use crate::{ImportError, Result};

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// What a file or a folder of files holds.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// Encoder and decoder.
    pub autoencoder: Option<Half>,
    /// The score-based prior.
    pub prior: Option<Half>,
}

/// One of the two models of a checkpoint.
#[derive(Debug, Clone)]
pub struct Half {
    /// The file it was read from.
    pub path: PathBuf,
    /// The arguments that the model was made with.
    pub args: Value,
    /// Weights and buffers under their published names.
    pub weights: Tensors,
    /// Moving averages of weights, where the file has them.
    pub averages: Tensors,
    /// Inputs and outputs to check an import against (`io.*`).
    pub io: Tensors,
    /// Facts about `io` that are no tensors, such as the number of function evaluations of an ODE.
    pub facts: Value,
}

/// Names of dictionaries of tensors, and of the optimizers that hold their averages. A file of the autoencoder alone calls
/// its own `state_dict` or `weights`.
const STATE_DICTS: [(&str, &str); 4] = [
    ("vae_state_dict", "vae_optimizer"),
    ("dae_state_dict", "dae_optimizer"),
    ("state_dict", "optimizer"),
    ("weights", "optimizer"),
];
/// What their averages are called where these have dictionaries of their own.
const AVERAGES: [&str; 3] = ["ema_vae_state_dict", "ema_dae_state_dict", "ema_state_dict"];

/// Read a `.safetensors`, `.pt` or `.pth` file, or all those in a folder. `args.json` beside a file holds its arguments where
/// the file itself does not.
///
/// # Errors
/// Files that are missing, damaged, or hold nothing of a model; models that come twice.
pub fn read(path: &Path) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::default();
    for file in files(path)? {
        let parts = match extension(&file).as_str() {
            "safetensors" => read_safetensors(&file)?,
            _ => read_torch(&file)?,
        };
        checkpoint.take(&file, parts)?;
    }
    match checkpoint {
        Checkpoint { autoencoder: None, prior: None } => {
            let message = "holds no weights of an autoencoder or a prior under published names, such as \
                           `stem.weight` or `all_modules.0.weight`";
            Err(ImportError::file(path, message))
        }
        found => Ok(found),
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).map_err(|e| ImportError::io(path, e))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|file| file.is_file() && matches!(extension(file).as_str(), "safetensors" | "pt" | "pth"));
    files.sort();
    match files.is_empty() {
        true => Err(ImportError::file(path, "holds no `.safetensors`, `.pt` or `.pth` file")),
        false => Ok(files),
    }
}

fn extension(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase()
}

/// What one file holds, before it is divided into models.
#[derive(Default)]
struct Parts {
    args: Option<Value>,
    weights: Tensors,
    averages: Tensors,
    io: Tensors,
    facts: Value,
}

impl Checkpoint {
    fn take(&mut self, path: &Path, parts: Parts) -> Result<()> {
        if parts.weights.is_empty() {
            return Ok(());
        }
        let args = match parts.args {
            Some(args) => args,
            None => args_beside(path)?,
        };
        let divide = |tensors: Tensors| tensors.into_iter().partition::<Tensors, _>(|(name, _)| is_of_prior(name));
        let (prior, autoencoder) = divide(parts.weights);
        let (prior_averages, averages) = divide(parts.averages);
        let half = |weights: Tensors, averages: Tensors| {
            let (path, args, io, facts) = (path.to_owned(), args.clone(), parts.io.clone(), parts.facts.clone());
            (!weights.is_empty()).then_some(Half { path, args, weights, averages, io, facts })
        };
        let found = [
            ("autoencoder", &mut self.autoencoder, half(autoencoder, averages)),
            ("prior", &mut self.prior, half(prior, prior_averages)),
        ];
        for (name, place, found) in found {
            match (place.as_ref(), found) {
                (Some(first), Some(_)) => {
                    let message = format!("holds a second {name}; the first is in {}", first.path.display());
                    return Err(ImportError::file(path, message));
                }
                (None, Some(found)) => *place = Some(found),
                (_, None) => {}
            }
        }
        Ok(())
    }
}

/// Whether a published name belongs to the score network.
fn is_of_prior(name: &str) -> bool {
    matches!(name.split('.').next(), Some("all_modules" | "temb_fun" | "mixing_logit" | "is_active"))
}

fn args_beside(path: &Path) -> Result<Value> {
    let beside = path.with_file_name("args.json");
    let text = fs::read_to_string(&beside).map_err(|_| {
        ImportError::file(path, "has no `args`, which say what the model looks like: put them beside it as `args.json`")
    })?;
    let args: Value = serde_json::from_str(&text).map_err(|e| ImportError::file(&beside, e.to_string()))?;
    if args.is_object() { Ok(args) } else { Err(ImportError::file(&beside, "is not a table of arguments")) }
}

fn read_safetensors(path: &Path) -> Result<Parts> {
    let bytes = fs::read(path).map_err(|e| ImportError::io(path, e))?;
    let corrupt = |e: &dyn std::fmt::Display| ImportError::file(path, format!("is no safetensors file: {e}"));
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| corrupt(&e))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let json = |name: &str| -> Result<Option<Value>> {
        let Some(text) = metadata.get(name) else { return Ok(None) };
        let value = serde_json::from_str(text);
        value.map(Some).map_err(|e| ImportError::file(path, format!("metadata `{name}` is no JSON: {e}")))
    };
    let mut parts = Parts { args: json("args")?, ..Parts::default() };
    parts.facts = json("ode")?.unwrap_or_default();
    for (name, tensor) in candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|e| corrupt(&e))? {
        let (section, rest) = name.split_once('.').unwrap_or(("", &name));
        if section == "io" {
            parts.io.insert(rest.to_owned(), tensor);
        } else if AVERAGES.contains(&section) {
            parts.averages.insert(plain(rest), tensor);
        } else if STATE_DICTS.iter().any(|(known, _)| *known == section) {
            parts.weights.insert(plain(rest), tensor);
        } else {
            parts.weights.insert(plain(&name), tensor);
        }
    }
    Ok(parts)
}

/// A name without the wrapper that training on several machines puts around a model.
fn plain(name: &str) -> String {
    name.strip_prefix("module.").unwrap_or(name).to_owned()
}

fn read_torch(path: &Path) -> Result<Parts> {
    let mut file = TorchFile::open(path)?;
    let root = file.pickle().root();
    let mut parts = Parts::default();
    let dictionary = |file: &TorchFile<'_>, name: &str| file.pickle().get(root, name);
    parts.args = dictionary(&file, "args").map(|args| file.pickle().to_json(args)).filter(|args| args.is_object());
    for (name, optimizer) in STATE_DICTS {
        let Some(state_dict) = dictionary(&file, name).filter(|id| file.is_state_dict(*id)) else { continue };
        let tensors = file.tensors(state_dict)?;
        if let Some(optimizer) = dictionary(&file, optimizer) {
            parts.averages.extend(averages(&mut file, optimizer, &tensors)?);
        }
        parts.weights.extend(named(tensors));
    }
    for name in AVERAGES {
        if let Some(id) = dictionary(&file, name) {
            parts.averages.extend(named(file.tensors(id)?));
        }
    }
    if parts.weights.is_empty() {
        parts.weights = named(file.tensors(root)?);
    }
    Ok(parts)
}

fn named(tensors: Vec<(String, Tensor)>) -> Tensors {
    tensors.into_iter().map(|(name, tensor)| (plain(&name), tensor)).collect()
}

/// The moving averages that the published code keeps in the state of an optimizer, under the number of each parameter.
///
/// Parameters are numbered in the order of the state dict, buffers left out. Where a number has no parameter, or one of
/// another shape, the optimizer belongs to something else and nothing is taken from it.
fn averages(file: &mut TorchFile<'_>, optimizer: Id, weights: &[(String, Tensor)]) -> Result<Tensors> {
    let parameters: Vec<_> = weights.iter().filter(|(name, _)| !is_buffer(name)).collect();
    let Some(state) = file.pickle().get(optimizer, "state") else { return Ok(Tensors::new()) };
    let mut found = Tensors::new();
    for (number, entry) in file.pickle().numbered(state) {
        let Some(average) = file.pickle().get(entry, "ema") else { continue };
        let parameter = usize::try_from(number).ok().and_then(|n| parameters.get(n));
        let tensor = file.tensor(average, &format!("average of parameter {number}"))?;
        match (parameter, tensor) {
            (Some((name, weight)), Some(tensor)) if weight.dims() == tensor.dims() => {
                found.insert(plain(name), tensor);
            }
            _ => return Ok(Tensors::new()),
        }
    }
    Ok(found)
}

fn is_buffer(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    matches!(last, "running_mean" | "running_var" | "num_batches_tracked" | "weight_normalized" | "is_active")
}
