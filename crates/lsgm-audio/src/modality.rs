use std::path::Path;

use candle_core::Tensor;
use lsgm_core::{
    Arrangement, Artifact, Assets, Autoencoder, Dataset, Measure, Modality, Params, Result, Split, Yardstick,
    nats_to_bits,
};
use lsgm_data::SoundConfig;

use crate::config::{LikelihoodConfig, ModelConfig, WaveConfig};
use crate::measures::{Baselines, Grid, clips, mean_of, measure_pairs, spectral_flatness};
use crate::render::render;
use crate::vae::WaveVae;

/// Clips of the data that samples are compared with.
const COMPARED: usize = 1000;

/// Sound: `modality = "audio"`.
#[derive(Debug, Clone)]
pub struct Audio {
    data: SoundConfig,
    model: WaveConfig,
}

impl Audio {
    fn open(&self, split: Split, dir: Option<&Path>) -> Result<lsgm_data::SoundClips> {
        self.data.open(split, dir, self.model.stride())
    }

    /// What samples are compared with: test clips, or those of another split where there are none.
    fn reference(&self, dir: Option<&Path>) -> Result<lsgm_data::SoundClips> {
        match self.open(Split::Test, dir) {
            Err(e) if e.is_input() => self.open(Split::Val, dir).or_else(|_| self.open(Split::Train, dir)),
            other => other,
        }
    }

    fn grid(&self) -> Grid {
        match self.model.likelihood {
            LikelihoodConfig::LogisticMixture { .. } => Grid::Linear,
            LikelihoodConfig::MuLaw { .. } => Grid::MuLaw,
        }
    }
}

impl Modality for Audio {
    const NAME: &'static str = "audio";
    type Data = SoundConfig;
    type Model = ModelConfig;

    fn new(data: &SoundConfig, model: &ModelConfig, _: &Assets) -> Result<Self> {
        data.validate()?;
        let ModelConfig::Wave(model) = model;
        model.validate(data.samples)?;
        Ok(Self { data: data.clone(), model: model.clone() })
    }

    fn dataset(&self, split: Split, dir: Option<&Path>) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.open(split, dir)?))
    }

    fn build(&self, params: &Params) -> Result<Box<dyn Autoencoder>> {
        Ok(Box::new(WaveVae::new(&self.model, self.data.samples, params)?))
    }

    fn data_dim(&self) -> usize {
        self.data.samples
    }

    fn seconds(&self) -> Option<f64> {
        Some(self.data.samples as f64 / f64::from(self.data.sample_rate))
    }

    fn render(&self, items: &Tensor, arrangement: Arrangement) -> Result<Vec<Artifact>> {
        render(&clips(items)?, arrangement, self.data.sample_rate)
    }

    fn read_items(&self, entries: &[String]) -> Result<Tensor> {
        self.data.read_files(entries)
    }

    fn measure_nelbo(
        &self,
        nelbo: f64,
        stderr: f64,
        _: usize,
        _: Split,
        _: &mut Yardstick<'_>,
    ) -> Result<Vec<Measure>> {
        let samples = self.data.samples;
        let meaning = match self.grid() {
            Grid::Linear => "nelbo for each 16-bit sample",
            Grid::MuLaw => "nelbo for each sample, companded to 8 bits",
        };
        let bits = Measure::new("bits_per_sample", nats_to_bits(nelbo, samples), "bits", meaning);
        Ok(vec![bits.with_stderr(nats_to_bits(stderr, samples))])
    }

    fn measure_reconstructions(
        &self,
        originals: &Tensor,
        reconstructions: &Tensor,
        _: &mut Yardstick<'_>,
    ) -> Result<Vec<Measure>> {
        measure_pairs(originals, reconstructions, self.data.sample_rate)
    }

    fn measure_samples(&self, samples: &Tensor, yardstick: &mut Yardstick<'_>) -> Result<Vec<Measure>> {
        let data = self.reference(yardstick.data_dir)?;
        let indices: Vec<usize> = (0..data.len().min(COMPARED)).collect();
        let data = clips(&data.batch(&indices, yardstick.rng)?.x)?;
        let window = ((f64::from(self.data.sample_rate) * 0.032) as usize).next_power_of_two();
        let flatness = |clips: &[Vec<f32>]| clips.iter().map(|c| spectral_flatness(c, window)).collect::<Vec<_>>();
        let meaning = |of: &str| format!("{of}: geometric over arithmetic mean of the power spectrum; noise has -2.5");
        let measures = [
            mean_of("spectral_flatness", flatness(&clips(samples)?), "dB", meaning("samples")),
            mean_of("spectral_flatness_of_data", flatness(&data), "dB", meaning("test clips")),
        ];
        Ok(measures.into_iter().flatten().collect())
    }

    fn measure_baselines(&self, split: Split, yardstick: &mut Yardstick<'_>) -> Result<Vec<Measure>> {
        let train = match self.open(Split::Train, yardstick.data_dir) {
            // A model is evaluated where its training data are not, too.
            Err(e) if e.is_input() => return Ok(Vec::new()),
            other => other?,
        };
        let baselines = Baselines::fit(self.grid(), &train, yardstick.rng)?;
        (yardstick.progress)(0.5);
        baselines.measure(&self.open(split, yardstick.data_dir)?, yardstick.rng)
    }
}
