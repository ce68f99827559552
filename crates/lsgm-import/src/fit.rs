//! Published tensors in the places of a model's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::Tensor;
use lsgm_core::ParamStore;

use crate::{ImportError, Result, Tensors};

/// A half of a model, for comparison and for errors.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// `autoencoder` or `prior`.
    pub name: &'static str,
    /// What its parameters' names begin with here.
    pub prefixes: &'static [&'static str],
}

impl Part {
    /// Encoder and decoder.
    pub const AUTOENCODER: Self = Self { name: "autoencoder", prefixes: &["encoder.", "decoder."] };
    /// The score-based prior.
    pub const PRIOR: Self = Self { name: "prior", prefixes: &["prior.network.", "prior."] };

    /// The published form of one of our names.
    fn published<'a>(&self, ours: &'a str) -> Option<&'a str> {
        self.prefixes.iter().find_map(|prefix| ours.strip_prefix(prefix))
    }
}

/// What a published tensor is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The parameter or buffer of this name.
    Ours(String),
    /// Nothing: it follows from others, or only counts.
    Redundant,
    /// No tensor of the model.
    Unknown,
}

/// The tensors of `part` of the model in `store`, taken from `published` ones, which `place` finds a name for. A buffer
/// that the published layout does not have (`own`) keeps its value.
///
/// # Errors
/// [`ImportError::Tensors`] that names every tensor that is missing, unknown or of another shape.
pub fn fit(
    path: &Path,
    part: Part,
    published: &Tensors,
    place: impl Fn(&str) -> Place,
    own: impl Fn(&str) -> bool,
    store: &ParamStore,
) -> Result<Tensors> {
    let expected: BTreeMap<String, Tensor> =
        store.tensors().into_iter().filter(|(name, _)| part.published(name).is_some()).collect();
    let mut found = Tensors::new();
    let mut seen = BTreeSet::new();
    let mut differences = Vec::new();
    for (name, tensor) in published {
        let ours = match place(name) {
            Place::Ours(ours) => ours,
            Place::Redundant => continue,
            Place::Unknown => {
                differences.push(format!("`{name}` is unknown"));
                continue;
            }
        };
        match expected.get(&ours) {
            None => differences.push(format!("`{name}` is unknown")),
            Some(own) if own.dims() != tensor.dims() => {
                differences.push(format!("`{name}` has shape {:?} instead of {:?}", tensor.dims(), own.dims()));
                seen.insert(ours);
            }
            Some(own) => {
                let tensor = tensor.to_dtype(own.dtype()).map_err(lsgm_core::Error::from)?;
                found.insert(ours, tensor);
            }
        }
    }
    for (name, tensor) in expected {
        if found.contains_key(&name) || seen.contains(&name) {
            continue;
        }
        match own(&name) {
            // Not a view of the store: whoever loads it there would set a value from itself.
            true => drop(found.insert(name, tensor.copy().map_err(lsgm_core::Error::from)?)),
            false => differences.push(format!("`{}` is missing", part.published(&name).unwrap_or(&name))),
        }
    }
    match differences.is_empty() {
        true => Ok(found),
        false => Err(ImportError::Tensors { path: path.to_owned(), part: part.name, differences }),
    }
}

/// `weights` with `averages` in the place of those that have one, for the names that both are published under.
pub fn averaged(weights: &Tensors, averages: &Tensors) -> Tensors {
    let average = |name: &String, weight: &Tensor| averages.get(name).unwrap_or(weight).clone();
    weights.iter().map(|(name, weight)| (name.clone(), average(name, weight))).collect()
}
