//! The ops as they are on a GPU, composed of tensor operations, beside the kernels: values and gradients.

mod common;

use candle_core::{DType, Tensor, Var};
use common::{Case, assert_agree, assert_close, cases, normal, pixels};
use lsgm_nn::ops::{self, Conv2dConfig, without_kernels};
use lsgm_nn::{Precision, TimeEmbedding, with_precision};

fn all() -> Vec<Case> {
    let mut all = cases::small();
    all.extend(cases::large());
    all.extend(pixels::cases());
    all.extend(cases::kinks());
    all.push(cross_entropy_of_components());
    all
}

/// The cross entropy of components leaves features and factors alone, so that it has no central differences.
fn cross_entropy_of_components() -> Case {
    let inputs = vec![normal(1, (2, 5, 7)), normal(2, (2, 3, 7)), normal(3, (2, 5, 3))];
    let (others, shared) = (normal(4, (2, 5, 7)), normal(5, (3, 7)));
    Case {
        name: "expected_factors and a cross entropy".to_owned(),
        inputs,
        f: Box::new(move |t| {
            let targets = [&others.to_dtype(t[0].dtype())?, &shared.to_dtype(t[0].dtype())?];
            let (y, loss) = ops::expected_factors(&t[0], &t[1], &t[2], Some(targets))?;
            Ok(Tensor::cat(&[&y, &loss.expect("there are targets").unsqueeze(2)?], 2)?)
        }),
    }
}

fn check(case: &Case, dtype: DType, tolerance: f64) {
    let composed = without_kernels(|| common::run(case, dtype));
    assert_agree(case, &composed, &common::run(case, dtype), tolerance);
}

#[test]
fn every_op_agrees_with_its_kernel_in_double_precision() {
    all().iter().for_each(|case| check(case, DType::F64, 1e-10));
}

#[test]
fn every_op_agrees_with_its_kernel_in_single_precision() {
    all().iter().for_each(|case| check(case, DType::F32, 1e-5));
}

/// Kernels know `f32` and `f64` alone: that a composed op takes `f16` shows that no kernel ran.
#[test]
fn composed_ops_are_no_kernels() {
    let x = normal(1, (2, 3)).to_dtype(DType::F16).unwrap();
    assert!(without_kernels(|| ops::softplus(&x)).is_ok());
    assert!(ops::softplus(&x).is_err(), "kernels are back afterwards");
}

#[test]
fn the_spectral_norm_agrees_from_a_given_start() {
    let (w, u) = (normal(1, (5, 3, 2)), normal(2, 5));
    let both = || {
        let w = Var::from_tensor(&w).unwrap();
        let (sigma, next) = ops::spectral_norm(&w, &u, 4).unwrap();
        let gradient = sigma.backward().unwrap().get(&w).unwrap().clone();
        [sigma.detach(), next, gradient]
    };
    let zeros = u.zeros_like().unwrap();
    for (a, b) in without_kernels(both).iter().zip(&both()) {
        assert_close("spectral norm", a, b, 1e-12);
    }
    // A fresh start makes ten times the steps on the CPU.
    let composed = without_kernels(|| ops::spectral_norm(&w, &zeros, 40)).unwrap();
    assert_close("from zeros", &composed.0, &ops::spectral_norm(&w, &zeros, 4).unwrap().0, 1e-12);
}

#[test]
fn batch_moments_and_features_of_time_agree() {
    let (x, c) = (normal(1, (3, 4, 5)), normal(2, 4));
    let moments = || ops::batch_norm_train(&x, &c, &c, 1e-5, ops::Activation::Silu).unwrap();
    let ((_, mean, variance), (_, m, v)) = (without_kernels(moments), moments());
    assert_close("mean", &mean, &m, 1e-12);
    assert_close("variance", &variance, &v, 1e-12);
    let t = Tensor::new(&[0.0, 0.37, 1.0], x.device()).unwrap();
    for dim in [6, 7] {
        let features = || TimeEmbedding::new(dim).forward(&t).unwrap();
        assert_close("time", &without_kernels(features), &features(), 1e-12);
    }
}

/// With factors rounded to bf16 an error of two hundredths is allowed, and rounding must take place.
#[test]
fn bf16_products_differ_by_rounding_alone() {
    let same = Conv2dConfig::same((3, 3));
    let [conv, _] = cases::conv2d([2, 16, 9, 7], [8, 16, 3, 3], same);
    let transposed = Case {
        name: "conv_transpose2d".to_owned(),
        inputs: vec![normal(1, (2, 6, 5, 5)), normal(2, (6, 4, 3, 3))],
        f: Box::new(|t| ops::conv_transpose2d(&t[0], &t[1], None, &Default::default())),
    };
    let linear = Case {
        name: "linear".to_owned(),
        inputs: vec![normal(1, (7, 40)), normal(2, (30, 40)), normal(3, 30)],
        f: Box::new(|t| ops::linear(&t[0], &t[1], Some(&t[2]))),
    };
    let attention = cases::attention(&[(20, 20, 16)]).remove(0);
    for case in [conv, transposed, linear, attention] {
        let (y, gradients) = common::run(&case, DType::F32);
        let rounded = || with_precision(Precision::Bf16, || common::run(&case, DType::F32));
        let (z, rounded_gradients) = without_kernels(rounded);
        assert_close(&case.name, &z, &y, 2e-2);
        let differs = (&z - &y).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(differs > 1e-5, "{}: nothing was rounded", case.name);
        for (i, (g, expected)) in rounded_gradients.iter().zip(&gradients).enumerate() {
            assert_close(&format!("{}, gradient {i}", case.name), g, expected, 2e-2);
        }
        // The kernels of the CPU take no notice.
        assert_close(&case.name, &rounded().0, &y, 0.0);
    }
}
