use std::collections::BTreeMap;

use lsgm_core::Split;
use rayon::prelude::*;
use serde::Serialize;

use super::open::recordings;
use super::recording::Recording;
use super::{ClipForm, Sounds, Tones};
use crate::Result;
use crate::card::{Card, Generator, SplitRule};
use crate::locate::{Content, Located};

/// One split of sound.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SoundCheck {
    /// Which.
    pub split: Split,
    /// Number of recordings.
    pub items: usize,
    /// Number that the card promises.
    pub expected: Option<usize>,
    /// Length of all recordings together.
    pub seconds: f64,
    /// Number of recordings at each sample rate in Hz.
    pub rates: BTreeMap<u32, usize>,
    /// Number of recordings of each label.
    pub labels: BTreeMap<u32, usize>,
    /// Root mean square of all samples, in dB below full scale.
    pub level: f64,
    /// Recordings in which every sample is zero.
    pub silent: usize,
}

/// What one recording adds.
struct Found {
    rate: u32,
    samples: usize,
    squares: f64,
    silent: bool,
    label: Option<u32>,
}

/// Read all recordings of a split; what cannot be read is told beside, one line each.
///
/// # Errors
/// A set without sound.
pub(crate) fn check_sounds(
    card: &Card,
    split: Split,
    rule: &SplitRule,
    located: &Located,
) -> Result<(SoundCheck, Vec<String>)> {
    let results: Vec<Result<Found>> = match located.content {
        Content::Generated(Generator::Tones, items) => {
            let items = rule.range(items).len();
            let form = ClipForm { rate: 4000, samples: 2048, level: None };
            let tones = Tones::new(0, split, items, form);
            (0..items).into_par_iter().map(|i| generated(&tones, i, form.rate)).collect()
        }
        _ => {
            let found = recordings(card, located, |total| rule.range(total))?;
            found.into_par_iter().map(|(recording, label)| read(&recording, label)).collect()
        }
    };
    let mut problems: Vec<String> = Vec::new();
    let mut check = SoundCheck {
        split,
        items: 0,
        expected: rule.items,
        seconds: 0.0,
        rates: BTreeMap::new(),
        labels: BTreeMap::new(),
        level: 0.0,
        silent: 0,
    };
    let (mut squares, mut samples) = (0.0, 0);
    for result in results {
        match result {
            Ok(found) => {
                check.items += 1;
                check.seconds += found.samples as f64 / f64::from(found.rate);
                *check.rates.entry(found.rate).or_default() += 1;
                found.label.into_iter().for_each(|l| *check.labels.entry(l).or_default() += 1);
                check.silent += usize::from(found.silent);
                squares += found.squares;
                samples += found.samples;
            }
            Err(error) => problems.push(format!("{split}: {error}")),
        }
    }
    check.level = 10.0 * (squares / samples.max(1) as f64).max(1e-12).log10();
    if let Some(expected) = check.expected.filter(|n| *n != check.items) {
        problems.push(format!("{split}: {} recordings instead of {expected}", check.items));
    }
    Ok((check, problems))
}

fn read(recording: &Recording, label: Option<u32>) -> Result<Found> {
    let header = recording.header()?;
    let samples = recording.read(0..header.frames, header.rate)?;
    let squares = samples.iter().map(|v| f64::from(*v).powi(2)).sum();
    Ok(Found { rate: header.rate, samples: samples.len(), squares, silent: squares == 0.0, label })
}

fn generated(tones: &Tones, index: usize, rate: u32) -> Result<Found> {
    let clip = tones.read(index, 0.0)?;
    let squares = clip.samples.iter().map(|v| (f64::from(*v) / 32_768.0).powi(2)).sum();
    Ok(Found { rate, samples: clip.samples.len(), squares, silent: squares == 0.0, label: clip.label })
}
