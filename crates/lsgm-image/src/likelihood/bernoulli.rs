use candle_core::{DType, Tensor};
use lsgm_core::{Likelihood, Result, Rng};
use lsgm_nn::ops;

/// Independent Bernoulli pixels, given by logits `[B, 1, H, W]`.
#[derive(Debug, Clone)]
pub struct Bernoulli {
    logits: Tensor,
}

impl Bernoulli {
    /// Pixels that are 1 with probability `sigmoid(logits)`.
    pub fn new(logits: Tensor) -> Self {
        Self { logits }
    }

    /// The logits `[B, 1, H, W]`.
    pub fn logits(&self) -> &Tensor {
        &self.logits
    }
}

impl Likelihood for Bernoulli {
    fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
        ops::bernoulli_log_prob(&self.logits, &x.to_dtype(self.logits.dtype())?)
    }

    fn sample(&self, temperature: f64, rng: &mut Rng) -> Result<Tensor> {
        let dtype = self.logits.dtype();
        if temperature <= 0.0 {
            return Ok(self.logits.gt(&self.logits.zeros_like()?)?.to_dtype(dtype)?);
        }
        let threshold =
            rng.uniform_tensor(self.logits.shape().clone(), DType::F32, self.logits.device())?.to_dtype(dtype)?;
        let probability = Self::new((&self.logits / temperature)?).mean()?;
        Ok(threshold.lt(&probability)?.to_dtype(dtype)?)
    }

    fn mean(&self) -> Result<Tensor> {
        // sigmoid(l) = (1 + tanh(l / 2)) / 2 overflows nowhere.
        Ok((self.logits.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn probabilities_of_both_values_sum_to_one_even_at_extreme_logits() {
        let logits =
            Tensor::new(&[-200f32, -3.0, 0.0, 0.5, 200.0], &Device::Cpu).unwrap().reshape((5, 1, 1, 1)).unwrap();
        let p = Bernoulli::new(logits.clone());
        let one = p.log_prob(&logits.ones_like().unwrap()).unwrap().exp().unwrap().to_vec1::<f32>().unwrap();
        let zero = p.log_prob(&logits.zeros_like().unwrap()).unwrap().exp().unwrap().to_vec1::<f32>().unwrap();
        let mean = p.mean().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for ((a, b), m) in one.iter().zip(&zero).zip(&mean) {
            assert!((a + b - 1.0).abs() < 1e-6 && (a - m).abs() < 1e-6, "{a} {b} {m}");
        }
    }

    #[test]
    fn samples_have_the_right_frequency_and_cold_samples_are_the_mode() {
        let mut rng = Rng::new(3);
        let logits = Tensor::full(-1.0f32, (1, 1, 100, 200), &Device::Cpu).unwrap();
        let p = Bernoulli::new(logits);
        let share = p.sample(1.0, &mut rng).unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((share - 0.268_94).abs() < 0.0126, "{share}");
        assert_eq!(p.sample(0.0, &mut rng).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
    }
}
