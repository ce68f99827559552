//! How much of the latent the encoder uses.

use std::f64::consts::PI;

use candle_core::{D, DType, Tensor};
use lsgm_core::{Group, Posterior, Result};
use serde::Serialize;

use crate::evaluate::Estimate;

/// Variance of a posterior mean over items above which a dimension counts as active (Burda et al. 2016).
const ACTIVE: f64 = 0.01;

/// How much of the latent the encoder uses: a decoder that can do without it leaves little ("posterior collapse").
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PosteriorUse {
    /// Dimensions of the latent whose posterior mean varies over items by more than 0.01.
    pub active_units: usize,
    /// All dimensions.
    pub units: usize,
    /// KL(q(z0|x) || N(0, I)).
    pub kl: Estimate,
    /// Mutual information of items and latents, with the aggregate posterior of a batch in place of that of all items
    /// (Hoffman and Johnson 2016): at most the logarithm of the batch size. Posteriors of a single group alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutual_information: Option<Estimate>,
}

/// Sums over the items seen so far.
#[derive(Default)]
pub(crate) struct PosteriorTerms {
    items: f64,
    sums: Vec<f64>,
    squares: Vec<f64>,
    kl: Vec<f64>,
    information: Vec<f64>,
}

impl PosteriorTerms {
    pub(crate) fn add(&mut self, posterior: &Posterior) -> Result<()> {
        let main: Vec<&Group> = posterior.groups.iter().filter(|g| !g.side).collect();
        let means = main.iter().map(|g| Ok(g.mu.flatten_from(1)?.to_dtype(DType::F64)?)).collect::<Result<Vec<_>>>()?;
        for row in Tensor::cat(&means, 1)?.to_vec2::<f64>()? {
            self.items += 1.0;
            self.sums.resize(row.len(), 0.0);
            self.squares.resize(row.len(), 0.0);
            for ((value, sum), square) in row.iter().zip(&mut self.sums).zip(&mut self.squares) {
                *sum += value;
                *square += value * value;
            }
        }
        let kls = main.iter().map(|g| g.kl_standard_normal()).collect::<Result<Vec<_>>>()?;
        crate::evaluate::extend(&mut self.kl, &Tensor::stack(&kls, 0)?.sum(0)?)?;
        if let [only] = posterior.groups.as_slice() {
            crate::evaluate::extend(&mut self.information, &information(only)?)?;
        }
        Ok(())
    }

    pub(crate) fn report(&self) -> PosteriorUse {
        let variance = |sum: &f64, square: &f64| square / self.items - (sum / self.items).powi(2);
        let active = self.sums.iter().zip(&self.squares).filter(|(sum, square)| variance(sum, square) > ACTIVE).count();
        PosteriorUse {
            active_units: active,
            units: self.sums.len(),
            kl: Estimate::nats(&self.kl),
            mutual_information: (!self.information.is_empty()).then(|| Estimate::nats(&self.information)),
        }
    }
}

/// `log q(z_i|x_i) − log (1/B) Σ_j q(z_i|x_j)` of each item of a batch: `[B]`. Behind a flow, which is the same for all
/// items, it is that of the Normal in front of it: information does not change under a bijection.
fn information(group: &Group) -> Result<Tensor> {
    let flat = |t: &Tensor| -> Result<Tensor> { Ok(t.flatten_from(1)?.to_dtype(DType::F64)?.detach()) };
    let z = group.base.as_ref().unwrap_or(&group.z);
    let (z, mu, log_sigma) = (flat(z)?, flat(&group.mu)?, flat(&group.log_sigma)?);
    let (batch, dim) = z.dims2()?;
    let precision = (&log_sigma * -2.0)?.exp()?;
    // Σ_d precision_jd · (z_id − mu_jd)², its square multiplied out to three products.
    let scaled = (&precision * &mu)?;
    let constant = (&scaled * &mu)?.sum(D::Minus1)?.unsqueeze(0)?;
    let square = (z.sqr()?.matmul(&precision.t()?.contiguous()?)? - (z.matmul(&scaled.t()?.contiguous()?)? * 2.0)?)?;
    let square = square.broadcast_add(&constant)?;
    let log_volume = (log_sigma.sum(D::Minus1)? + 0.5 * dim as f64 * (2.0 * PI).ln())?.unsqueeze(0)?;
    let log_q = (square * -0.5)?.broadcast_sub(&log_volume)?;
    let own = (log_q.clone() * Tensor::eye(batch, DType::F64, z.device())?)?.sum(D::Minus1)?;
    Ok(((own - log_q.log_sum_exp(D::Minus1)?)? + (batch as f64).ln())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use lsgm_core::Rng;

    fn report(spread: f64, items: usize) -> PosteriorUse {
        let mut rng = Rng::new(3);
        let mut normal = || rng.normal_tensor((items, 2, 3), DType::F32, &Device::Cpu).unwrap();
        let mu = (normal() * spread).unwrap();
        let log_sigma = mu.zeros_like().unwrap();
        let group = Group::with_noise(mu, log_sigma, false, &normal()).unwrap();
        let mut terms = PosteriorTerms::default();
        terms.add(&Posterior { groups: vec![group] }).unwrap();
        terms.report()
    }

    #[test]
    fn a_collapsed_posterior_says_nothing_and_a_wide_one_which_item_it_was() {
        let collapsed = report(0.0, 64);
        assert_eq!((collapsed.active_units, collapsed.units), (0, 6));
        assert!(collapsed.mutual_information.unwrap().mean.abs() < 1e-6 && collapsed.kl.mean.abs() < 1e-6);
        let wide = report(50.0, 64);
        assert_eq!(wide.active_units, 6);
        assert!((wide.mutual_information.unwrap().mean - 64f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn between_the_two_it_is_the_information_of_gaussian_channels() {
        // Six channels of signal and noise 0.3 : 1 carry ln(1 + 0.09) / 2 nats each.
        let found = report(0.3, 2000).mutual_information.unwrap();
        let expected = 3.0 * 1.09f64.ln();
        assert!((found.mean - expected).abs() < 4.0 * found.stderr + 0.02, "{found:?} {expected}");
    }
}
