//! A distribution of which everything is known.

// Each test file uses a part of this.
#![allow(dead_code, unreachable_pub)]

use candle_core::{DType, Device, Tensor};
use lsgm_core::Rng;
use lsgm_prior::Sde;

/// A mixture of isotropic Gaussians in two dimensions: weight, mean, variance.
#[derive(Clone)]
pub struct Mixture(pub Vec<(f64, [f64; 2], f64)>);

impl Mixture {
    pub fn toy() -> Self {
        Self(vec![(0.5, [1.2, 0.4], 0.05), (0.3, [-0.9, 0.9], 0.1), (0.2, [0.0, -1.1], 0.02)])
    }

    /// A wider mixture that a small network learns in a thousand steps.
    pub fn wide() -> Self {
        Self(vec![(0.6, [0.9, 0.3], 0.15), (0.4, [-0.8, -0.5], 0.25)])
    }

    pub fn gaussian(variance: f64) -> Self {
        Self(vec![(1.0, [0.3, -0.2], variance)])
    }

    /// The mixture after diffusion to time `t`.
    pub fn at(&self, sde: &Sde, t: f64) -> Self {
        let (m, v) = (sde.mean_coefficient(t), sde.variance(t));
        Self(self.0.iter().map(|&(w, mean, s)| (w, mean.map(|x| m * x), m * m * s + v)).collect())
    }

    fn log_terms(&self, x: [f64; 2]) -> Vec<f64> {
        let term = |&(w, mean, v): &(f64, [f64; 2], f64)| {
            let square = (x[0] - mean[0]).powi(2) + (x[1] - mean[1]).powi(2);
            w.ln() - 0.5 * square / v - (2.0 * std::f64::consts::PI * v).ln()
        };
        self.0.iter().map(term).collect()
    }

    pub fn log_density(&self, x: [f64; 2]) -> f64 {
        let terms = self.log_terms(x);
        let most = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        most + terms.iter().map(|t| (t - most).exp()).sum::<f64>().ln()
    }

    pub fn draw(&self, n: usize, rng: &mut Rng) -> Vec<[f64; 2]> {
        (0..n)
            .map(|_| {
                let (mut u, mut pick) = (rng.uniform(), self.0[0]);
                for &component in &self.0 {
                    pick = component;
                    u -= component.0;
                    if u < 0.0 {
                        break;
                    }
                }
                pick.1.map(|mean| mean + pick.2.sqrt() * rng.normal())
            })
            .collect()
    }

    /// Mean and covariance (xx, yy, xy).
    pub fn moments(&self) -> [f64; 5] {
        let sum = |f: &dyn Fn(&[f64; 2], f64) -> f64| self.0.iter().map(|(w, mean, v)| w * f(mean, *v)).sum::<f64>();
        let (x, y) = (sum(&|m, _| m[0]), sum(&|m, _| m[1]));
        let second = [sum(&|m, v| m[0] * m[0] + v), sum(&|m, v| m[1] * m[1] + v), sum(&|m, _| m[0] * m[1])];
        [x, y, second[0] - x * x, second[1] - y * y, second[2] - x * y]
    }
}

/// Latents `[B, 2, 1]` as points.
pub fn points(z: &Tensor) -> Vec<[f64; 2]> {
    let values: Vec<Vec<f64>> = z.squeeze(2).unwrap().to_dtype(DType::F64).unwrap().to_vec2().unwrap();
    values.into_iter().map(|v| [v[0], v[1]]).collect()
}

/// Points as latents `[B, 2, 1]`.
pub fn latents(points: &[[f64; 2]]) -> Tensor {
    let flat: Vec<f64> = points.iter().flatten().copied().collect();
    Tensor::from_vec(flat, (points.len(), 2, 1), &Device::Cpu).unwrap()
}
