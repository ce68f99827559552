use std::path::Path;

use candle_core::Device;
use serde::Serialize;

use crate::Rng;

/// A figure about items that is not a bound on their likelihood, such as a distance between samples and data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measure {
    /// Name, in snake case.
    pub name: String,
    /// Value.
    pub value: f64,
    /// Standard error, where it is known.
    pub stderr: Option<f64>,
    /// Unit, such as `nats`, `dB` or `share`; empty for a plain number.
    pub unit: &'static str,
    /// What it says, in a few words; names the features and their version where it is measured in a feature space.
    pub meaning: String,
}

impl Measure {
    /// A measure without a standard error.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str, meaning: impl Into<String>) -> Self {
        Self { name: name.into(), value, stderr: None, unit, meaning: meaning.into() }
    }

    /// The same with its standard error.
    #[must_use]
    pub fn with_stderr(mut self, stderr: f64) -> Self {
        self.stderr = Some(stderr);
        self
    }
}

/// What a modality needs to measure items against its data.
pub struct Yardstick<'a> {
    /// The user's `--data`.
    pub data_dir: Option<&'a Path>,
    /// A folder for whatever is costly to make and depends on the data alone, such as a trained feature extractor. May
    /// not exist yet; files in it may be deleted at any time.
    pub cache_dir: &'a Path,
    /// The device to compute on.
    pub device: &'a Device,
    /// The source of noise.
    pub rng: &'a mut Rng,
    /// Told the share of the work that is done.
    pub progress: &'a mut dyn FnMut(f64),
}
