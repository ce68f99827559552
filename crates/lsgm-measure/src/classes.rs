use candle_core::{DType, Tensor};
use lsgm_core::Result;

/// What a classifier says about a set of items.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Confidence {
    /// Entropy in nats of the classes over all items: low where some are missing.
    pub class_entropy: f64,
    /// Mean probability of the likeliest class: low where items look like none.
    pub mean_confidence: f64,
    /// Standard error of `mean_confidence` over items.
    pub stderr: f64,
}

impl Confidence {
    /// From class probabilities `[N, K]`.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub(crate) fn of(probabilities: &Tensor) -> Result<Self> {
        let probabilities = probabilities.to_dtype(DType::F64)?;
        let shares: Vec<f64> = probabilities.mean(0)?.to_vec1()?;
        let best: Vec<f64> = probabilities.max(1)?.to_vec1()?;
        let n = best.len() as f64;
        let mean = best.iter().sum::<f64>() / n;
        let variance = best.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        Ok(Self {
            class_entropy: shares.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum(),
            mean_confidence: mean,
            stderr: (variance / n).sqrt(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn even_and_uneven_classes() {
        let even = Tensor::new(&[[1f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        let found = Confidence::of(&even).unwrap();
        assert!((found.class_entropy - 2f64.ln()).abs() < 1e-12 && found.mean_confidence == 1.0 && found.stderr == 0.0);
        let one = Tensor::new(&[[1f32, 0.0], [1.0, 0.0]], &Device::Cpu).unwrap();
        assert_eq!(Confidence::of(&one).unwrap().class_entropy, 0.0);
        let unsure = Tensor::new(&[[0.5f32, 0.5], [1.0, 0.0]], &Device::Cpu).unwrap();
        let found = Confidence::of(&unsure).unwrap();
        assert!((found.mean_confidence - 0.75).abs() < 1e-12 && (found.stderr - 0.25).abs() < 1e-12);
    }
}
