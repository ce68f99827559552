//! Nucleotide sequences: ids 0 to 3 for A, C, G and T, items `[B, length]`, one nucleotide a token.
//!
//! The sequences are drawn on the spot: independent nucleotides in which motifs are planted, each with a probability of
//! its own and at one of eight places. What a sample has to get right is therefore known exactly.

use lsgm::nn::{Conv1d, Embedding, GroupNorm, Linear};
use lsgm::prelude::*;
use ops::{Activation, Conv1dConfig, upsample_nearest1d};
use serde::{Deserialize, Serialize};

const BASES: &str = "ACGT";
/// Motifs, and the share of sequences in which each is planted: a TATA box, and an inverted CCAAT box.
const MOTIFS: [(&str, f64); 2] = [("TATAAAAG", 0.6), ("GGATTGGC", 0.3)];

/// Section `[data]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Data {
    /// Nucleotides of a sequence, a multiple of 16.
    length: usize,
    /// Sequences of the training split; a tenth of it are in each of the others.
    items: usize,
}

impl Default for Data {
    fn default() -> Self {
        Self { length: 64, items: 50_000 }
    }
}

/// Section `[autoencoder]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Model {
    /// Channels of the convolutions, a multiple of 8.
    channels: usize,
    /// Dimensions of the latent.
    latent_channels: usize,
}

impl Default for Model {
    fn default() -> Self {
        Self { channels: 64, latent_channels: 16 }
    }
}

pub(crate) struct Dna(Data, Model);

impl Modality for Dna {
    const NAME: &'static str = "dna";
    type Data = Data;
    type Model = Model;

    fn new(data: &Data, model: &Model, _: &Assets) -> Result<Self> {
        for (key, value, unit) in [("data.length", data.length, 16), ("autoencoder.channels", model.channels, 8)] {
            if value == 0 || !value.is_multiple_of(unit) {
                return Err(Error::config(key, format!("{value} is not a multiple of {unit}")));
            }
        }
        Ok(Self(data.clone(), model.clone()))
    }

    fn dataset(&self, split: Split, _: Option<&Path>) -> Result<Box<dyn Dataset>> {
        let items = if split == Split::Train { self.0.items } else { self.0.items / 10 };
        Ok(Box::new(Sequences(Data { items, ..self.0 }, Rng::new(0).fork(split.name()))))
    }

    fn build(&self, params: &Params) -> Result<Box<dyn Autoencoder>> {
        Ok(Box::new(Vae::new(self.0.length, &self.1, params)?))
    }

    fn data_dim(&self) -> usize {
        self.0.length
    }

    /// One sequence a line.
    fn render(&self, items: &Tensor, _: Arrangement) -> Result<Vec<Artifact>> {
        let text = texts(items)?.join("\n");
        Ok(vec![Artifact { suffix: String::new(), extension: "txt", bytes: text.into_bytes() }])
    }

    /// How often each motif occurs in the samples, as a multiple of how often it occurs in the test split.
    fn measure_samples(&self, samples: &Tensor, yardstick: &mut Yardstick<'_>) -> Result<Vec<Measure>> {
        let test = self.dataset(Split::Test, None)?;
        let real = texts(&test.batch(&Vec::from_iter(0..test.len()), yardstick.rng)?.x)?;
        let drawn = texts(samples)?;
        let measure = |(motif, _): &(&str, f64)| {
            let share = |t: &[String]| t.iter().filter(|t| t.contains(motif)).count() as f64 / t.len() as f64;
            let meaning = format!("samples with {motif}, {:.3}, over the data's {:.3}", share(&drawn), share(&real));
            Measure::new(format!("frequency_{}", motif.to_lowercase()), share(&drawn) / share(&real), "", meaning)
        };
        Ok(MOTIFS.iter().map(measure).collect())
    }
}

/// Items as letters.
fn texts(items: &Tensor) -> Result<Vec<String>> {
    let rows = items.to_vec2::<u32>()?;
    Ok(rows.iter().map(|row| row.iter().filter_map(|id| BASES.chars().nth(*id as usize)).collect()).collect())
}

