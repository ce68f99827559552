//! Clips as log-mel planes, in the feature space of a small classifier that is trained on those of the data set.

use candle_core::{DType, Device, Tensor};
use lsgm_core::{Batch, Dataset, Measure, Result, Rng, Yardstick};
use lsgm_data::SoundClips;
use lsgm_measure::FeatureSpace;
use rayon::prelude::*;

use super::clips;
use crate::spectrum::LogMel;

/// What the names of the features are followed by.
const PLANES: &str = "on log-mel planes";

/// A data set of sound as log-mel planes `[B, 1, bands, frames]`.
pub(crate) struct MelPlanes {
    sounds: SoundClips,
    mel: LogMel,
}

impl MelPlanes {
    pub(crate) fn new(sounds: SoundClips, rate: u32) -> Self {
        Self { sounds, mel: LogMel::new(rate) }
    }
}

impl Dataset for MelPlanes {
    fn len(&self) -> usize {
        self.sounds.len()
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Batch> {
        let Batch { x, labels } = self.sounds.batch(indices, rng)?;
        Ok(Batch { x: planes(&x, &self.mel)?, labels })
    }
}

/// Clips `[N, 1, L]` as planes `[N, 1, bands, frames]`, low bands first.
pub(crate) fn planes(items: &Tensor, mel: &LogMel) -> Result<Tensor> {
    let clips = clips(items)?;
    let frames = clips.first().map_or(0, |c| mel.frames(c.len()));
    let plane = |clip: &Vec<f32>| {
        let frames = mel.of(clip);
        (0..mel.bands()).flat_map(|b| frames.iter().map(move |f| f[b]).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let values: Vec<f32> = clips.par_iter().flat_map_iter(plane).collect();
    Ok(Tensor::from_vec(values, (clips.len(), 1, mel.bands(), frames), &Device::Cpu)?)
}

/// Measures of samples against test data; nothing for too few samples.
pub(crate) fn compare(
    samples: &Tensor,
    train: &MelPlanes,
    test: &MelPlanes,
    yardstick: &mut Yardstick<'_>,
) -> Result<Vec<Measure>> {
    /// Fewer have no neighbourhoods.
    const LEAST: usize = 7;
    if samples.dim(0)? < LEAST {
        return Ok(Vec::new());
    }
    let space = FeatureSpace::open(train, yardstick)?;
    let samples = planes(samples, &test.mel)?;
    let mut measures = lsgm_measure::compare(&space, &samples, test, train, yardstick)?;
    measures
        .iter_mut()
        .for_each(|m| m.meaning = m.meaning.replace(space.name(), &format!("{} {PLANES}", space.name())));
    if let Some(probabilities) = space.describe(&samples)?.probabilities {
        measures.extend(certainty(&probabilities)?);
    }
    Ok(measures)
}

/// How many samples are clearly of a class, and how many classes they are of.
fn certainty(probabilities: &Tensor) -> Result<[Measure; 2]> {
    let best: Vec<f32> = probabilities.max(1)?.to_dtype(DType::F32)?.to_vec1()?;
    let confident = best.iter().filter(|p| **p >= 0.5).count() as f64 / best.len().max(1) as f64;
    let classes: std::collections::BTreeSet<u32> = probabilities.argmax(1)?.to_vec1::<u32>()?.into_iter().collect();
    let of = probabilities.dim(1)?;
    Ok([
        Measure::new("confident_share", confident, "share", "samples whose likeliest label has a probability of 0.5"),
        Measure::new("classes_present", classes.len() as f64, "", format!("labels that samples are given, of {of}")),
    ])
}

/// How often the classifier gives reconstructions the label of their original, where labels are known.
pub(crate) fn recognition(
    originals: &Tensor,
    reconstructions: &Tensor,
    labels: &[u32],
    train: &MelPlanes,
    yardstick: &mut Yardstick<'_>,
) -> Result<Vec<Measure>> {
    let space = FeatureSpace::open(train, yardstick)?;
    let share = |items: &Tensor, name: &str, meaning: &str| -> Result<Option<Measure>> {
        let Some(probabilities) = space.describe(&planes(items, &train.mel)?)?.probabilities else { return Ok(None) };
        let named = probabilities.argmax(1)?.to_vec1::<u32>()?;
        let n = named.len().max(1) as f64;
        let share = named.iter().zip(labels).filter(|(a, b)| a == b).count() as f64 / n;
        let meaning = format!("{meaning} that are given their label, {} {PLANES}", space.name());
        Ok(Some(Measure::new(name, share, "share", meaning).with_stderr((share * (1.0 - share) / n).sqrt())))
    };
    let measures = [
        share(reconstructions, "recognised", "reconstructions")?,
        share(originals, "recognised_originals", "their originals")?,
    ];
    Ok(measures.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_has_low_bands_first_and_time_along_its_rows() {
        let mel = LogMel::new(4000);
        let tone: Vec<f32> = (0..2048).map(|i| if i < 1024 { 0.0 } else { (0.3 * i as f32).sin() }).collect();
        let items = Tensor::from_vec(tone, (1, 1, 2048), &Device::Cpu).unwrap();
        let found = planes(&items, &mel).unwrap();
        assert_eq!(found.dims(), [1, 1, mel.bands(), mel.frames(2048)]);
        let rows = found.flatten(0, 2).unwrap().to_vec2::<f32>().unwrap();
        let last = |row: &Vec<f32>| row[row.len() - 1];
        let loudest = rows.iter().enumerate().max_by(|a, b| last(a.1).total_cmp(&last(b.1))).unwrap();
        // 191 Hz of 2000 lies in the lowest third.
        assert!(loudest.0 < mel.bands() / 3 && loudest.1[0] == 0.0, "{}", loudest.0);
    }
}
