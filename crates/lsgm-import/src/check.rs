use candle_core::{DType, Tensor};
use lsgm_core::{Error, Result};

/// A recomputed output beside the one that a checkpoint carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The output's name without `io.`.
    pub name: String,
    /// How far the two are apart.
    pub difference: f64,
    /// How far they may be apart.
    pub tolerance: f64,
    /// What `difference` is, in a few words.
    pub measure: &'static str,
}

impl Check {
    /// The largest difference of two values.
    pub fn largest(name: impl Into<String>, found: &Tensor, expected: &Tensor, tolerance: f64) -> Result<Self> {
        let name = name.into();
        let difference = differences(&name, found, expected)?.into_iter().fold(0.0, largest);
        Ok(Self { name, difference, tolerance, measure: "largest difference" })
    }

    /// The largest difference of two values as a share of the expected one.
    pub fn largest_relative(
        name: impl Into<String>,
        found: &Tensor,
        expected: &Tensor,
        tolerance: f64,
    ) -> Result<Self> {
        let name = name.into();
        let sizes = values(expected)?.into_iter().map(|v| v.abs().max(f64::MIN_POSITIVE));
        let shares = differences(&name, found, expected)?.into_iter().zip(sizes).map(|(d, size)| d / size);
        Ok(Self { name, difference: shares.fold(0.0, largest), tolerance, measure: "largest relative difference" })
    }

    /// The root of the mean squared difference.
    pub fn root_mean_square(
        name: impl Into<String>,
        found: &Tensor,
        expected: &Tensor,
        tolerance: f64,
    ) -> Result<Self> {
        let name = name.into();
        let differences = differences(&name, found, expected)?;
        let mean = differences.iter().map(|d| d * d).sum::<f64>() / differences.len().max(1) as f64;
        Ok(Self { name, difference: mean.sqrt(), tolerance, measure: "root mean square difference" })
    }

    /// Two numbers, their difference as a share of the expected one.
    pub fn relative(name: impl Into<String>, found: f64, expected: f64, tolerance: f64) -> Self {
        let difference = (found - expected).abs() / expected.abs().max(f64::MIN_POSITIVE);
        Self { name: name.into(), difference, tolerance, measure: "relative difference" }
    }

    /// Whether the two agree. What is not a number agrees with nothing.
    pub fn passes(&self) -> bool {
        self.difference <= self.tolerance
    }
}

/// The larger one, and what is not a number before all: `f64::max` would drop it.
fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn differences(name: &str, found: &Tensor, expected: &Tensor) -> Result<Vec<f64>> {
    if found.dims() != expected.dims() {
        let message = format!("shape {:?}, but the file has {:?}", found.dims(), expected.dims());
        return Err(Error::contract(format!("io.{name}"), message));
    }
    Ok(values(found)?.into_iter().zip(values(expected)?).map(|(a, b)| (a - b).abs()).collect())
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn differences_are_measured_and_nan_never_passes() {
        let tensor = |v: &[f32]| Tensor::new(v, &Device::Cpu).unwrap();
        let (a, b) = (tensor(&[1.0, 2.0, -4.0]), tensor(&[1.0, 2.5, -4.0]));
        assert_eq!(Check::largest("x", &a, &b, 0.5).unwrap().difference, 0.5);
        assert_eq!(Check::largest_relative("x", &a, &b, 0.5).unwrap().difference, 0.2);
        assert!((Check::root_mean_square("x", &a, &b, 0.5).unwrap().difference - 0.5 / 3f64.sqrt()).abs() < 1e-12);
        assert!(!Check::largest("x", &a, &b, 0.4).unwrap().passes());
        for nan in [[f32::NAN, 2.0, -4.0], [1.0, 2.0, f32::NAN]] {
            assert!(!Check::largest("x", &tensor(&nan), &a, 1e9).unwrap().passes());
            assert!(!Check::root_mean_square("x", &tensor(&nan), &a, 1e9).unwrap().passes());
        }
        assert!(Check::largest("x", &a, &tensor(&[1.0]), 1.0).is_err());
        assert!(Check::relative("n", 101.0, 100.0, 0.02).passes());
    }
}
