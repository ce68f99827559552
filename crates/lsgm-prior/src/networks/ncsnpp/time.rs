//! What NCSN++ sees of the time.

use std::f64::consts::TAU;

use candle_core::{D, DType, Tensor, Var};
use lsgm_core::{Init, Params, Result};
use lsgm_nn::TimeEmbedding;
use serde::{Deserialize, Serialize};

use super::NcsnppConfig;

/// What a network sees of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeFeatures {
    /// Sine and cosine of `embedding_scale · t` at frequencies from 1 down to 1/10000 (Ho et al. 2020).
    #[default]
    Positional,
    /// Sine and cosine of `2π w t` for `w` drawn once from N(0, `embedding_scale`²) (Tancik et al. 2020).
    Fourier,
}

#[derive(Debug)]
pub(super) enum Features {
    Positional(TimeEmbedding),
    /// `[1, embedding / 2]`.
    Fourier(Var),
}

impl Features {
    /// The drawn frequencies carry their published name, `temb_fun.w`.
    pub(super) fn new(config: &NcsnppConfig, params: &Params) -> Result<Self> {
        let (dim, scale) = (config.embedding, config.embedding_scale);
        Ok(match config.embedding_kind {
            TimeFeatures::Positional => Self::Positional(TimeEmbedding { scale, ..TimeEmbedding::new(dim) }),
            TimeFeatures::Fourier => {
                Self::Fourier(params.pp("temb_fun").buffer_with("w", (1, dim / 2), Init::Normal(scale))?)
            }
        })
    }

    /// Times `[B]` to features `[B, embedding]`, in the type and on the device of `like`.
    pub(super) fn forward(&self, t: &Tensor, like: &Tensor) -> Result<Tensor> {
        match self {
            Self::Positional(embedding) => embedding.forward_like(t, like),
            Self::Fourier(frequencies) => {
                let times = t.detach().to_device(like.device())?.to_dtype(DType::F64)?.unsqueeze(1)?;
                let angles = times.broadcast_mul(&(frequencies.detach().to_dtype(DType::F64)? * TAU)?)?;
                Ok(Tensor::cat(&[angles.sin()?, angles.cos()?], D::Minus1)?.to_dtype(like.dtype())?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use lsgm_core::{ParamStore, Rng};

    #[test]
    fn drawn_frequencies_are_kept_and_turn_with_the_time() {
        let store = ParamStore::new(DType::F64, &Device::Cpu, Rng::new(3));
        let config = NcsnppConfig {
            embedding: 6,
            embedding_scale: 4.0,
            embedding_kind: TimeFeatures::Fourier,
            ..Default::default()
        };
        let features = Features::new(&config, &store.root()).unwrap();
        assert_eq!(store.count(""), 0, "nothing of it is trained");
        let w = store.tensors()["temb_fun.w"].flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let t = Tensor::new(&[0.0, 0.3], &Device::Cpu).unwrap();
        let found = features.forward(&t, &t).unwrap().to_vec2::<f64>().unwrap();
        for (row, t) in found.iter().zip([0.0, 0.3]) {
            for (i, w) in w.iter().enumerate() {
                let angle = 2.0 * std::f64::consts::PI * w * t;
                assert!((row[i] - angle.sin()).abs() < 1e-12 && (row[3 + i] - angle.cos()).abs() < 1e-12, "{row:?}");
            }
        }
    }
}
