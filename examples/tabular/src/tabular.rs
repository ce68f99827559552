//! Tables of categories: items `[B, columns]` of ids, each the place of a value among the values of its column.
//!
//! These values are collected from the file before training and travel with the run as an asset: a run
//! directory is enough to sample.

use lsgm::data::{Categories, TextTable};
use lsgm::nn::{Embedding, Linear};
use lsgm::prelude::*;
use serde::{Deserialize, Serialize};

/// Section `[data]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Data {
    /// A table `*.csv` or `*.parquet`, from the folder of `--data` or from the current one. Of ten rows the last two are
    /// for validation and test.
    file: String,
}

/// Section `[autoencoder]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Model {
    /// Width of the hidden layers.
    width: usize,
    /// Dimensions of the latent.
    latent_channels: usize,
}

impl Default for Model {
    fn default() -> Self {
        Self { width: 256, latent_channels: 16 }
    }
}

pub(crate) struct Tabular(Data, Model, Categories);

const ASSET: &str = "categories.json";

fn read(data: &Data, dir: Option<&Path>) -> Result<TextTable> {
    Ok(TextTable::read(&dir.unwrap_or(Path::new("")).join(&data.file))?)
}

impl Modality for Tabular {
    const NAME: &'static str = "tabular";
    type Data = Data;
    type Model = Model;

    fn prepare(data: &Data, dir: Option<&Path>) -> Result<Assets> {
        let categories = Categories::of(&read(data, dir)?);
        let json = serde_json::to_vec(&categories).map_err(|e| Error::Other(e.into()))?;
        Ok(Assets::from([(ASSET.to_owned(), json)]))
    }

    fn new(data: &Data, model: &Model, assets: &Assets) -> Result<Self> {
        let json = assets.get(ASSET).ok_or_else(|| Error::contract("assets", format!("there is no {ASSET}")))?;
        let categories: Categories = serde_json::from_slice(json).map_err(|e| Error::Other(e.into()))?;
        if model.width == 0 || model.latent_channels == 0 {
            return Err(Error::config("autoencoder", "width and latent_channels must not be 0"));
        }
        Ok(Self(data.clone(), model.clone(), categories))
    }

    fn dataset(&self, split: Split, dir: Option<&Path>) -> Result<Box<dyn Dataset>> {
        let rows = self.2.encode(&read(&self.0, dir)?, self.0.file.as_ref())?;
        let of =
            |row: usize| [Split::Val, Split::Test].get((row % 10).wrapping_sub(8)).copied().unwrap_or(Split::Train);
        Ok(Box::new(Rows(rows.into_iter().enumerate().filter(|(i, _)| of(*i) == split).map(|(_, row)| row).collect())))
    }

    fn build(&self, params: &Params) -> Result<Box<dyn Autoencoder>> {
        Ok(Box::new(Vae::new(&self.2.sizes(), &self.1, params)?))
    }

    fn data_dim(&self) -> usize {
        self.2.sizes().len()
    }

    fn render(&self, items: &Tensor, _: Arrangement) -> Result<Vec<Artifact>> {
        let bytes = self.2.decode(&items.to_vec2()?).to_csv().into_bytes();
        Ok(vec![Artifact { suffix: String::new(), extension: "csv", bytes }])
    }

    /// How far the associations of pairs of columns are from those of all rows.
    fn measure_samples(&self, samples: &Tensor, stick: &mut Yardstick<'_>) -> Result<Vec<Measure>> {
        let train = self.dataset(Split::Train, stick.data_dir)?;
        let real = train.batch(&(0..train.len()).collect::<Vec<_>>(), stick.rng)?.x.to_vec2::<u32>()?;
        let drawn = samples.to_vec2::<u32>()?;
        let pairs = (0..self.2.sizes().len()).flat_map(|b| (0..b).map(move |a| (a, b)));
        let apart: Vec<f64> = pairs.map(|(a, b)| (cramers_v(&drawn, a, b) - cramers_v(&real, a, b)).abs()).collect();
        let (mean, largest) =
            (apart.iter().sum::<f64>() / apart.len() as f64, apart.iter().copied().fold(0.0, f64::max));
        let meaning = "difference of Cramér's V of a pair of columns, samples and training rows";
        let measure =
            |which: &str, value| Measure::new(format!("cramers_v_{which}"), value, "", format!("{which} {meaning}"));
        Ok(vec![measure("mean", mean), measure("largest", largest)])
    }
}

