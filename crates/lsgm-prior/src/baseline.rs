use candle_core::Tensor;
use lsgm_core::{LatentNormal, LatentShape, Result};

use crate::prior::sum_per_item;
use crate::{Sde, Weighting};

/// The cross entropy with an N(0, I) prior, averaged in closed form over diffusion times and noise.
///
/// With the score of N(0, I), `ε_θ = k_t z_t`, the expected error given `z_0` is
/// `(1 - k σ)² D + k² m² ‖z_0‖²`, so that the whole bound is an affine function of `‖z_0‖²`. It serves as a control
/// variate: of the cross entropy with any prior, only the difference to this one is left to be sampled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NormalBaseline {
    constant: f64,
    slope: f64,
}

/// Points of the midpoint rule, in the variable in which the likelihood proposal is uniform.
const POINTS: usize = 20_000;

impl NormalBaseline {
    pub(crate) fn new(sde: &Sde, shape: &LatentShape, t_eps: f64) -> Result<Self> {
        let rho: Vec<f64> = (0..POINTS).map(|i| (i as f64 + 0.5) / POINTS as f64).collect();
        let times = sde.times_at(Weighting::LlIw, &rho, t_eps)?;
        let (mut per_dim, mut slope) = (0.0, 0.0);
        for (i, &t) in times.t.iter().enumerate() {
            let weight = times.correction * times.likelihood_weight[i] / POINTS as f64;
            let k = sde.mixing_coefficient(t);
            per_dim += weight * (1.0 - k * sde.sigma(t)).powi(2);
            slope += weight * (k * times.mean_coefficient[i]).powi(2);
        }
        Ok(Self { constant: shape.dim() as f64 * (per_dim + sde.cross_entropy_constant(t_eps)), slope })
    }

    /// The bound for latents `z_0`, averaged over what they are drawn from, `[B]` nats.
    pub(crate) fn cross_entropy(&self, latents: &LatentNormal) -> Result<Tensor> {
        Ok(sum_per_item(&latents.square()?)?.affine(self.slope, self.constant)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SdeConfig;
    use candle_core::Device;

    #[test]
    fn on_the_variance_preserving_sde_it_is_the_cross_entropy_with_the_normal() {
        let sde = Sde::new(&SdeConfig::default()).unwrap();
        let shape = LatentShape::line(3, 2);
        let t_eps = 1e-5;
        let baseline = NormalBaseline::new(&sde, &shape, t_eps).unwrap();
        let z0 = Tensor::new(&[0.3f64, -1.0, 2.0, 0.0, 0.7, -0.2], &Device::Cpu).unwrap().reshape((1, 3, 2)).unwrap();
        let found = baseline.cross_entropy(&(&z0).into()).unwrap().to_vec1::<f64>().unwrap()[0];
        // -log N(z_0; 0, I), up to what diffusion from 0 to t_eps and the remainder at t = 1 leave.
        let square: f64 = z0.sqr().unwrap().sum_all().unwrap().to_scalar().unwrap();
        let exact = 0.5 * square + 3.0 * (2.0 * std::f64::consts::PI).ln();
        assert!((found - exact).abs() < 1e-3, "{found} {exact}");
    }
}
