//! The choice among several samples (`sample.candidates`).

use candle_core::{DType, Tensor};
use lsgm_core::{Pass, Result, Rng};

use crate::evaluate::cross_entropy;
use crate::model::Model;

/// Diffusion times at which the prior is asked for each item.
const TIME_SAMPLES: usize = 16;

/// How surprising each of the items `x` is to the prior: the KL divergence of its posterior to it in nats, for each unit of
/// the item's extent.
pub(crate) fn surprise(model: &Model, x: &Tensor, rng: &mut Rng) -> Result<Vec<f64>> {
    let posterior = model.autoencoder.encode(x, &mut Pass::eval(rng))?;
    let latents = posterior.conditional()?.detach();
    let kl = (posterior.neg_entropy()? + cross_entropy(model, &latents, TIME_SAMPLES, rng)?)?;
    let surprise = match model.autoencoder.extent(x)? {
        None => kl,
        Some(extent) => (&kl / extent.to_dtype(kl.dtype())?.to_device(kl.device())?)?,
    };
    Ok(surprise.to_dtype(DType::F64)?.to_vec1()?)
}

/// Samples, and how surprising each is.
pub(crate) struct Candidates {
    pub(crate) items: Tensor,
    pub(crate) latents: Tensor,
    pub(crate) surprise: Vec<f64>,
}

impl Candidates {
    /// For each place, the less surprising of two. What is not finite is the most surprising.
    pub(crate) fn or_less_surprising(self, other: Self) -> Result<Self> {
        let nats =
            |surprise: &[f64], place: usize| Some(surprise[place]).filter(|s| s.is_finite()).unwrap_or(f64::INFINITY);
        let places = self.surprise.len();
        let better: Vec<bool> = (0..places).map(|i| nats(&other.surprise, i) < nats(&self.surprise, i)).collect();
        let rows: Vec<u32> = (0..places).map(|i| (i + if better[i] { places } else { 0 }) as u32).collect();
        let rows = Tensor::new(rows, self.items.device())?;
        let choose = |a: &Tensor, b: &Tensor| Tensor::cat(&[a, b], 0)?.contiguous()?.index_select(&rows, 0);
        let surprise = (0..places).map(|i| if better[i] { other.surprise[i] } else { self.surprise[i] }).collect();
        Ok(Self {
            items: choose(&self.items, &other.items)?,
            latents: choose(&self.latents, &other.latents)?,
            surprise,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn round(items: [u32; 3], surprise: [f64; 3]) -> Candidates {
        let items = Tensor::new(&items, &Device::Cpu).unwrap();
        let latents = (items.to_dtype(DType::F32).unwrap() * 10.0).unwrap();
        Candidates { items, latents, surprise: surprise.to_vec() }
    }

    #[test]
    fn each_place_keeps_its_less_surprising_candidate() {
        let first = round([1, 2, 3], [0.5, 0.2, -f64::NAN]);
        let kept = first.or_less_surprising(round([4, 5, 6], [0.4, 0.3, 0.9])).unwrap();
        let kept = kept.or_less_surprising(round([7, 8, 9], [f64::NAN, 0.1, f64::INFINITY])).unwrap();
        assert_eq!(kept.items.to_vec1::<u32>().unwrap(), [4, 8, 6]);
        assert_eq!(kept.latents.to_vec1::<f32>().unwrap(), [40.0, 80.0, 60.0]);
        assert_eq!(kept.surprise, [0.4, 0.1, 0.9]);
    }
}
