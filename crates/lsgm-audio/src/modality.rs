use std::path::Path;

use candle_core::{Device, Tensor};
use lsgm_core::{
    Arrangement, Artifact, Assets, Autoencoder, Dataset, Measure, Modality, Params, Result, Split, Yardstick,
    nats_to_bits,
};
use lsgm_data::SoundConfig;

use crate::config::{LikelihoodConfig, ModelConfig, WaveConfig};
use crate::measures::{
    Baselines, Grid, MelPlanes, clips, compare, mean_of, measure_pairs, recognition, spectral_flatness,
};
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

    /// The training split, if it is at hand: a model is evaluated where its training data are not, too.
    fn train(&self, dir: Option<&Path>) -> Result<Option<lsgm_data::SoundClips>> {
        match self.open(Split::Train, dir) {
            Err(e) if e.is_input() => Ok(None),
            other => other.map(Some),
        }
    }

    /// The labels of clips that are the first of the test split or of the validation split.
    fn labels_of(&self, clips: &Tensor, yardstick: &mut Yardstick<'_>) -> Result<Option<Vec<u32>>> {
        let count = clips.dim(0)?;
        for split in [Split::Test, Split::Val] {
            let Ok(data) = self.open(split, yardstick.data_dir) else { continue };
            let indices: Vec<usize> = (0..count.min(data.len())).collect();
            let batch = data.batch(&indices, yardstick.rng)?;
            let same = batch.x.dims() == clips.dims()
                && (batch.x - clips.to_device(&Device::Cpu)?)?.abs()?.max_all()?.to_scalar::<f32>()? == 0.0;
            if let (true, Some(labels)) = (same, batch.labels) {
                return Ok(Some(labels.to_vec1::<u32>()?));
            }
        }
        Ok(None)
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
        yardstick: &mut Yardstick<'_>,
    ) -> Result<Vec<Measure>> {
        let mut measures = measure_pairs(originals, reconstructions, self.data.sample_rate)?;
        if let (Some(train), Some(labels)) = (self.train(yardstick.data_dir)?, self.labels_of(originals, yardstick)?) {
            let train = MelPlanes::new(train, self.data.sample_rate);
            measures.extend(recognition(originals, reconstructions, &labels, &train, yardstick)?);
        }
        Ok(measures)
    }

    fn measure_samples(&self, samples: &Tensor, yardstick: &mut Yardstick<'_>) -> Result<Vec<Measure>> {
        let (rate, reference) = (self.data.sample_rate, self.reference(yardstick.data_dir)?);
        let indices: Vec<usize> = (0..reference.len().min(COMPARED)).collect();
        let data = clips(&reference.batch(&indices, yardstick.rng)?.x)?;
        let window = ((f64::from(rate) * 0.032) as usize).next_power_of_two();
        let flatness = |clips: &[Vec<f32>]| clips.iter().map(|c| spectral_flatness(c, window)).collect::<Vec<_>>();
        let meaning = |of: &str| format!("{of}: geometric over arithmetic mean of the power spectrum; noise has -2.5");
        let flat = [
            mean_of("spectral_flatness", flatness(&clips(samples)?), "dB", meaning("samples")),
            mean_of("spectral_flatness_of_data", flatness(&data), "dB", meaning("test clips")),
        ];
        let mut measures: Vec<Measure> = flat.into_iter().flatten().collect();
        if let Some(train) = self.train(yardstick.data_dir)? {
            let (train, reference) = (MelPlanes::new(train, rate), MelPlanes::new(reference, rate));
            measures.extend(compare(samples, &train, &reference, yardstick)?);
        }
        Ok(measures)
    }

    fn measure_baselines(&self, items: usize, split: Split, yardstick: &mut Yardstick<'_>) -> Result<Vec<Measure>> {
        let Some(train) = self.train(yardstick.data_dir)? else { return Ok(Vec::new()) };
        let baselines = Baselines::fit(self.grid(), &train, yardstick.rng)?;
        (yardstick.progress)(0.5);
        baselines.measure(&self.open(split, yardstick.data_dir)?, items, yardstick.rng)
    }
}
