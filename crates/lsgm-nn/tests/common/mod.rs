//! Gradient checks by central differences, and comparison of tensors.
#![allow(dead_code)]

use candle_core::{DType, Device, Shape, Tensor, Var};
use lsgm_core::{Result, Rng};

/// A tensor of standard Normal numbers.
pub(crate) fn normal(seed: u64, shape: impl Into<Shape>, dtype: DType) -> Tensor {
    Rng::new(seed).normal_tensor(shape, dtype, &Device::Cpu).unwrap()
}

/// A `f64` tensor of standard Normal numbers.
pub(crate) fn normal64(seed: u64, shape: impl Into<Shape>) -> Tensor {
    normal(seed, shape, DType::F64)
}

pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// Assert that two tensors have one shape and differ by at most `tolerance`, relative to the largest element.
#[track_caller]
pub(crate) fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (values(a), values(b));
    let size = b.iter().fold(1e-30_f64, |m, v| m.max(v.abs()));
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        assert!((a - b).abs() <= tolerance * size, "element {i}: {a} against {b} (largest {size})");
    }
}

/// `Σ y · weights` for fixed weights, so that every output counts differently.
fn loss(y: &Tensor) -> Tensor {
    let weights = normal(99, y.shape().clone(), y.dtype());
    (y * weights).unwrap().sum_all().unwrap()
}

/// Compare the gradients of `f` with respect to each of `inputs` with central differences in `f64`.
#[track_caller]
pub(crate) fn check_gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(&t.contiguous().unwrap()).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let gradients = loss(&f(&tensors).unwrap()).backward().unwrap();
    let step = 1e-5;
    for (k, input) in inputs.iter().enumerate() {
        let gradient = values(gradients.get(&vars[k]).expect("no gradient"));
        let at = values(input);
        let size = gradient.iter().fold(1.0_f64, |m, g| m.max(g.abs()));
        // Large inputs are sampled: every element of a small one, about 40 of a large one.
        for i in (0..at.len()).step_by(at.len().div_ceil(40)) {
            let value = |x: f64| {
                let mut moved = at.clone();
                moved[i] = x;
                let mut all: Vec<Tensor> = tensors.iter().map(Tensor::detach).collect();
                all[k] = Tensor::from_vec(moved, input.shape(), &Device::Cpu).unwrap();
                loss(&f(&all).unwrap()).to_scalar::<f64>().unwrap()
            };
            let difference = (value(at[i] + step) - value(at[i] - step)) / (2.0 * step);
            assert!(
                (difference - gradient[i]).abs() <= 2e-7 * size + 1e-9 * value(at[i]).abs().max(1.0),
                "input {k}, element {i}: gradient {} against {difference}",
                gradient[i]
            );
        }
    }
}
