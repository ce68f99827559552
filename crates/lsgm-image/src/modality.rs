use std::path::Path;

use candle_core::Tensor;
use lsgm_core::{
    Arrangement, Artifact, Assets, Autoencoder, Dataset, Measure, Modality, Params, Result, Split, Yardstick,
};
use lsgm_data::ImageConfig;

use crate::config::{ImageShape, ModelConfig};
use crate::nvae::Nvae;
use crate::render::grid;

/// Grey and RGB images: `modality = "image"`. Items are `[B, C, H, W]` in [0, 1].
#[derive(Debug, Clone)]
pub struct Image {
    data: ImageConfig,
    shape: ImageShape,
    model: ModelConfig,
}

impl Modality for Image {
    const NAME: &'static str = "image";
    type Data = ImageConfig;
    type Model = ModelConfig;

    fn new(data: &ImageConfig, model: &ModelConfig, _: &Assets) -> Result<Self> {
        data.validate()?;
        let shape =
            ImageShape { channels: data.channels, height: data.height, width: data.width, bits: u32::from(data.bits) };
        match model {
            ModelConfig::Nvae(nvae) => nvae.validate(&shape)?,
        }
        Ok(Self { data: data.clone(), shape, model: model.clone() })
    }

    fn dataset(&self, split: Split, dir: Option<&Path>) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.data.open(split, dir)?))
    }

    fn build(&self, params: &Params) -> Result<Box<dyn Autoencoder>> {
        Ok(match &self.model {
            ModelConfig::Nvae(nvae) => Box::new(Nvae::new(nvae, self.shape, params)?),
        })
    }

    fn data_dim(&self) -> usize {
        self.shape.channels * self.shape.height * self.shape.width
    }

    fn render(&self, items: &Tensor, arrangement: Arrangement) -> Result<Vec<Artifact>> {
        Ok(vec![grid(items, arrangement)?])
    }

    fn measure_samples(&self, samples: &Tensor, yardstick: &mut Yardstick<'_>) -> Result<Vec<Measure>> {
        let train = self.dataset(Split::Train, yardstick.data_dir)?;
        let test = self.dataset(Split::Test, yardstick.data_dir)?;
        lsgm_measure::compare_with(samples, test.as_ref(), train.as_ref(), yardstick)
    }
}
