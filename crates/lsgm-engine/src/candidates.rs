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

/// For each place, the round in which its candidate was the least surprising.
pub(crate) fn least(rounds: &[Vec<f64>]) -> Vec<usize> {
    let places = rounds.first().map_or(0, Vec::len);
    let best = |place: usize| (0..rounds.len()).min_by(|a, b| rounds[*a][place].total_cmp(&rounds[*b][place]));
    (0..places).map(|place| best(place).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_keeps_its_least_surprising_candidate() {
        let rounds = [vec![0.5, 0.2, f64::NAN], vec![0.4, 0.3, 0.9], vec![0.4, 0.1, 0.8]];
        assert_eq!(least(&rounds), [1, 2, 2]);
        assert!(least(&[]).is_empty());
    }
}
