use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use lsgm_core::{Error, Result};

use crate::ops::spectral_norm;

/// Power iterations in each step; the vectors go on from those of the step before.
const POWER_ITERATIONS: usize = 4;

/// A penalty on the spectral norms of convolutions, `Σ σ_max(W)` (Yoshida & Miyato 2017, arXiv 1705.10941), for networks that
/// know nothing of it: it finds their kernels among the parameters.
#[derive(Debug)]
pub struct SpectralPenalty(Vec<Kernel>);

#[derive(Debug)]
struct Kernel {
    name: String,
    weight: Tensor,
    /// The left singular vector, as far as it is known.
    vector: Var,
}

impl SpectralPenalty {
    /// The penalty on the convolutions among `parameters`: weights `[outputs, inputs, ..]` with at least one axis of a
    /// kernel.
    ///
    /// # Errors
    /// Those of the device.
    pub fn new(parameters: impl IntoIterator<Item = (String, Var)>) -> Result<Self> {
        let kernels = parameters.into_iter().filter(|(_, weight)| weight.rank() > 2).map(|(name, weight)| {
            let vector = Var::zeros(weight.dim(0)?, weight.dtype(), weight.device())?;
            Ok(Kernel { name, weight: weight.as_tensor().clone(), vector })
        });
        Ok(Self(kernels.collect::<Result<_>>()?))
    }

    /// Number of convolutions.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Σ σ_max(W)`, a scalar; the vectors move on.
    ///
    /// # Errors
    /// [`Error::Contract`] where there is no convolution.
    pub fn value(&self) -> Result<Tensor> {
        let mut norms = Vec::with_capacity(self.0.len());
        for kernel in &self.0 {
            let (norm, next) = spectral_norm(&kernel.weight, &kernel.vector.as_detached_tensor(), POWER_ITERATIONS)?;
            kernel.vector.set(&next)?;
            norms.push(norm);
        }
        if norms.is_empty() {
            return Err(Error::contract("spectral penalty", "there are no convolutions"));
        }
        Ok(Tensor::stack(&norms, 0)?.sum_all()?)
    }

    /// The vectors by the names of their kernels.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        self.0.iter().map(|kernel| (kernel.name.clone(), kernel.vector.as_tensor().clone())).collect()
    }

    /// Go on from vectors of [`SpectralPenalty::state`]; one that is not among them starts afresh.
    ///
    /// # Errors
    /// A vector of another length.
    pub fn restore(&self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        for kernel in &self.0 {
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

    /// Kernels with singular values that are known, beside a matrix that is none.
    fn parameters() -> Vec<(String, Var)> {
        vec![
            ("a.weight".into(), var(&[3.0, 0.0, 0.0, 2.0], &[2, 1, 2])),
            ("b.weight".into(), var(&[0.0, 0.0, 4.0, 3.0], &[2, 2, 1, 1])),
            ("dense.weight".into(), var(&[100.0; 4], &[2, 2])),
            ("a.bias".into(), var(&[100.0; 2], &[2])),
        ]
    }

    fn value(penalty: &SpectralPenalty) -> f64 {
        penalty.value().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn the_norms_of_convolutions_add_up() {
        let penalty = SpectralPenalty::new(parameters()).unwrap();
        assert_eq!(penalty.len(), 2);
        assert!((value(&penalty) - 8.0).abs() < 1e-9);
        let none = SpectralPenalty::new([("w".into(), var(&[1.0], &[1, 1]))]).unwrap();
        assert!(none.is_empty() && none.value().is_err());
    }

    #[test]
    fn the_gradient_is_that_of_the_largest_singular_value() {
        let parameters = parameters();
        let penalty = SpectralPenalty::new(parameters.clone()).unwrap();
        let gradients = penalty.value().unwrap().backward().unwrap();
        let of = |i: usize| {
            gradients.get(parameters[i].1.as_tensor()).map(|g| g.flatten_all().unwrap().to_vec1::<f64>().unwrap())
        };
        for (found, expected) in [(of(0), [1.0, 0.0, 0.0, 0.0]), (of(1), [0.0, 0.0, 0.8, 0.6])] {
            assert!(found.unwrap().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6));
        }
        assert!(of(2).is_none() && of(3).is_none());
    }

    #[test]
    fn a_kernel_of_zeros_has_no_norm_and_a_finite_gradient() {
        let zero = var(&[0.0; 4], &[2, 2, 1]);
        let penalty = SpectralPenalty::new([("zero".into(), zero.clone())]).unwrap();
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
            (SpectralPenalty::new(parameters()).unwrap(), SpectralPenalty::new(parameters()).unwrap());
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
