use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Result, Rng, upload};

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
        let labels = self.labels.as_ref().map(|l| upload(l, device)).transpose()?;
        Ok(Self { x: upload(&self.x, device)?, labels })
    }
}

/// Indexed items of one split.
///
/// A batch depends on the indices and on the generator alone, so that a resumed training sees what an
/// uninterrupted one would have seen.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use lsgm_core::{Batch, Dataset, Result, Rng};
///
/// /// Numbers and their doubles.
/// struct Pairs(usize);
///
/// impl Dataset for Pairs {
///     fn len(&self) -> usize {
///         self.0
///     }
///
///     fn batch(&self, indices: &[usize], _: &mut Rng) -> Result<Batch> {
///         let rows: Vec<Vec<f32>> = indices.iter().map(|i| vec![*i as f32, 2.0 * *i as f32]).collect();
///         Ok(Batch { x: Tensor::new(rows, &Device::Cpu)?, labels: None })
///     }
/// }
///
/// let batch = Pairs(10).batch(&[3, 7], &mut Rng::new(0))?;
/// assert_eq!(batch.x.to_vec2::<f32>()?, [[3.0, 6.0], [7.0, 14.0]]);
/// # Ok::<(), lsgm_core::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a data set",
    note = "implement `len` and `batch` of `lsgm_core::Dataset` for it"
)]
pub trait Dataset: Send + Sync {
    /// Number of items in one epoch.
    fn len(&self) -> usize;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items at `indices` (each below [`Dataset::len`]) on the CPU, or where they live. `rng` drives whatever is drawn
    /// afresh at each visit, such as dynamic binarization or a random crop.
    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Batch>;

    /// The same set in the memory of `device`, of which it may take `limit` bytes: its batches, for the same generator, are those
    /// of this one ([`crate::Resident`]). `None`, the default, if that cannot be.
    fn resident(&self, device: &Device, limit: usize) -> Result<Option<Box<dyn Dataset>>> {
        let _ = (device, limit);
        Ok(None)
    }
}

/// `count` different indices below `items` (all of them if there are fewer), one drawn from each of as many equal parts:
/// even steps would meet one class alone where classes take turns.
pub fn spread_indices(items: usize, count: usize, rng: &mut Rng) -> Vec<usize> {
    let count = count.min(items);
    let start = |i: usize| i * items / count;
    (0..count).map(|i| start(i) + rng.below(start(i + 1) - start(i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_spread_over_all_items_and_classes() {
        let mut rng = Rng::new(1);
        let found = spread_indices(6000, 1000, &mut rng);
        assert_eq!(found.len(), 1000);
        assert!(found.iter().enumerate().all(|(i, index)| (6 * i..6 * i + 6).contains(index)));
        for class in 0..3 {
            let share = found.iter().filter(|i| *i % 3 == class).count();
            assert!((250..420).contains(&share), "{share} of class {class}");
        }
        assert_eq!(spread_indices(4, 9, &mut rng), [0, 1, 2, 3]);
        assert!(spread_indices(0, 9, &mut rng).is_empty());
    }
}
