use std::path::Path;

use candle_core::{DType, Tensor};
use lsgm_core::{
    Arrangement, Artifact, Assets, Autoencoder, Dataset, Error, Measure, Modality, Params, Result, Rng, Split,
    Yardstick,
};
use lsgm_data::BinaryConfig;
use lsgm_image::{ImageShape, Nvae, PixelLikelihood, grid};

use crate::config::ModelConfig;
use crate::plain::PlainVae;

/// Binarized images: `modality = "binary"`.
#[derive(Debug, Clone)]
pub struct Binary {
    data: BinaryConfig,
    model: ModelConfig,
}

impl Modality for Binary {
    const NAME: &'static str = "binary";
    type Data = BinaryConfig;
    type Model = ModelConfig;

    fn new(data: &BinaryConfig, model: &ModelConfig, _: &Assets) -> Result<Self> {
        data.validate()?;
        match model {
            ModelConfig::Plain(plain) => plain.validate(data.height, data.width)?,
            ModelConfig::Nvae(nvae) => {
                let shape = shape(data);
                nvae.validate(&shape)?;
                if nvae.likelihood_of(&shape) != PixelLikelihood::Bernoulli {
                    return Err(Error::config("autoencoder.likelihood", "binary images have `bernoulli`"));
                }
            }
        }
        Ok(Self { data: data.clone(), model: model.clone() })
    }

    fn dataset(&self, split: Split, dir: Option<&Path>) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.data.open(split, dir)?))
    }

    fn build(&self, params: &Params) -> Result<Box<dyn Autoencoder>> {
        Ok(match &self.model {
            ModelConfig::Plain(plain) => Box::new(PlainVae::new(plain, self.data.height, self.data.width, params)?),
            ModelConfig::Nvae(nvae) => Box::new(Nvae::new(nvae, shape(&self.data), params)?),
        })
    }

    fn data_dim(&self) -> usize {
        self.data.height * self.data.width
    }

    fn render(&self, items: &Tensor, arrangement: Arrangement) -> Result<Vec<Artifact>> {
        Ok(vec![grid(items, arrangement)?])
    }

    fn measure_samples(&self, samples: &Tensor, yardstick: &mut Yardstick<'_>) -> Result<Vec<Measure>> {
        let train = self.dataset(Split::Train, yardstick.data_dir)?;
        let test = self.dataset(Split::Test, yardstick.data_dir)?;
        let samples = draw(samples, yardstick.rng)?;
        lsgm_measure::compare_with(&samples, test.as_ref(), train.as_ref(), yardstick)
    }
}

/// Black and white pixels where `means` says how likely white is: the data have no grey, and pixels are independent given
/// the latents.
fn draw(means: &Tensor, rng: &mut Rng) -> Result<Tensor> {
    let threshold = rng.uniform_tensor(means.shape().clone(), means.dtype(), means.device())?;
    Ok(threshold.lt(means)?.to_dtype(DType::F32)?)
}

fn shape(data: &BinaryConfig) -> ImageShape {
    ImageShape { channels: 1, height: data.height, width: data.width, bits: 1 }
}
