//! The operations of image models: likelihoods of pixels, bilinear up-sampling, spectral norms, gated residuals.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::pixels::{cases, likelihood, pixels};
use common::{assert_close, check_gradients, loss, normal, run};
use lsgm_nn::ops::{self, LogisticForm};

#[test]
fn gradients_agree_with_central_differences() {
    cases().iter().for_each(check_gradients);
}

#[test]
fn single_precision_agrees_with_double() {
    let large = likelihood(LogisticForm::Mixture(10), 3, 256, -0.5);
    for case in cases().iter().chain([&large]) {
        let ((y, gradients), (y64, gradients64)) = (run(case, DType::F32), run(case, DType::F64));
        assert_close(&case.name, &y, &y64, 2e-5);
        for (g, g64) in gradients.iter().zip(&gradients64) {
            assert_close(&case.name, g, g64, 2e-4);
        }
    }
}

#[test]
fn corners_lie_on_corners_and_lines_stay_straight() {
    let x = Tensor::new(&[[[[0f64, 3.0], [6.0, 9.0]]]], &Device::Cpu).unwrap();
    let y = ops::upsample_bilinear2d(&x, 2).unwrap();
    let row = |a: f64| [a, a + 1.0, a + 2.0, a + 3.0].to_vec();
    let expected = [row(0.0), row(2.0), row(4.0), row(6.0)].concat();
    assert_close("bilinear", &y, &common::tensor(expected, (1, 1, 4, 4)), 1e-12);
    assert!(ops::upsample_bilinear2d(&x, 0).is_err());
    assert!(ops::upsample_bilinear2d(&x.get(0).unwrap(), 2).is_err());
}

/// The largest eigenvalue of `wᵀw` by many plain multiplications.
fn largest_singular_value(w: &Tensor) -> f64 {
    let gram = w.t().unwrap().matmul(w).unwrap();
    let mut v = Tensor::ones((gram.dim(0).unwrap(), 1), DType::F64, &Device::Cpu).unwrap();
    let mut value = 0.0;
    for _ in 0..2000 {
        v = gram.matmul(&v).unwrap();
        value = v.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
        v = (v / value).unwrap();
    }
    value.sqrt()
}

#[test]
fn power_iteration_finds_the_spectral_norm_and_goes_on_where_it_stopped() {
    let w = normal(4, (5, 2, 3, 1));
    let exact = largest_singular_value(&w.flatten_from(1).unwrap());
    let mut u = Tensor::zeros(5, DType::F64, &Device::Cpu).unwrap();
    let var = Var::from_tensor(&w).unwrap();
    let mut sigma = None;
    for _ in 0..60 {
        let (value, next) = ops::spectral_norm(var.as_tensor(), &u, 4).unwrap();
        (sigma, u) = (Some(value), next);
    }
    let sigma = sigma.unwrap();
    assert!((sigma.to_scalar::<f64>().unwrap() - exact).abs() < 1e-9 * exact);
    // With converged vectors the gradient is exact.
    let gradient = sigma.backward().unwrap().get(&var).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    for i in [0, 7, 29] {
        let moved = |step: f64| {
            let mut values = common::values(&w);
            values[i] += step;
            largest_singular_value(&common::tensor(values, (5, 6)))
        };
        let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        assert!((gradient[i] - difference).abs() < 1e-6, "{} {difference}", gradient[i]);
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let x = pixels(3, 256);
    let form = LogisticForm::Mixture(2);
    let parameters = normal(1, (2, form.parameters(3), 3, 5));
    assert!(ops::discretized_logistic_log_prob(&parameters, &x, 256, form).is_ok());
    assert!(ops::discretized_logistic_log_prob(&parameters, &x, 1, form).is_err());
    assert!(ops::discretized_logistic_log_prob(&parameters, &x, 256, LogisticForm::Mixture(3)).is_err());
    assert!(ops::discretized_logistic_log_prob(&parameters, &x.narrow(1, 0, 2).unwrap(), 256, form).is_err());
    assert!(ops::gated_residual(&x, &x, &normal(1, (2, 4)), 0.1).is_err());
    assert!(ops::spectral_norm(&normal(1, (4, 3)), &normal(1, 3), 4).is_err());
    assert!(loss(&ops::discretized_logistic_log_prob(&parameters, &x, 256, form).unwrap()).to_scalar::<f64>().is_ok());
}
