use candle_core::{D, DType, Device, Tensor};
use lsgm_core::{Error, Likelihood, Result, Rng};

use crate::ops;

/// Independent categorical variables: the likelihood of items `[B, ..]` of ids (`u32`), given by logits `[B, .., V]`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use lsgm_core::{Likelihood, Rng};
/// use lsgm_nn::Categorical;
///
/// // Two items of three variables with four values each, all equally likely.
/// let p = Categorical::new(Tensor::zeros((2, 3, 4), candle_core::DType::F32, &Device::Cpu)?);
/// let x = p.sample(1.0, &mut Rng::new(1))?;
/// assert_eq!(x.dims(), [2, 3]);
/// let nats = p.log_prob(&x)?.to_vec1::<f32>()?;
/// assert!((nats[0] + 3.0 * 4f32.ln()).abs() < 1e-5);
/// # Ok::<(), lsgm_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Categorical {
    logits: Tensor,
}

impl Categorical {
    /// Variables whose probabilities are the softmax of `logits` over the last dimension.
    pub fn new(logits: Tensor) -> Self {
        Self { logits }
    }

    /// The logits `[B, .., V]`.
    pub fn logits(&self) -> &Tensor {
        &self.logits
    }
}

impl Likelihood for Categorical {
    fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
        let each = ops::categorical_log_prob(&self.logits, x)?;
        Ok(each.flatten_from(1)?.sum(D::Minus1)?)
    }

    fn sample(&self, temperature: f64, rng: &mut Rng) -> Result<Tensor> {
        if temperature <= 0.0 {
            return self.mean();
        }
        let probabilities = ops::softmax(&(&self.logits.detach() / temperature)?)?;
        let (ids, values) = match probabilities.dims() {
            [ids @ .., values] if *values > 0 => (ids.to_vec(), *values),
            dims => return Err(Error::contract("categorical likelihood", format!("logits {dims:?} have no values"))),
        };
        let flat = probabilities.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let drawn: Vec<u32> = flat.chunks_exact(values).map(|row| draw(row, rng)).collect();
        Ok(Tensor::from_vec(drawn, ids, self.logits.device())?)
    }

    /// The mode: the id of the largest logit.
    fn mean(&self) -> Result<Tensor> {
        Ok(self.logits.argmax(D::Minus1)?)
    }
}

/// An id with the given probabilities, by inversion of their running sum.
fn draw(probabilities: &[f32], rng: &mut Rng) -> u32 {
    let mut left = rng.uniform() * probabilities.iter().map(|p| f64::from(*p)).sum::<f64>();
    let inside = probabilities.iter().position(|p| {
        left -= f64::from(*p);
        left < 0.0
    });
    // Rounding may leave a crumb at the end: it belongs to the last id that is possible at all.
    inside.or_else(|| probabilities.iter().rposition(|p| *p > 0.0)).unwrap_or(0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(rows: &[[f32; 3]]) -> Categorical {
        Categorical::new(Tensor::from_vec(rows.concat(), (1, rows.len(), 3), &Device::Cpu).unwrap())
    }

    #[test]
    fn probabilities_sum_to_one_and_variables_are_independent() {
        let p = logits(&[[0.0, 1.0, -2.0], [300.0, 0.0, 299.0]]);
        let mut total = 0.0;
        for a in 0..3u32 {
            for b in 0..3u32 {
                let x = Tensor::new(&[[a, b]], &Device::Cpu).unwrap();
                total += p.log_prob(&x).unwrap().to_vec1::<f32>().unwrap()[0].exp();
            }
        }
        assert!((total - 1.0).abs() < 1e-5, "{total}");
    }

    #[test]
    fn samples_have_the_right_frequency_and_cold_samples_are_the_mode() {
        let n = 40_000;
        let row = Tensor::new(&[[[2f32.ln(), 0.0, f32::NEG_INFINITY]]], &Device::Cpu).unwrap();
        let p = Categorical::new(row.broadcast_as((1, n, 3)).unwrap().contiguous().unwrap());
        let ids = p.sample(1.0, &mut Rng::new(2)).unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap();
        let share = |id: u32| ids.iter().filter(|i| **i == id).count() as f64 / n as f64;
        // Four standard errors of a share of 2/3.
        assert!((share(0) - 2.0 / 3.0).abs() < 4.0 * (2.0 / 9.0 / n as f64).sqrt(), "{}", share(0));
        assert_eq!(share(2), 0.0, "an impossible value is never drawn");
        let cold = p.sample(0.0, &mut Rng::new(2)).unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap();
        assert!(cold.iter().all(|id| *id == 0));
    }
}
