//! Configuration: defaults < file < command line, every key known, every value typed.

mod de;
pub(crate) mod section;
mod suggest;
#[cfg(test)]
mod tests;
mod tree;

use std::path::PathBuf;

use lsgm_engine::{EvaluateConfig, SampleConfig, TrainConfig};
use lsgm_prior::PriorConfig;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::registry::{Registry, Sections};
use crate::{Error, Result};
use de::{Problem, ProblemKind};
use tree::Origins;
pub(crate) use tree::Tree;

/// Keys and sections at the top of a config.
pub(crate) const TOP: [&str; 8] =
    ["modality", "data_dir", "data", "autoencoder", "prior", "train", "sample", "evaluate"];

/// A config with every value resolved. It can be written and read back.
pub(crate) struct Config {
    /// Name of the modality.
    pub(crate) modality: String,
    /// The folder of the user's data, which goes before what `[data]` names.
    pub(crate) data_dir: Option<PathBuf>,
    /// `[data]` and `[autoencoder]`.
    pub(crate) sections: Box<dyn Sections>,
    pub(crate) prior: PriorConfig,
    pub(crate) train: TrainConfig,
    pub(crate) sample: SampleConfig,
    pub(crate) evaluate: EvaluateConfig,
    origins: Origins,
}

/// The keys outside any section.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Top {
    modality: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
}

impl Config {
    /// Give every value of `tree` its type, and check what can be checked without data.
    pub(crate) fn resolve(tree: Tree, registry: &Registry) -> Result<Self> {
        check_top(&tree)?;
        let top = read_top(&tree)?;
        let Some(kind) = registry.get(&top.modality) else {
            return Err(unknown_modality(&tree, &top.modality, registry));
        };
        let config = Self {
            sections: kind.read(&tree)?,
            prior: section::read(&tree, "prior")?,
            train: section::read(&tree, "train")?,
            sample: section::read(&tree, "sample")?,
            evaluate: section::read(&tree, "evaluate")?,
            modality: top.modality,
            data_dir: top.data_dir,
            origins: tree.origins,
        };
        config.validate().map_err(|e| config.locate(e.into()))?;
        Ok(config)
    }

    fn validate(&self) -> lsgm_core::Result<()> {
        self.train.validate()?;
        self.train.validate_with(&self.prior)?;
        self.sample.validate()?;
        self.sample.validate_with(&self.prior)?;
        self.evaluate.validate_with(&self.prior)?;
        self.evaluate.validate()
    }

    /// Every section, complete.
    fn sections(&self) -> Result<Vec<(&'static str, Value)>> {
        let mut modality = self.sections.to_toml()?;
        let mut take = |name| modality.remove(name).unwrap_or_else(|| Value::Table(Table::new()));
        Ok(vec![
            ("data", take("data")),
            ("autoencoder", take("autoencoder")),
            ("prior", section::write("prior", &self.prior)?),
            ("train", section::write("train", &self.train)?),
            ("sample", section::write("sample", &self.sample)?),
            ("evaluate", section::write("evaluate", &self.evaluate)?),
        ])
    }

    /// The complete config as TOML text.
    pub(crate) fn to_toml(&self) -> Result<String> {
        let failed = |e: toml::ser::Error| Error::Core(lsgm_core::Error::Other(e.into()));
        let top = Top { modality: self.modality.clone(), data_dir: self.data_dir.clone() };
        let mut text = toml::to_string(&top).map_err(failed)?;
        for (name, value) in self.sections()? {
            text.push('\n');
            text.push_str(&toml::to_string(&Table::from_iter([(name.to_owned(), value)])).map_err(failed)?);
        }
        Ok(text)
    }

    /// The keys whose values differ between two configs, as `key: this one -> the other`.
    pub(crate) fn differences(&self, other: &Self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for ((name, mine), (_, theirs)) in self.sections()?.iter().zip(&other.sections()?) {
            compare(name, mine, theirs, &mut found);
        }
        Ok(found)
    }

    /// Tell where the key of a config error was written.
    pub(crate) fn locate(&self, error: Error) -> Error {
        match &error {
            Error::Core(lsgm_core::Error::Config { key, .. }) => match self.origins.find(key) {
                Some(origin) => Error::usage(format!("{origin}: {error}")),
                None => error,
            },
            _ => error,
        }
    }
}

fn check_top(tree: &Tree) -> Result<()> {
    let Some(key) = tree.values.keys().find(|key| !TOP.contains(&key.as_str())) else { return Ok(()) };
    let known = TOP.iter().map(|&k| k.to_owned()).collect();
    let problem = Problem { path: Vec::new(), kind: ProblemKind::UnknownKey { key: key.clone(), known } };
    Err(section::explain(&problem, tree, &top_defaults()?))
}

/// The sections that every modality has, to find where a misplaced key belongs.
fn top_defaults() -> Result<Vec<(&'static str, Value)>> {
    Ok(vec![
        ("train", section::write("train", &TrainConfig::default())?),
        ("prior", section::write("prior", &PriorConfig::default())?),
        ("sample", section::write("sample", &SampleConfig::default())?),
        ("evaluate", section::write("evaluate", &EvaluateConfig::default())?),
    ])
}

fn read_top(tree: &Tree) -> Result<Top> {
    let keys = ["modality", "data_dir"];
    let table = keys.iter().filter_map(|&k| Some((k.to_owned(), tree.values.get(k)?.clone()))).collect::<Table>();
    de::from_value(&Value::Table(table), &[]).map_err(|problem| section::explain(&problem, tree, &[]))
}

fn unknown_modality(tree: &Tree, name: &str, registry: &Registry) -> Error {
    let known = registry.names().map(str::to_owned).collect();
    let kind = ProblemKind::UnknownName { name: name.to_owned(), known };
    section::explain(&Problem { path: vec!["modality".to_owned()], kind }, tree, &[])
}

fn compare(key: &str, mine: &Value, theirs: &Value, found: &mut Vec<String>) {
    let (Value::Table(a), Value::Table(b)) = (mine, theirs) else {
        if mine != theirs {
            found.push(format!("{key}: {mine} -> {theirs}"));
        }
        return;
    };
    let nothing = Value::String("(not set)".to_owned());
    for name in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
        let (x, y) = (a.get(name).unwrap_or(&nothing), b.get(name).unwrap_or(&nothing));
        compare(&format!("{key}.{name}"), x, y, found);
    }
}
