use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use lsgm_core::{Error, Result};

use crate::ops::spectral_norms;

/// Power iterations in each step; the vectors go on from those of the step before.
const POWER_ITERATIONS: usize = 4;

/// A penalty on the norms of convolutions and on the scales of normalisations, `Σ σ_max(W) + Σ max |γ|` (NVAE, section 3.2;
/// Yoshida & Miyato 2017, arXiv 1705.10941), for networks that know nothing of it: it finds both among their parameters.
#[derive(Debug)]
pub struct NormPenalty {
    kernels: Vec<Kernel>,
    scales: Vec<Tensor>,
}

#[derive(Debug)]
struct Kernel {
    name: String,
    weight: Tensor,
    /// The left singular vector, as far as it is known.
    vector: Var,
}

impl NormPenalty {
    /// The penalty on `parameters`. Those with the four axes `[outputs, inputs, height, width]` are kernels of convolutions,
    /// which count if `spectral`; a `weight` with a single axis is the scale of a normalisation.
    ///
    /// # Errors
    /// [`Error::Contract`] where there is neither.
    pub fn new(parameters: impl IntoIterator<Item = (String, Var)>, spectral: bool) -> Result<Self> {
        let (mut kernels, mut scales) = (Vec::new(), Vec::new());
        for (name, weight) in parameters {
            let tensor = weight.as_tensor().clone();
            match weight.rank() {
                4 if spectral => {
                    let vector = Var::zeros(weight.dim(0)?, weight.dtype(), weight.device())?;
                    kernels.push(Kernel { name, weight: tensor, vector });
                }
                1 if name.rsplit('.').next() == Some("weight") => scales.push(tensor),
                _ => {}
            }
        }
        if kernels.is_empty() && scales.is_empty() {
            return Err(Error::contract("penalty on norms", "there is neither a convolution nor a normalisation"));
        }
        Ok(Self { kernels, scales })
    }

    /// `Σ σ_max(W) + Σ max |γ|`, a scalar; the vectors move on.
    ///
    /// # Errors
    /// Those of the device.
    pub fn value(&self) -> Result<Tensor> {
        let mut terms = Vec::with_capacity(self.kernels.len() + self.scales.len());
        let starts: Vec<Tensor> = self.kernels.iter().map(|kernel| kernel.vector.as_detached_tensor()).collect();
        let weights: Vec<_> = self.kernels.iter().zip(&starts).map(|(kernel, start)| (&kernel.weight, start)).collect();
        for (kernel, (norm, next)) in self.kernels.iter().zip(spectral_norms(&weights, POWER_ITERATIONS)?) {
            kernel.vector.set(&next)?;
            terms.push(norm);
        }
        for scale in &self.scales {
            terms.push(scale.abs()?.max(0)?);
        }
        Ok(Tensor::stack(&terms, 0)?.sum_all()?)
    }

    /// The vectors by the names of their kernels.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        self.kernels.iter().map(|kernel| (kernel.name.clone(), kernel.vector.as_tensor().clone())).collect()
    }

    /// Go on from vectors of [`NormPenalty::state`]; one that is not among them starts afresh.
    ///
    /// # Errors
    /// A vector of another length.
    pub fn restore(&self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        for kernel in &self.kernels {
            let vector = match state.get(&kernel.name) {
                Some(vector) => vector.to_device(kernel.vector.device())?.to_dtype(kernel.vector.dtype())?,
                None => kernel.vector.zeros_like()?,
            };
            kernel.vector.set(&vector)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn var(values: &[f64], dims: &[usize]) -> Var {
        Var::from_tensor(&Tensor::from_slice(values, dims, &Device::Cpu).unwrap()).unwrap()
    }

    /// Kernels with singular values that are known and a scale, beside what is neither.
    fn parameters() -> Vec<(String, Var)> {
        vec![
            ("a.weight".into(), var(&[3.0, 0.0, 0.0, 2.0], &[2, 1, 1, 2])),
            ("b.weight".into(), var(&[0.0, 0.0, 4.0, 3.0], &[2, 2, 1, 1])),
            ("norm.weight".into(), var(&[1.0, -1.5], &[2])),
            ("dense.weight".into(), var(&[100.0; 4], &[2, 2])),
            ("rows".into(), var(&[100.0; 4], &[2, 2, 1])),
            ("a.bias".into(), var(&[100.0; 2], &[2])),
        ]
    }

    fn value(penalty: &NormPenalty) -> f64 {
        penalty.value().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn norms_of_convolutions_and_largest_scales_add_up() {
        assert!((value(&NormPenalty::new(parameters(), true).unwrap()) - 9.5).abs() < 1e-9);
        assert_eq!(value(&NormPenalty::new(parameters(), false).unwrap()), 1.5);
        assert!(NormPenalty::new(parameters().split_off(3), true).is_err());
    }

    #[test]
    fn the_gradient_is_that_of_the_largest_values() {
        let parameters = parameters();
        let penalty = NormPenalty::new(parameters.clone(), true).unwrap();
        let gradients = penalty.value().unwrap().backward().unwrap();
        let of = |i: usize| -> Option<Vec<f64>> {
            gradients.get(parameters[i].1.as_tensor()).map(|g| g.flatten_all().unwrap().to_vec1().unwrap())
        };
        for (i, expected) in [&[1.0, 0.0, 0.0, 0.0][..], &[0.0, 0.0, 0.8, 0.6], &[0.0, -1.0]].into_iter().enumerate() {
            assert!(of(i).unwrap().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{i}");
        }
        assert!((3..6).all(|i| of(i).is_none()));
    }

    #[test]
    fn a_kernel_of_zeros_has_no_norm_and_a_finite_gradient() {
        let zero = var(&[0.0; 4], &[2, 2, 1, 1]);
        let penalty = NormPenalty::new([("zero".into(), zero.clone())], true).unwrap();
        for _ in 0..2 {
            let norm = penalty.value().unwrap();
            assert_eq!(norm.to_scalar::<f64>().unwrap(), 0.0);
            let gradients = norm.backward().unwrap();
            let gradient = gradients.get(zero.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
        }
    }

    #[test]
    fn it_goes_on_from_its_state() {
        let (first, second) =
            (NormPenalty::new(parameters(), true).unwrap(), NormPenalty::new(parameters(), true).unwrap());
        value(&first);
        second.restore(&first.state()).unwrap();
        assert_eq!(value(&first), value(&second));
        second.restore(&BTreeMap::new()).unwrap();
        assert!(
            second.state().values().all(|v| v.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap() == 0.0)
        );
        let wrong = BTreeMap::from([("a.weight".to_owned(), Tensor::zeros(3, DType::F64, &Device::Cpu).unwrap())]);
        assert!(second.restore(&wrong).is_err());
    }
}