/// Cramér's V of two columns: 0 where they are independent, 1 where one determines the other.
fn cramers_v(rows: &[Vec<u32>], a: usize, b: usize) -> f64 {
    let size = |column: usize| rows.iter().map(|row| row[column] as usize + 1).max().unwrap_or(0);
    let mut counts = vec![vec![0f64; size(b)]; size(a)];
    rows.iter().for_each(|row| counts[row[a] as usize][row[b] as usize] += 1.0);
    let of_a: Vec<f64> = counts.iter().map(|row| row.iter().sum()).collect();
    let of_b: Vec<f64> = (0..size(b)).map(|j| counts.iter().map(|row| row[j]).sum()).collect();
    let cells = counts.iter().zip(&of_a).flat_map(|(row, a)| row.iter().zip(&of_b).map(move |(n, b)| (n * n, a * b)));
    let phi_squared = cells.filter(|(_, expected)| *expected > 0.0).map(|(n, e)| n / e).sum::<f64>() - 1.0;
    let seen = |of: &[f64]| of.iter().filter(|count| **count > 0.0).count() as f64;
    (phi_squared / (seen(&of_a).min(seen(&of_b)) - 1.0).max(1.0)).max(0.0).sqrt()
}

struct Rows(Vec<Vec<u32>>);

impl Dataset for Rows {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn batch(&self, indices: &[usize], _: &mut Rng) -> Result<Batch> {
        let rows: Vec<&[u32]> = indices.iter().map(|i| self.0[*i].as_slice()).collect();
        Ok(Batch { x: Tensor::new(rows, &Device::Cpu)?, labels: None })
    }
}

/// Two networks of three layers. The latent has one position: `[B, C, 1]`.
struct Vae {
    latent: usize,
    /// Where the values of each column begin in the embedding, `[1, columns]`.
    offsets: Tensor,
    /// 0 where a column has a value, else so low that it has no probability, `[1, columns, values]`.
    mask: Tensor,
    embedding: Embedding,
    encoder: Vec<Linear>,
    decoder: Vec<Linear>,
}

impl Vae {
    fn new(values: &[usize], model: &Model, params: &Params) -> Result<Self> {
        let (columns, most) = (values.len(), values.iter().copied().max().unwrap_or(1));
        let layers = |sizes: [usize; 4], params: Params| -> Result<Vec<Linear>> {
            (0..3).map(|i| Linear::new(sizes[i], sizes[i + 1], true, &params.pp(i))).collect()
        };
        let (width, latent, embedded) = (model.width, model.latent_channels, 16);
        let mask = |i: usize| if i % most < values[i / most] { 0f32 } else { -1e9 };
        let mask = Tensor::from_vec((0..columns * most).map(mask).collect(), (1, columns, most), &params.device())?;
        Ok(Self {
            latent,
            offsets: (Tensor::arange(0, columns as u32, &params.device())? * most as f64)?.unsqueeze(0)?,
            mask,
            embedding: Embedding::new(columns * most, embedded, &params.pp("encoder.embedding"))?,
            encoder: layers([columns * embedded, width, width, 2 * latent], params.pp("encoder"))?,
            decoder: layers([latent, width, width, columns * most], params.pp("decoder"))?,
        })
    }
}

/// Layers with SiLU between them.
fn run(layers: &[Linear], x: &Tensor) -> Result<Tensor> {
    let first = layers[0].forward(x)?;
    layers[1..].iter().try_fold(first, |h, layer| layer.forward(&ops::silu(&h)?))
}

impl Encoder for Vae {
    fn latent_shape(&self) -> LatentShape {
        LatentShape::line(self.latent, 1)
    }

    fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
        let h = self.embedding.forward(&x.broadcast_add(&self.offsets)?)?.flatten_from(1)?;
        let halves = run(&self.encoder, &h)?.unsqueeze(2)?.chunk(2, 1)?;
        Posterior::normal(soft_clamp(&halves[0], 5.0)?, soft_clamp(&halves[1], 5.0)?, pass.rng)
    }
}

impl Decoder for Vae {
    fn decode(&self, z: &Latents, _: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
        let (_, columns, most) = self.mask.dims3()?;
        let logits = run(&self.decoder, &z.prior.flatten_from(1)?)?.reshape(((), columns, most))?;
        Ok(Box::new(Categorical::new(logits.broadcast_add(&self.mask)?)))
    }
}

impl Autoencoder for Vae {}
