//! Section `[data]` of a config for grey or colour images.

use std::path::{Path, PathBuf};

use lsgm_core::{Error, Split};
use serde::{Deserialize, Serialize};

use crate::card::{Columns, ImageFolderSource, Origin, ParquetSource, Source, Splits};
use crate::picture::{Damaged, Target};
use crate::{Card, Fit, Hub, ImageSize, PixelImages, Reading, Request, open_images};

/// Where images come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSource {
    /// What the data set card `set` says.
    #[default]
    Card,
    /// PNG and JPEG files in the folder `dir` (or `--data`) and the folders in it.
    ImageFolder,
    /// Parquet files `train*.parquet`, `val*.parquet`, `test*.parquet` in the folder `dir` (or `--data`).
    Parquet,
}

/// Section `[data]` for grey or colour images; [`PixelImages`] says what their pixels look like as numbers.
///
/// ```
/// use lsgm_core::Split;
/// let config = lsgm_data::ImageConfig {
///     set: "glyphs".into(), channels: 1, height: 28, width: 28, limit: Some(1000), ..Default::default()
/// };
/// let train = config.open(Split::Train, None).unwrap();
/// assert_eq!(lsgm_core::Dataset::len(&train), 1000);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageConfig {
    /// Where the images come from.
    pub kind: ImageSource,
    /// With `kind = "card"`: name of a data set card, or the path of one of your own (`*.toml`).
    pub set: String,
    /// A folder that holds the files; `--data` goes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// With `kind = "parquet"`: the columns.
    pub columns: Columns,
    /// 3 for colour, 1 for grey. Images of the other kind are converted.
    pub channels: usize,
    /// Height of the images.
    pub height: usize,
    /// Width of the images.
    pub width: usize,
    /// Cut the middle square of this side out of each image before all else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<usize>,
    /// What to do with images that have another size then.
    pub fit: Fit,
    /// Mirror half of the visits to training images.
    pub flip: bool,
    /// Bits of a pixel, 5 or 8.
    pub bits: u8,
    /// What to do with images that cannot be used: damaged, partly transparent, or JPEGs of four inks.
    pub damaged: Damaged,
    /// With `kind = "image-folder"` and no folder `train`: share of the images for validation.
    pub val: f64,
    /// With `kind = "image-folder"` and no folder `train`: share of the images for testing.
    pub test: f64,
    /// Train on the first so many images only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// MiB of decoded pixels of a split that are held in memory. A larger split is decoded image by image as it is
    /// visited.
    pub memory: u64,
    /// Seed of generated sets.
    pub seed: u64,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            kind: ImageSource::Card,
            set: "cifar10".into(),
            dir: None,
            columns: Columns::default(),
            channels: 3,
            height: 32,
            width: 32,
            crop: None,
            fit: Fit::Exact,
            flip: false,
            bits: 8,
            damaged: Damaged::Refuse,
            val: 0.1,
            test: 0.1,
            limit: None,
            memory: 1024,
            seed: 0,
        }
    }
}

impl ImageConfig {
    /// The size of an item.
    pub fn size(&self) -> ImageSize {
        ImageSize { channels: self.channels, height: self.height, width: self.width }
    }

    /// Number of values that a pixel can have.
    pub fn levels(&self) -> usize {
        1 << self.bits
    }

    /// Check every key without touching data. A card in a file is left alone too: sampling needs none.
    ///
    /// # Errors
    /// [`Error::Config`] with the full key.
    pub fn validate(&self) -> lsgm_core::Result<()> {
        let refuse = |key: &str, message: String| Err(Error::config(format!("data.{key}"), message));
        if self.limit == Some(0) {
            return refuse("limit", "0 images cannot be trained on: leave the key out for all".into());
        }
        if !matches!(self.channels, 1 | 3) {
            return refuse("channels", format!("{} channels: use 1 for grey, 3 for colour", self.channels));
        }
        if !matches!(self.bits, 5 | 8) {
            return refuse("bits", format!("{} bits: use 5 or 8", self.bits));
        }
        for (key, side) in [("height", self.height), ("width", self.width), ("crop", self.crop.unwrap_or(1))] {
            if !(1..=4096).contains(&side) {
                return refuse(key, format!("{side} is not between 1 and 4096"));
            }
        }
        for (key, share) in [("val", self.val), ("test", self.test)] {
            if !(share > 0.0 && share < 1.0) {
                return refuse(key, format!("{share} is not between 0 and 1: it is a share of the images"));
            }
        }
        if self.val + self.test >= 1.0 {
            return refuse(
                "val",
                format!("`val` and `test` add up to {}: leave some to train on", self.val + self.test),
            );
        }
        if self.kind == ImageSource::Card && !self.set.ends_with(".toml") {
            Card::find(&self.set).map_err(|e| Error::config("data.set", e.to_string()))?;
        }
        Ok(())
    }

    /// Open a split. `dir` is the user's `--data`. Nothing is downloaded.
    ///
    /// # Errors
    /// As [`ImageConfig::validate`] and [`open_images`].
    pub fn open(&self, split: Split, dir: Option<&Path>) -> lsgm_core::Result<PixelImages> {
        self.validate()?;
        let (card, hub) = (self.card()?, Hub::from_env());
        let dir = dir.or(self.dir.as_deref());
        if dir.is_none() && self.kind != ImageSource::Card {
            return Err(Error::config("data.dir", "name the folder of the images, or pass `--data DIR`"));
        }
        let images = open_images(&Request {
            dir,
            target: Some(Target { size: self.size(), fit: self.fit, crop: self.crop }),
            seed: self.seed,
            limit: self.limit.filter(|_| split == Split::Train),
            reading: Reading { damaged: self.damaged, memory: self.memory.saturating_mul(1 << 20) },
            ..Request::new(&card, split, &hub)
        })?;
        Ok(PixelImages::new(images, split, self.bits, self.flip)?)
    }

    /// The card, or one that says what the config says.
    fn card(&self) -> lsgm_core::Result<Card> {
        let (name, source, splits) = match self.kind {
            ImageSource::Card => return Ok(Card::find(&self.set)?),
            ImageSource::ImageFolder => {
                let source = Source::ImageFolder(ImageFolderSource::default());
                ("image-folder", source, Splits::shares(self.val, self.test))
            }
            ImageSource::Parquet => {
                let columns = self.columns.clone();
                let source = ParquetSource { dir: None, invert: false, columns, parts: Default::default() };
                ("parquet", Source::Parquet(source), Splits::default())
            }
        };
        Ok(Card {
            name: name.into(),
            title: "images of the user's own".into(),
            modality: vec!["image".into()],
            description: String::new(),
            licence: String::new(),
            homepage: None,
            citation: None,
            image: Some(self.size()),
            splits,
            sources: vec![source],
            origin: Origin::Program,
        })
    }
}
