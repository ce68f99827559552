use std::path::Path;

use candle_core::Tensor;
use lsgm_core::{Arrangement, Artifact, Assets, Autoencoder, Dataset, Modality, Params, Result, Split};
use lsgm_data::BinaryConfig;

use crate::config::ModelConfig;
use crate::plain::PlainVae;
use crate::render::grid;

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
        }
        Ok(Self { data: data.clone(), model: model.clone() })
    }

    fn dataset(&self, split: Split, dir: Option<&Path>) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.data.open(split, dir)?))
    }

    fn build(&self, params: &Params) -> Result<Box<dyn Autoencoder>> {
        Ok(match &self.model {
            ModelConfig::Plain(plain) => Box::new(PlainVae::new(plain, self.data.height, self.data.width, params)?),
        })
    }

    fn data_dim(&self) -> usize {
        self.data.height * self.data.width
    }

    fn render(&self, items: &Tensor, arrangement: Arrangement) -> Result<Vec<Artifact>> {
        Ok(vec![grid(items, arrangement)?])
    }
}
