//! Section `[data]` of a config for sound.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use lsgm_core::{Error, Split};
use serde::{Deserialize, Serialize};

use super::clips::to_tensor;
use super::{ClipForm, SoundClips, SoundRequest, open_sounds, read_clip};
use crate::{Card, Hub};

/// Section `[data]` for sound.
///
/// ```
/// use lsgm_core::{Dataset, Rng, Split};
/// let config = lsgm_data::SoundConfig { limit: Some(100), ..Default::default() };
/// let train = config.open(Split::Train, None, 64).unwrap();
/// assert_eq!(train.batch(&[3, 5], &mut Rng::new(0)).unwrap().x.dims(), [2, 1, 2048]);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoundConfig {
    /// Name of a data set card, or the path of one of your own (`*.toml`).
    pub set: String,
    /// A folder that holds the set's files; `--data` goes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Samples in a second; recordings at another rate are resampled.
    pub sample_rate: u32,
    /// Samples of a clip: longer recordings are cut, shorter ones are followed by silence.
    pub samples: usize,
    /// Cut the clips of training from any place of a longer recording, afresh at each visit. Those of other splits are
    /// always cut one after another from its beginning.
    pub random_crop: bool,
    /// Root mean square that each clip is brought to, in dB below full scale, such as -23; as it is without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<f64>,
    /// Train on the first so many recordings only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Seed of generated sets.
    pub seed: u64,
}

impl Default for SoundConfig {
    fn default() -> Self {
        Self {
            set: "tones".into(),
            dir: None,
            sample_rate: 4000,
            samples: 2048,
            random_crop: true,
            level: None,
            limit: None,
            seed: 0,
        }
    }
}

impl SoundConfig {
    /// What all clips have in common.
    pub(crate) fn form(&self) -> ClipForm {
        ClipForm { rate: self.sample_rate, samples: self.samples, level: self.level }
    }

    /// Check every key without touching data. A card in a file is left alone too: sampling needs none.
    ///
    /// # Errors
    /// [`Error::Config`] with the full key.
    pub fn validate(&self) -> lsgm_core::Result<()> {
        if self.limit == Some(0) {
            return Err(Error::config("data.limit", "0 recordings cannot be trained on: leave the key out for all"));
        }
        if !(1000..=384_000).contains(&self.sample_rate) {
            return Err(Error::config(
                "data.sample_rate",
                format!("{} Hz is not between 1000 and 384000", self.sample_rate),
            ));
        }
        if !(16..=1 << 22).contains(&self.samples) {
            return Err(Error::config("data.samples", format!("{} is not between 16 and {}", self.samples, 1 << 22)));
        }
        if let Some(level) = self.level.filter(|l| !(-120.0..=0.0).contains(l)) {
            return Err(Error::config(
                "data.level",
                format!("{level} dB does not lie between -120 and 0; -23 is usual"),
            ));
        }
        if !self.set.ends_with(".toml") {
            Card::find(&self.set).map_err(|e| Error::config("data.set", e.to_string()))?;
        }
        Ok(())
    }

    /// Open a split. `dir` is the user's `--data`; recordings of fewer than `shortest` samples are left out. Nothing is
    /// downloaded.
    ///
    /// # Errors
    /// As [`SoundConfig::validate`]; [`Error::Data`] for a set that is not at hand, or whose recordings cannot be read.
    pub fn open(&self, split: Split, dir: Option<&Path>, shortest: usize) -> lsgm_core::Result<SoundClips> {
        self.validate()?;
        let card = Card::find(&self.set)?;
        let sounds = open_sounds(&SoundRequest {
            card: &card,
            split,
            dir: dir.or(self.dir.as_deref()),
            hub: &Hub::from_env(),
            form: self.form(),
            random_crop: self.random_crop && split == Split::Train,
            shortest,
            seed: self.seed,
            limit: self.limit.filter(|_| split == Split::Train),
        })?;
        Ok(SoundClips::new(sounds, self.samples))
    }

    /// The beginnings of files as `[N, 1, L]`, in the form of [`SoundClips`].
    ///
    /// # Errors
    /// A file that is missing, damaged, or of a kind that cannot be read.
    pub fn read_files(&self, paths: &[String]) -> lsgm_core::Result<Tensor> {
        let form = self.form();
        let clips = paths.iter().map(|p| read_clip(Path::new(p), &form)).collect::<crate::Result<Vec<_>>>()?;
        to_tensor(&clips, self.samples)
    }
}
