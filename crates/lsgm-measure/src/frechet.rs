use candle_core::{DType, Tensor};
use lsgm_core::{Error, Result};

use crate::linalg::{Matrix, product, square_root, trace};

/// The Gaussian with the mean and the covariance of a set of feature vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Gaussian {
    mean: Vec<f64>,
    covariance: Matrix,
}

impl Gaussian {
    /// Fit it to features `[N, D]`, with the unbiased estimate of the covariance.
    ///
    /// # Errors
    /// Fewer than two vectors, or values that are not finite.
    pub fn fit(features: &Tensor) -> Result<Self> {
        let (n, _) = features.dims2()?;
        if n < 2 {
            return Err(Error::contract("features", format!("{n} items have no covariance: measure at least 2")));
        }
        let features = features.to_dtype(DType::F64)?;
        let mean = features.mean_keepdim(0)?;
        let centred = features.broadcast_sub(&mean)?;
        let covariance = (centred.t()?.contiguous()?.matmul(&centred)? / (n - 1) as f64)?.to_vec2()?;
        let found = Self { mean: mean.squeeze(0)?.to_vec1()?, covariance };
        if found.mean.iter().chain(found.covariance.iter().flatten()).all(|x| x.is_finite()) {
            Ok(found)
        } else {
            Err(Error::contract("features", "a feature is not finite: the items hold values out of range"))
        }
    }

    /// The squared Fréchet distance to another Gaussian of the same dimension (Dowson and Landau 1982),
    /// `‖μ1 - μ2‖² + tr(C1 + C2 - 2 (C1^½ C2 C1^½)^½)`.
    ///
    /// Estimated from `n` vectors of dimension `D`, it is biased upwards by about `D/n`-th parts of the variance: compare
    /// figures of equal numbers of items.
    pub fn distance(&self, other: &Self) -> f64 {
        let means: f64 = self.mean.iter().zip(&other.mean).map(|(a, b)| (a - b).powi(2)).sum();
        let root = square_root(&self.covariance);
        let inner = product(&product(&root, &other.covariance), &root);
        let distance = means + trace(&self.covariance) + trace(&other.covariance) - 2.0 * trace(&square_root(&inner));
        // A squared distance; what is below is rounding.
        distance.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use lsgm_core::Rng;

    #[test]
    fn commuting_covariances_have_a_closed_form() {
        // A rotation by 0.7 of diagonal covariances.
        let (sin, cos) = 0.7f64.sin_cos();
        let turned = |a: f64, b: f64| {
            vec![
                vec![cos * cos * a + sin * sin * b, sin * cos * (a - b)],
                vec![sin * cos * (a - b), sin * sin * a + cos * cos * b],
            ]
        };
        let p = Gaussian { mean: vec![1.0, -1.0], covariance: turned(4.0, 0.25) };
        let q = Gaussian { mean: vec![0.0, 1.0], covariance: turned(1.0, 9.0) };
        let exact = 5.0 + (2.0f64 - 1.0).powi(2) + (0.5f64 - 3.0).powi(2);
        assert!((p.distance(&q) - exact).abs() < 1e-12 && (q.distance(&p) - exact).abs() < 1e-12);
        assert!(p.distance(&p) < 1e-12);
    }

    /// Of one-dimensional factors, `tr (C1^½ C2 C1^½)^½ = |u·v|` for `C1 = u uᵀ`, `C2 = v vᵀ`: no full rank is needed.
    #[test]
    fn degenerate_covariances_are_no_trouble() {
        let outer = |u: [f64; 2]| u.iter().map(|a| u.iter().map(|b| a * b).collect()).collect();
        let p = Gaussian { mean: vec![0.0; 2], covariance: outer([3.0, 1.0]) };
        let q = Gaussian { mean: vec![0.0; 2], covariance: outer([1.0, 2.0]) };
        // A zero eigenvalue that rounding moves by 1e-16 has a root of 1e-8.
        assert!((p.distance(&q) - (10.0 + 5.0 - 2.0 * 5.0)).abs() < 1e-5);
    }

    #[test]
    fn a_fit_finds_mean_and_covariance() {
        let x = Tensor::new(&[[1f32, 2.0], [3.0, 2.0], [2.0, 5.0]], &Device::Cpu).unwrap();
        let g = Gaussian::fit(&x).unwrap();
        assert_eq!((g.mean, g.covariance), (vec![2.0, 3.0], vec![vec![1.0, 0.0], vec![0.0, 3.0]]));
        assert!(Gaussian::fit(&x.narrow(0, 0, 1).unwrap()).unwrap_err().to_string().contains("at least 2"));
        assert!(Gaussian::fit(&(x * f64::NAN).unwrap()).is_err());
        let draw = |seed| Rng::new(seed).normal_tensor((4000, 8), DType::F32, &Device::Cpu).unwrap();
        let [a, b] = [1, 2].map(|seed| Gaussian::fit(&draw(seed)).unwrap());
        assert!(a.distance(&b) < 0.05, "{}", a.distance(&b));
        let wide = Gaussian::fit(&(draw(3) * 2.0).unwrap()).unwrap();
        assert!((a.distance(&wide) - 8.0).abs() < 0.5, "{}", a.distance(&wide));
    }
}