/// Sequences as the config describes them, each from a generator of its own.
struct Sequences(Data, Rng);

impl Sequences {
    fn sequence(&self, index: usize) -> Vec<u32> {
        let mut rng = self.1.fork(&index.to_string());
        let mut sequence: Vec<u32> = (0..self.0.length).map(|_| rng.below(4) as u32).collect();
        // Each motif near the start of a part of its own.
        for ((motif, probability), part) in MOTIFS.iter().zip(sequence.chunks_mut(self.0.length / MOTIFS.len())) {
            if rng.uniform() < *probability {
                let place = rng.below(8);
                let ids = motif.chars().filter_map(|base| Some(BASES.find(base)? as u32));
                part[place..].iter_mut().zip(ids).for_each(|(base, id)| *base = id);
            }
        }
        sequence
    }
}

impl Dataset for Sequences {
    fn len(&self) -> usize {
        self.0.items
    }

    fn batch(&self, indices: &[usize], _: &mut Rng) -> Result<Batch> {
        let rows = Vec::from_iter(indices.iter().map(|i| self.sequence(*i)));
        Ok(Batch { x: Tensor::new(rows, &Device::Cpu)?, labels: None })
    }
}

/// Norm, SiLU, convolution of width 5.
struct Block(GroupNorm, Conv1d);

impl Block {
    fn new(inputs: usize, outputs: usize, stride: usize, params: &Params) -> Result<Self> {
        let config = Conv1dConfig { stride, padding: 2, ..Conv1dConfig::default() };
        let norm = GroupNorm::new(8, inputs, 1e-5, Activation::Silu, &params.pp("norm"))?;
        Ok(Self(norm, Conv1d::new(inputs, outputs, 5, config, true, &params.pp("conv"))?))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.1.forward(&self.0.forward(x)?)
    }
}

/// Two halvings to a latent of one position, two doublings back.
struct Vae {
    model: Model,
    embedding: Embedding,
    down: [Block; 2],
    posterior: Linear,
    enter: Linear,
    up: [Block; 3],
}

impl Vae {
    fn new(length: usize, model: &Model, params: &Params) -> Result<Self> {
        let (c, latent, inner) = (model.channels, model.latent_channels, model.channels * length / 4);
        let (enc, dec) = (params.pp("encoder"), params.pp("decoder"));
        let down = |i: usize| Block::new(c, c, 2, &enc.pp("down").pp(i));
        let up = |i: usize, outputs| Block::new(c, outputs, 1, &dec.pp("up").pp(i));
        Ok(Self {
            model: model.clone(),
            embedding: Embedding::new(4, c, &enc.pp("embedding"))?,
            down: [down(0)?, down(1)?],
            posterior: Linear::new(inner, 2 * latent, true, &enc.pp("posterior"))?,
            enter: Linear::new(latent, inner, true, &dec.pp("enter"))?,
            up: [up(0, c)?, up(1, c)?, up(2, 4)?],
        })
    }
}

impl Encoder for Vae {
    fn latent_shape(&self) -> LatentShape {
        LatentShape::line(self.model.latent_channels, 1)
    }

    fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
        let h = self.embedding.forward(x)?.transpose(1, 2)?.contiguous()?;
        let h = self.down[1].forward(&self.down[0].forward(&h)?)?.flatten_from(1)?;
        let halves = self.posterior.forward(&h)?.unsqueeze(2)?.chunk(2, 1)?;
        Posterior::normal(soft_clamp(&halves[0], 5.0)?, soft_clamp(&halves[1], 5.0)?, pass.rng)
    }
}

impl Decoder for Vae {
    fn decode(&self, z: &Latents, _: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
        let h = self.enter.forward(&z.prior.flatten_from(1)?)?.reshape((z.prior.dim(0)?, self.model.channels, ()))?;
        let h = self.up[1].forward(&upsample_nearest1d(&self.up[0].forward(&h)?, 2)?)?;
        let logits = self.up[2].forward(&upsample_nearest1d(&h, 2)?)?;
        Ok(Box::new(Categorical::new(logits.transpose(1, 2)?.contiguous()?)))
    }
}

impl Autoencoder for Vae {}
