use std::f64::consts::PI;

use candle_core::{DType, Tensor};
use lsgm_core::{Likelihood, Result, Rng, soft_clamp};

/// Bound of means and log standard deviations, approached softly.
const CLAMP: f64 = 5.0;

/// Independent Normal densities of pixels scaled from [0, 1] to [-1, 1], given by means and log standard deviations
/// `[B, 2C, H, W]`.
#[derive(Debug, Clone)]
pub struct PixelNormal {
    parameters: Tensor,
}

impl PixelNormal {
    /// Densities with these parameters, the means first.
    pub fn new(parameters: Tensor) -> Self {
        Self { parameters }
    }

    /// Means and log standard deviations, `[B, C, H, W]` each.
    fn moments(&self) -> Result<(Tensor, Tensor)> {
        let clamped = soft_clamp(&self.parameters, CLAMP)?;
        let channels = clamped.dim(1)? / 2;
        Ok((clamped.narrow(1, 0, channels)?, clamped.narrow(1, channels, channels)?))
    }
}

/// From [-1, 1] to [0, 1], values outside brought to the ends.
fn pixels(x: &Tensor) -> Result<Tensor> {
    Ok(x.affine(0.5, 0.5)?.clamp(0.0, 1.0)?)
}

impl Likelihood for PixelNormal {
    fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
        let (mean, log_sigma) = self.moments()?;
        let distance = ((x.to_dtype(mean.dtype())?.affine(2.0, -1.0)? - mean)? * log_sigma.neg()?.exp()?)?;
        let log_density = (distance.sqr()?.affine(-0.5, -0.5 * (2.0 * PI).ln())? - log_sigma)?;
        Ok(log_density.flatten_from(1)?.sum(1)?)
    }

    fn sample(&self, temperature: f64, rng: &mut Rng) -> Result<Tensor> {
        let (mean, log_sigma) = self.moments()?;
        let noise = rng.normal_tensor(mean.shape().clone(), DType::F32, mean.device())?.to_dtype(mean.dtype())?;
        pixels(&(mean + ((noise * temperature)? * log_sigma.exp()?)?)?)
    }

    fn mean(&self) -> Result<Tensor> {
        pixels(&self.moments()?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_density_of_a_pixel_is_that_of_its_normal() {
        let parameters = Tensor::new(&[0.2f32, -1.0], &Device::Cpu).unwrap().reshape((1, 2, 1, 1)).unwrap();
        let p = PixelNormal::new(parameters);
        let (mean, log_sigma) = (5.0 * (0.04f64).tanh(), 5.0 * (-0.2f64).tanh());
        let x = Tensor::full(0.75f32, (1, 1, 1, 1), &Device::Cpu).unwrap();
        let expected = -0.5 * ((0.5 - mean) / log_sigma.exp()).powi(2) - log_sigma - 0.5 * (2.0 * PI).ln();
        let found = f64::from(p.log_prob(&x).unwrap().to_vec1::<f32>().unwrap()[0]);
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        let middle = p.sample(0.0, &mut Rng::new(1)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((f64::from(middle) - (1.0 + mean) / 2.0).abs() < 1e-6);
    }
}
