//! How the KL terms of a posterior's groups and channels enter a loss.

use candle_core::Tensor;
use lsgm_core::{Group, LatentNormal, Posterior, Result};
use lsgm_nn::ops::{relu, scale_gradient};

use super::number;

/// KL balancing (NVAE, Vahdat and Kautz 2020, appendix A): factors on the KL terms of the groups that are proportional
/// to their KL divergence per latent dimension, one on average. While the KL terms are annealed, a group that says
/// little is pushed less towards saying nothing than one that says much.
#[derive(Debug, Clone)]
pub(super) enum Balance {
    /// All factors are 1.
    None,
    /// A scalar for each group.
    Factors(Vec<Tensor>),
}

impl Balance {
    /// The factors of a batch.
    pub(super) fn of(posterior: &Posterior) -> Result<Self> {
        let density =
            |group: &Group| Ok((number(&group.kl_standard_normal()?.mean_all()?)? / group.size().max(1) as f64)?);
        let densities = posterior.groups.iter().map(density).collect::<Result<Vec<Tensor>>>()?;
        let mean = (sum(densities.iter().cloned().map(Ok))? / densities.len() as f64)?;
        let ones = mean.ones_like()?;
        let positive = mean.gt(&mean.zeros_like()?)?;
        let factor = |density: Tensor| Ok(positive.where_cond(&(density / &mean)?, &ones)?);
        Ok(Self::Factors(densities.into_iter().map(factor).collect::<Result<_>>()?))
    }

    /// The sum of one term for each group, `[B]`, each multiplied by the group's factor.
    pub(super) fn sum(&self, terms: &[Tensor]) -> Result<Tensor> {
        match self {
            Self::None => sum(terms.iter().cloned().map(Ok)),
            Self::Factors(factors) => sum(terms
                .iter()
                .zip(factors)
                .map(|(term, factor)| Ok(term.broadcast_mul(&factor.to_dtype(term.dtype())?)?))),
        }
    }

    /// The latents of the score-based prior, through which the gradient of each group is multiplied by its factor.
    pub(super) fn on_latents(&self, posterior: &Posterior, latents: LatentNormal) -> Result<LatentNormal> {
        let Self::Factors(factors) = self else { return Ok(latents) };
        let z0 = &latents.mean;
        let mut dims = vec![1; z0.rank()];
        let mut channels = Vec::new();
        for (group, factor) in posterior.groups.iter().zip(factors).filter(|(group, _)| !group.side) {
            if let Some(second) = dims.get_mut(1) {
                *second = group.mu.dim(1)?;
            }
            channels.push(factor.to_dtype(z0.dtype())?.broadcast_as(dims.as_slice())?);
        }
        let factors = Tensor::cat(&channels, 1)?;
        latents.map(|x| scale_gradient(x, &factors))
    }
}

/// The sum of tensors of one shape, in order.
fn sum(mut terms: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let first = terms.next().unwrap_or_else(|| Err(lsgm_core::Error::contract("posterior", "no group")))?;
    terms.try_fold(first, |total, term| Ok((total + term?)?))
}

/// The KL divergence of each group to N(0, I) as stage 1 minimises it, averaged over the batch, in nats: what a channel
/// says below `free` nats costs it nothing more (Kingma et al. 2016, "free bits").
pub(super) fn kl_with_free_bits(posterior: &Posterior, free: f64) -> Result<Vec<Tensor>> {
    let one = |group: &Group| -> Result<Tensor> {
        if free == 0.0 {
            return Ok(group.kl_standard_normal()?.mean_all()?);
        }
        let channels = group.kl_channels()?.mean(0)?;
        Ok((relu(&(channels - free)?)? + free)?.sum_all()?)
    };
    posterior.groups.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::scalar;
    use super::*;
    use candle_core::{DType, Device, Var};
    use lsgm_core::Rng;

    /// Two groups of 2 and 1 channels over 3 positions; the first says `loud` times as much for each dimension.
    fn posterior(loud: f64) -> (Posterior, [Var; 2]) {
        let mut rng = Rng::new(1);
        let mut var = |channels: usize, scale: f64| {
            let mu = rng.normal_tensor((4, channels, 3), DType::F64, &Device::Cpu).unwrap();
            let unit = mu.broadcast_div(&mu.sqr().unwrap().mean_keepdim((0, 2)).unwrap().sqrt().unwrap()).unwrap();
            Var::from_tensor(&(unit * scale).unwrap()).unwrap()
        };
        let mus = [var(2, loud.sqrt()), var(1, 1.0)];
        let groups = mus
            .iter()
            .map(|mu| Group::sample(mu.as_tensor().clone(), mu.zeros_like().unwrap(), false, &mut Rng::new(2)).unwrap())
            .collect();
        (Posterior { groups }, mus)
    }

    #[test]
    fn factors_follow_the_divergence_of_a_dimension_and_average_to_one() {
        let (q, _) = posterior(3.0);
        let Balance::Factors(factors) = Balance::of(&q).unwrap() else { panic!("no factors") };
        let factors: Vec<f64> = factors.iter().map(|f| scalar(f).unwrap()).collect();
        assert!((factors[0] - 1.5).abs() < 1e-9 && (factors[1] - 0.5).abs() < 1e-9, "{factors:?}");
        let terms = q.kl_groups().unwrap();
        let sum = Balance::of(&q).unwrap().sum(&terms).unwrap();
        let expected = ((&terms[0] * 1.5).unwrap() + (&terms[1] * 0.5).unwrap()).unwrap();
        assert!((sum - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap() < 1e-9);
    }

    #[test]
    fn latents_keep_their_value_and_pass_the_factors_on_the_way_back() {
        let (q, mus) = posterior(3.0);
        let z0 = q.latents().unwrap().prior;
        let factors = [1.5, 0.5].map(|f: f64| Tensor::new(f, &Device::Cpu).unwrap()).to_vec();
        let seen = Balance::Factors(factors).on_latents(&q, z0.clone().into()).unwrap().mean;
        assert_eq!(
            seen.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
            z0.flatten_all().unwrap().to_vec1::<f64>().unwrap()
        );
        let grads = seen.sum_all().unwrap().backward().unwrap();
        for (mu, factor) in mus.iter().zip([1.5, 0.5]) {
            let grad = grads.get(mu.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(grad.iter().all(|g| *g == factor), "{grad:?}");
        }
    }

    #[test]
    fn free_bits_stop_the_gradient_of_quiet_channels_alone() {
        let (q, mus) = posterior(3.0);
        // Each channel of the first group says 3/2 · 3 nats, that of the second 3/2.
        let value =
            |free: f64| kl_with_free_bits(&q, free).unwrap().iter().map(|t| scalar(t).unwrap()).collect::<Vec<f64>>();
        assert!((value(0.0)[0] - 9.0).abs() < 1e-9 && (value(0.0)[1] - 1.5).abs() < 1e-9, "{:?}", value(0.0));
        assert!((value(2.0)[0] - 9.0).abs() < 1e-9 && (value(2.0)[1] - 2.0).abs() < 1e-9, "{:?}", value(2.0));
        let loss = Balance::None.sum(&kl_with_free_bits(&q, 2.0).unwrap()).unwrap();
        let grads = loss.backward().unwrap();
        let size = |mu: &Var| {
            grads.get(mu.as_tensor()).map_or(0.0, |g| g.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap())
        };
        assert!(size(&mus[0]) > 0.1 && size(&mus[1]) == 0.0);
    }
}
