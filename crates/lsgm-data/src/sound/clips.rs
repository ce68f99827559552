//! Clips of one length, and batches of them.

use candle_core::{Device, Tensor};
use lsgm_core::{Batch, Dataset, Resident, Rng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{DataError, Result};

/// What every clip of a set has in common.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClipForm {
    /// Samples in a second.
    pub rate: u32,
    /// Samples of a clip; shorter sounds are followed by silence.
    pub samples: usize,
    /// Root mean square that each clip is brought to, in dB below full scale.
    pub level: Option<f64>,
}

/// One clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clip {
    /// The samples, [`ClipForm::samples`] of them.
    pub samples: Vec<i16>,
    /// The class, where the source has classes.
    pub label: Option<u32>,
}

/// Indexed clips, wherever they come from: memory, files, a generator.
pub(crate) trait Sounds: Send + Sync {
    /// Number of clips in an epoch.
    fn len(&self) -> usize;

    /// Whether some clips are cut from other places at each visit.
    fn are_left_to_chance(&self) -> bool;

    /// Clip `index`. `place` in [0, 1) says where it is cut from a longer recording, when that is left to chance.
    ///
    /// # Errors
    /// A file that cannot be read.
    fn read(&self, index: usize, place: f64) -> Result<Clip>;
}

impl ClipForm {
    /// Mono samples in [-1, 1] as a clip: brought to the level that is asked for, cut or filled up with silence, rounded
    /// to 16 bits.
    pub(crate) fn quantise(&self, mut samples: Vec<f32>) -> Vec<i16> {
        let gain = self.gain(&samples);
        samples.resize(self.samples, 0.0);
        samples
            .into_iter()
            .map(|v| (gain * f64::from(v) * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16)
            .collect()
    }

    /// The factor that leads to the level: of silence none, and never one that clips.
    fn gain(&self, samples: &[f32]) -> f64 {
        let Some(level) = self.level else { return 1.0 };
        let squares: f64 = samples.iter().map(|v| f64::from(*v).powi(2)).sum();
        let peak = samples.iter().fold(0.0_f64, |m, v| m.max(f64::from(v.abs())));
        if peak == 0.0 {
            return 1.0;
        }
        let rms = (squares / samples.len() as f64).sqrt();
        (10f64.powf(level / 20.0) / rms).min(32_767.0 / 32_768.0 / peak)
    }
}

/// Clips as tensors `[B, 1, L]` (`f32`): 16-bit samples over 32,768, so that each is a multiple of 2⁻¹⁵ in [-1, 1).
pub struct SoundClips {
    sounds: Box<dyn Sounds>,
    samples: usize,
}

impl SoundClips {
    /// Batches of `sounds`, which all have `samples` samples.
    pub(crate) fn new(sounds: Box<dyn Sounds>, samples: usize) -> Self {
        Self { sounds, samples }
    }
}

/// Clips of one length as `[B, 1, L]`.
pub(super) fn to_tensor(clips: &[Clip], samples: usize) -> lsgm_core::Result<Tensor> {
    let values: Vec<f32> = clips.iter().flat_map(|c| &c.samples).map(|v| f32::from(*v) / 32_768.0).collect();
    Ok(Tensor::from_vec(values, (clips.len(), 1, samples), &Device::Cpu)?)
}

impl Dataset for SoundClips {
    fn len(&self) -> usize {
        self.sounds.len()
    }

    fn resident(&self, device: &Device, limit: usize) -> lsgm_core::Result<Option<Box<dyn Dataset>>> {
        if self.sounds.are_left_to_chance() {
            return Ok(None);
        }
        // A place is drawn for each clip, whether it is used or not.
        let finish = |x: Tensor, rng: &mut Rng| {
            (0..x.dim(0)?).for_each(|_| _ = rng.uniform());
            Ok(x)
        };
        let read = |indices: &[usize]| self.batch(indices, &mut Rng::new(0));
        Resident::load(self.len(), device, limit, read, Box::new(finish))
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> lsgm_core::Result<Batch> {
        let places: Vec<(usize, f64)> = indices.iter().map(|i| (*i, rng.uniform())).collect();
        let clips: Vec<Clip> =
            places.into_par_iter().map(|(index, place)| self.sounds.read(index, place)).collect::<Result<_>>()?;
        let labels: Vec<u32> = clips.iter().filter_map(|c| c.label).collect();
        if !labels.is_empty() && labels.len() != clips.len() {
            return Err(DataError::Contract("some clips have labels and some have none".into()).into());
        }
        let x = to_tensor(&clips, self.samples)?;
        let labels = if labels.is_empty() { None } else { Some(Tensor::new(labels, &Device::Cpu)?) };
        Ok(Batch { x, labels })
    }
}

impl std::fmt::Debug for SoundClips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} clips of {} samples", self.sounds.len(), self.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_reached_without_clipping_and_silence_stays() {
        let form = |level| ClipForm { rate: 8000, samples: 4, level };
        assert_eq!(form(None).quantise(vec![0.5, -1.0, 2.0]), [16_384, -32_768, 32_767, 0]);
        let rms = |clip: &[i16]| (clip.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 4.0).sqrt() / 32_768.0;
        assert!((rms(&form(Some(-20.0)).quantise(vec![0.01, -0.01, 0.01, -0.01])) - 0.1).abs() < 1e-4);
        assert_eq!(form(Some(-1.0)).quantise(vec![0.0, 0.0, 0.0, 0.5])[3], 32_767);
        assert_eq!(form(Some(-20.0)).quantise(vec![0.0; 9]), [0; 4]);
    }
}
