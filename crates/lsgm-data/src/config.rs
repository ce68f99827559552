//! Section `[data]` of a config for binary images.

use std::path::{Path, PathBuf};

use lsgm_core::{Error, Split};
use serde::{Deserialize, Serialize};

use crate::picture::Target;
use crate::{Binarization, BinaryImages, Card, Fit, Hub, ImageSize, Reading, Request, open_images};

/// Section `[data]` for binary images.
///
/// ```
/// use lsgm_core::Split;
/// let config = lsgm_data::BinaryConfig { limit: Some(1000), ..Default::default() };
/// let train = config.open(Split::Train, None).unwrap();
/// assert_eq!(lsgm_core::Dataset::len(&train), 1000);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BinaryConfig {
    /// Name of a data set card, or the path of one of your own (`*.toml`).
    pub set: String,
    /// A folder that holds the set's files; `--data` goes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// How grey turns to black and white.
    pub binarization: Binarization,
    /// Train on the first so many items only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Seed of the fixed draws of validation and test items, and of generated sets.
    pub seed: u64,
    /// Height of the images.
    pub height: usize,
    /// Width of the images.
    pub width: usize,
    /// What to do with images of another size.
    pub fit: Fit,
}

impl Default for BinaryConfig {
    fn default() -> Self {
        Self {
            set: "glyphs".into(),
            dir: None,
            binarization: Binarization::Dynamic,
            limit: None,
            seed: 0,
            height: 28,
            width: 28,
            fit: Fit::Exact,
        }
    }
}

impl BinaryConfig {
    /// The size of an item.
    pub fn size(&self) -> ImageSize {
        ImageSize::grey(self.height, self.width)
    }

    /// Check every key without touching data. A card in a file is left alone too: sampling needs none.
    ///
    /// # Errors
    /// [`Error::Config`] with the full key.
    pub fn validate(&self) -> lsgm_core::Result<()> {
        if self.limit == Some(0) {
            return Err(Error::config("data.limit", "0 items cannot be trained on: leave the key out for all"));
        }
        for (key, side) in [("data.height", self.height), ("data.width", self.width)] {
            if !(1..=4096).contains(&side) {
                return Err(Error::config(key, format!("{side} is not between 1 and 4096")));
            }
        }
        if !self.set.ends_with(".toml") {
            Card::find(&self.set).map_err(|e| Error::config("data.set", e.to_string()))?;
        }
        Ok(())
    }

    /// Open a split. `dir` is the user's `--data`. Nothing is downloaded.
    ///
    /// # Errors
    /// As [`BinaryConfig::validate`] and [`open_images`].
    pub fn open(&self, split: Split, dir: Option<&Path>) -> lsgm_core::Result<BinaryImages> {
        self.validate()?;
        let card = Card::find(&self.set)?;
        let images = open_images(&Request {
            card: &card,
            split,
            dir: dir.or(self.dir.as_deref()),
            hub: &Hub::from_env(),
            target: Some(Target { size: self.size(), fit: self.fit, crop: None }),
            seed: self.seed,
            limit: self.limit.filter(|_| split == Split::Train),
            reading: Reading::default(),
        })?;
        Ok(BinaryImages::new(images, split, self.binarization, self.seed))
    }
}
