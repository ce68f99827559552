//! From a card and a split to images.

use std::path::Path;

use lsgm_core::Split;

use crate::card::{Card, Generator, SplitRule};
use crate::folder::open_folder;
use crate::glyphs::Glyphs;
use crate::idx::read_idx;
use crate::lazy::LazyImages;
use crate::locate::{Content, Located, locate, splits};
use crate::mat::read_mat;
use crate::picture::{Damaged, Target, fit_all};
use crate::table::Tables;
use crate::{DataError, Hub, ImageSet, ImageSize, Images, Result};

/// Which images are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The data set.
    pub card: &'a Card,
    /// The split.
    pub split: Split,
    /// A folder that goes before the card's sources.
    pub dir: Option<&'a Path>,
    /// Where cached files are.
    pub hub: &'a Hub,
    /// The size that images must have; the card's if there is none.
    pub target: Option<Target>,
    /// The seed of generators.
    pub seed: u64,
    /// At most so many items, from the first on.
    pub limit: Option<usize>,
    /// How encoded images are read.
    pub reading: Reading,
}

impl<'a> Request<'a> {
    /// All images of a split as its card says.
    pub fn new(card: &'a Card, split: Split, hub: &'a Hub) -> Self {
        Self { card, split, dir: None, hub, target: None, seed: 0, limit: None, reading: Reading::default() }
    }
}

/// How encoded images are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What to do with those that cannot be used.
    pub damaged: Damaged,
    /// Bytes of decoded pixels that are held in memory. A larger set is decoded image by image as it is visited.
    pub memory: u64,
}

impl Default for Reading {
    /// Refuse what cannot be used; hold at most 1 GiB.
    fn default() -> Self {
        Self { damaged: Damaged::Refuse, memory: 1 << 30 }
    }
}

impl Reading {
    /// Whether so many images are held in memory.
    pub(crate) fn fits(self, images: usize, size: ImageSize) -> bool {
        (images as u64).saturating_mul(size.bytes() as u64) <= self.memory
    }
}

/// Open a split as images. Nothing is downloaded.
///
/// # Errors
/// Data that are not at hand, damaged, of another size than wanted, or none at all.
pub fn open_images(request: &Request<'_>) -> Result<Box<dyn Images>> {
    let rule = splits(request.card, request.dir).rule(request.split).clone();
    let located = locate(request.card, &rule.part, request.dir, request.hub)?;
    let images = load(request, &rule, &located)?;
    if images.is_empty() {
        return Err(DataError::Empty {
            origin: located.content.describe(),
            set: request.card.name.clone(),
            split: request.split.name(),
            advice: "give more data, or another rule in `splits` of the card".into(),
        });
    }
    Ok(images)
}

fn load(request: &Request<'_>, rule: &SplitRule, located: &Located) -> Result<Box<dyn Images>> {
    let target = target(request)?;
    let wanted = |total: usize| {
        let range = rule.range(total);
        let end = request.limit.map_or(range.end, |limit| range.end.min(range.start.saturating_add(limit)));
        range.start..end
    };
    let mut set = match &located.content {
        Content::Generated(Generator::Glyphs, items) => {
            let glyphs = Glyphs::new(request.seed, request.split, wanted(*items).len());
            if glyphs.size() == target.size {
                return Ok(Box::new(glyphs));
            }
            fitted(in_memory(&glyphs)?, target, "glyphs")?
        }
        Content::Idx { images, labels } => {
            let mut set = read_idx(&images.path, labels.as_ref().map(|l| l.path.as_path()))?;
            set.keep(wanted(set.len()));
            fitted(set, target, &images.path.display().to_string())?
        }
        Content::Mat { file, variable } => {
            let size = request.card.image.unwrap_or(target.size);
            let mut set = read_mat(file, variable, size)?;
            set.keep(wanted(set.len()));
            fitted(set, target, &file.display().to_string())?
        }
        Content::Generated(..) | Content::Sounds { .. } | Content::Texts { .. } => {
            return Err(not_for_images(request.card));
        }
        Content::Folder { dir, others } => {
            return open_folder(dir, others, target, request.reading, located.invert, wanted);
        }
        Content::Parquet { files, columns } => {
            let tables = Tables::open(files, columns, wanted)?;
            if !request.reading.fits(tables.rows(), target.size) {
                return Ok(Box::new(LazyImages::new(tables.unpack()?, target, request.reading, located.invert)?));
            }
            tables.load(target, request.reading)?
        }
    };
    if located.invert {
        set.invert();
    }
    Ok(Box::new(set))
}

fn target(request: &Request<'_>) -> Result<Target> {
    let own = request.card.image.map(Target::exact);
    request.target.or(own).ok_or_else(|| not_for_images(request.card))
}

fn not_for_images(card: &Card) -> DataError {
    DataError::Card {
        origin: format!("data set card {}", card.name),
        message: format!("the set is for {}, not for images", card.modality.join(", ")),
    }
}

fn fitted(set: ImageSet, target: Target, origin: &str) -> Result<ImageSet> {
    let (size, pixels, labels) = set.into_parts();
    ImageSet::new(target.size, fit_all(size, pixels, target, origin)?, labels)
}

fn in_memory(images: &dyn Images) -> Result<ImageSet> {
    let bytes = images.size().bytes();
    let mut pixels = vec![0; bytes * images.len()];
    let mut labels = Vec::new();
    for (index, pixels) in pixels.chunks_exact_mut(bytes).enumerate() {
        labels.extend(images.read(index, pixels)?);
    }
    ImageSet::new(images.size(), pixels, Some(labels))
}
