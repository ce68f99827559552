//! Whether a data set is whole: checksums, counts, sizes, and what its pixels look like.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lsgm_core::Split;
use serde::Serialize;

use crate::digest::digest;
use crate::locate::{FoundFile, locate, splits};
use crate::sound::{SoundCheck, check_sounds};
use crate::text::{TextCheck, check_texts};
use crate::{Card, Hub, ImageSize, Images, Request, Result, TextRequest, open_images};

/// What [`check`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The data set.
    pub set: String,
    /// Where it comes from.
    pub source: String,
    /// Every file.
    pub files: Vec<FileCheck>,
    /// Every split of images that can be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<SplitCheck>,
    /// Every split of sound that can be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sounds: Vec<SoundCheck>,
    /// Every split of texts that can be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<TextCheck>,
    /// What is wrong; empty for a set that is whole.
    pub problems: Vec<String>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileCheck {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of content, decompressed.
    pub bytes: u64,
    /// SHA-256 of the content, decompressed.
    pub sha256: String,
    /// How that compares with the card.
    pub checksum: Checksum,
}

/// How a checksum compares with the card's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// It is the same.
    Match,
    /// It is another one.
    Mismatch,
    /// Neither the card nor the hub's cache has one.
    Unknown,
}

/// One split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitCheck {
    /// Which.
    pub split: Split,
    /// Number of items.
    pub items: usize,
    /// Number that the card promises.
    pub expected: Option<usize>,
    /// Size of every image.
    pub size: ImageSize,
    /// Number of items of each label.
    pub labels: BTreeMap<u32, usize>,
    /// Mean of all pixels, in [0, 1].
    pub mean: f64,
    /// Standard deviation of all pixels.
    pub std: f64,
    /// Images of one single value.
    pub blank: usize,
}

/// Read all of a data set and compare it with its card. `dir` goes before the card's sources.
///
/// Everything that is wrong with the data becomes a line of [`Report::problems`].
///
/// # Errors
/// A set that is not on this machine at all.
pub fn check(card: &Card, dir: Option<&Path>, hub: &Hub) -> Result<Report> {
    let rules = splits(card, dir);
    let mut report = Report {
        set: card.name.clone(),
        source: String::new(),
        files: Vec::new(),
        splits: Vec::new(),
        sounds: Vec::new(),
        texts: Vec::new(),
        problems: Vec::new(),
    };
    for split in Split::ALL {
        let located = match locate(card, &rules.rule(split).part, dir, hub) {
            Ok(located) => located,
            Err(error) if split == Split::Train => return Err(error),
            Err(error) => {
                report.problems.push(format!("{split}: {error}"));
                continue;
            }
        };
        if report.source.is_empty() {
            report.source = located.content.describe();
        }
        for file in located.content.files() {
            check_file(&file, &mut report);
        }
        if card.is_for("audio") {
            match check_sounds(card, split, rules.rule(split), &located) {
                Ok((found, problems)) => {
                    report.problems.extend(problems);
                    report.sounds.push(found);
                }
                Err(error) => report.problems.push(format!("{split}: {error}")),
            }
            continue;
        }
        if card.is_for("text") {
            check_split_of_texts(card, split, dir, hub, &mut report);
            continue;
        }
        let request = Request { dir, ..Request::new(card, split, hub) };
        match open_images(&request).and_then(|images| statistics(images.as_ref(), split)) {
            Ok(found) => {
                let expected = rules.rule(split).items;
                if let Some(expected) = expected.filter(|n| *n != found.items) {
                    report.problems.push(format!("{split}: {} items instead of {expected}", found.items));
                }
                report.splits.push(SplitCheck { expected, ..found });
            }
            Err(error) => report.problems.push(format!("{split}: {error}")),
        }
    }
    Ok(report)
}

fn check_split_of_texts(card: &Card, split: Split, dir: Option<&Path>, hub: &Hub, report: &mut Report) {
    let unset = TextRequest { card, split, dir, hub, unit: None, column: None, shares: None, seed: 0, limit: None };
    match check_texts(&unset) {
        Ok(found) => {
            let expected = splits(card, dir).rule(split).items;
            // The parts of a document are counted in characters.
            let counts = [found.tally.entries, found.tally.characters];
            if let Some(expected) = expected.filter(|n| !counts.contains(n)) {
                let items = found.tally.entries;
                report.problems.push(format!("{split}: {items} entries instead of {expected}"));
            }
            report.texts.push(TextCheck { expected, ..found });
        }
        Err(error) => report.problems.push(format!("{split}: {error}")),
    }
}

fn check_file(file: &FoundFile, report: &mut Report) {
    if report.files.iter().any(|known| known.path == file.path) {
        return;
    }
    match digest(&file.path) {
        Ok((bytes, sha256)) => {
            let checksum = match &file.sha256 {
                None => Checksum::Unknown,
                Some(expected) if expected.eq_ignore_ascii_case(&sha256) => Checksum::Match,
                Some(expected) => {
                    let path = file.path.display();
                    report.problems.push(format!("{path}: SHA-256 of the content is {sha256} instead of {expected}"));
                    Checksum::Mismatch
                }
            };
            report.files.push(FileCheck { path: file.path.clone(), bytes, sha256, checksum });
        }
        Err(error) => report.problems.push(error.to_string()),
    }
}

fn statistics(images: &dyn Images, split: Split) -> Result<SplitCheck> {
    let mut labels = BTreeMap::new();
    let (mut sum, mut squares, mut blank) = (0u64, 0u64, 0);
    let mut pixels = vec![0; images.size().bytes()];
    for index in 0..images.len() {
        if let Some(label) = images.read(index, &mut pixels)? {
            *labels.entry(label).or_default() += 1;
        }
        sum += pixels.iter().map(|p| u64::from(*p)).sum::<u64>();
        squares += pixels.iter().map(|p| u64::from(*p).pow(2)).sum::<u64>();
        blank += usize::from(pixels.iter().all(|p| Some(p) == pixels.first()));
    }
    let n = (images.len() * pixels.len()).max(1) as f64;
    let mean = sum as f64 / n;
    let std = (squares as f64 / n - mean * mean).max(0.0).sqrt();
    let (mean, std) = (mean / 255.0, std / 255.0);
    Ok(SplitCheck { split, items: images.len(), expected: None, size: images.size(), labels, mean, std, blank })
}
