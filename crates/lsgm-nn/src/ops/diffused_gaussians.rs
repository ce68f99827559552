//! Gaussians that a diffusion has widened.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;

use super::composed;
use super::custom::{Op, View, apply3, fault, has_kernel, keep};
use crate::kernels::Float;
use crate::kernels::diffused_gaussians::{Moment, gradients, value};

struct DiffusedGaussians {
    moments: Vec<Moment>,
}

impl Op<3> for DiffusedGaussians {
    const NAME: &'static str = "diffused_gaussians";

    fn forward<T: Float>(&self, [means, log_variance, log_shares]: [View<'_, T>; 3]) -> (Vec<T>, Shape) {
        let (count, width) = (means.dims[0], means.dims[1]);
        let y = value(means.data, log_variance.data, log_shares.data, &self.moments, width);
        (y, (self.moments.len(), count, 2 * width + 1).into())
    }

    fn backward<T: Float>(
        &self,
        [means, log_variance, _]: [View<'_, T>; 3],
        y: View<'_, T>,
        gy: &[T],
        needed: [bool; 3],
    ) -> [Option<Vec<T>>; 3] {
        let (of_means, of_logs, of_shares) = gradients(log_variance.data, y.data, gy, &self.moments, means.dims[1]);
        keep(needed, [of_means, of_logs, of_shares])
    }
}

/// The logarithms of `π_k N(y; m c_k, v_k)` with `v_k = m² s_k² + σ²`, as factors of what they are linear in: for each pair
/// `(m, σ²)` of `moments` and each Gaussian with means `c` and log variances `ln s²`, both `[K, D]`, and log shares `ln π`
/// `[K]`, a row of
///
/// * `m c / v`, by which `y` is to be multiplied,
/// * `1 / v`, by which `-y² / 2` is,
/// * `ln π - ½ Σ (m² c² / v + ln v)`,
///
/// `[moments, K, 2 D + 1]`. `½ D ln 2π` is left out.
///
/// # Errors
/// Shapes that do not fit; no moment.
pub fn diffused_gaussians(
    means: &Tensor,
    log_variance: &Tensor,
    log_shares: &Tensor,
    moments: &[(f64, f64)],
) -> Result<Tensor> {
    match means.dims() {
        [count, _] if log_variance.dims() == means.dims() && log_shares.dims() == [*count] && !moments.is_empty() => {
            if !has_kernel(means) {
                return composed::diffused_gaussians(means, log_variance, log_shares, moments);
            }
            apply3(DiffusedGaussians { moments: moments.to_vec() }, [means, log_variance, log_shares])
        }
        dims => {
            let (variances, shares) = (log_variance.dims(), log_shares.dims());
            let message = format!(
                "means {dims:?}, variances {variances:?} and shares {shares:?} at {} moments must be [K, D], [K, D] and \
                 [K] at one or more",
                moments.len()
            );
            Err(fault("diffused_gaussians", message))
        }
    }
}
