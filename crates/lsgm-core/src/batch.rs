use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Result, Rng};

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What the model is fitted to.
    Train,
    /// What decisions during development are made on.
    Val,
    /// What is reported.
    Test,
}

impl Split {
    /// Every split, in order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// The name in configs and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Split {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|s| s.name() == name)
            .ok_or_else(|| format!("unknown split `{name}`: use train, val or test"))
    }
}

/// Items as tensors.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The items, `[B, ...]`, in the layout that the modality's encoder and likelihood share.
    pub x: Tensor,
    /// Class labels `[B]` (`u32`), where the source has them.
    pub labels: Option<Tensor>,
}

impl Batch {
    /// Number of items.
    pub fn size(&self) -> usize {
        self.x.dims().first().copied().unwrap_or(0)
    }

    /// The same batch on `device`.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let labels = self.labels.as_ref().map(|l| l.to_device(device)).transpose()?;
        Ok(Self { x: self.x.to_device(device)?, labels })
    }
}

/// Indexed items of one split.
///
/// A batch depends on the indices and on the generator alone, so that a resumed training sees what an
/// uninterrupted one would have seen.
pub trait Dataset: Send + Sync {
    /// Number of items in one epoch.
    fn len(&self) -> usize;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items at `indices` (each below [`Dataset::len`]) on the CPU. `rng` drives whatever is drawn afresh at each
    /// visit, such as dynamic binarization or a random crop.
    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Batch>;
}
