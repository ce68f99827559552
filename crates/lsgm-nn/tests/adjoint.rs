//! Over random shapes: a gradient of a linear op is its transpose, `⟨gradient, u⟩ = ⟨g, op(u)⟩` for any `u` and any output
//! gradient `g`; and a gradient of any op is its slope along a random direction.

mod common;

use candle_core::{DType, Tensor};
use common::{Case, loss, normal, run, values};
use lsgm_core::Result;
use lsgm_nn::ops::{self, Activation, Conv2dConfig, ConvTranspose2dConfig};
use proptest::prelude::*;

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    values(a).iter().zip(values(b)).map(|(a, b)| a * b).sum()
}

fn norm(a: &Tensor) -> f64 {
    dot(a, a).sqrt()
}

fn case(inputs: Vec<Tensor>, f: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static) -> Case {
    Case { name: String::new(), inputs, f: Box::new(f) }
}

/// A random direction for input `k`, and the gradients of [`loss`] in both precisions.
fn directions(case: &Case) -> Vec<(Tensor, Tensor, Tensor)> {
    let (double, float) = (run(case, DType::F64).1, run(case, DType::F32).1);
    let shapes = case.inputs.iter().enumerate().map(|(k, t)| normal(70 + k as u64, t.shape().clone()));
    shapes.zip(double).zip(float).map(|((u, d), f)| (u, d, f)).collect()
}

/// `case` is linear in each of its first `linear` inputs alone; the others are added (a bias).
fn check_linear(case: &Case, linear: usize) {
    let y = (case.f)(&case.inputs).unwrap();
    let size = norm(&y) * (y.elem_count() as f64).sqrt() + 1.0;
    for (k, (u, double, float)) in directions(case).into_iter().enumerate() {
        let with = |u: Tensor| {
            let mut inputs = case.inputs.clone();
            inputs[k] = u;
            loss(&(case.f)(&inputs).unwrap()).to_scalar::<f64>().unwrap()
        };
        let zero = u.zeros_like().unwrap();
        let expected = with(u.clone()) - with(zero);
        assert_near(k, linear, dot(&double, &u), expected, 1e-12 * size);
        assert_near(k, linear, dot(&float, &u), expected, 3e-5 * size);
    }
}

#[track_caller]
fn assert_near(k: usize, linear: usize, got: f64, expected: f64, tolerance: f64) {
    let what = if k < linear { "input" } else { "bias" };
    assert!((got - expected).abs() <= tolerance, "{what} {k}: {got} against {expected} (tolerance {tolerance})");
}

/// The slope along a random direction, by central differences.
fn check_slope(case: &Case) {
    for (k, (u, double, float)) in directions(case).into_iter().enumerate() {
        let step = 1e-5;
        let value = |s: f64| {
            let mut inputs = case.inputs.clone();
            inputs[k] = (&inputs[k] + (&u * s).unwrap()).unwrap();
            loss(&(case.f)(&inputs).unwrap()).to_scalar::<f64>().unwrap()
        };
        let slope = (value(step) - value(-step)) / (2.0 * step);
        let size = norm(&double) * norm(&u) + value(0.0).abs() + 1.0;
        for (got, tolerance) in [(dot(&double, &u), 1e-7), (dot(&float, &u), 1e-4)] {
            assert!((got - slope).abs() <= tolerance * size, "input {k}: {got} against {slope} (size {size})");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn convolution(
        (batch, groups, cin, cout) in (1..6usize, 1..4usize, 1..20usize, 1..20usize),
        (kernel, stride) in ((1..6usize, 1..6usize), (1..4usize, 1..4usize)),
        (padding, dilation) in ((0..3usize, 0..3usize), (1..3usize, 1..3usize)),
        (extra_h, extra_w) in (0..12usize, 0..12usize),
    ) {
        let size = |kernel: usize, dilation: usize, padding: usize, extra: usize| {
            (dilation * (kernel - 1) + 1).saturating_sub(2 * padding).max(1) + extra
        };
        let (h, w) = (size(kernel.0, dilation.0, padding.0, extra_h), size(kernel.1, dilation.1, padding.1, extra_w));
        let config = Conv2dConfig { stride, padding, dilation, groups };
        let x = normal(1, (batch, groups * cin, h, w));
        let weight = normal(2, (groups * cout, cin, kernel.0, kernel.1));
        let inputs = vec![x, weight, normal(3, groups * cout)];
        check_linear(&case(inputs, move |t| ops::conv2d(&t[0], &t[1], Some(&t[2]), &config)), 2);
    }

    #[test]
    fn convolution_in_tiles((batch, cin, cout) in (1..5usize, 1..40usize, 1..40usize), (h, w) in (1..16usize, 1..16usize)) {
        let config = Conv2dConfig::same((3, 3));
        let inputs = vec![normal(1, (batch, cin, h, w)), normal(2, (cout, cin, 3, 3)), normal(3, cout)];
        check_linear(&case(inputs, move |t| ops::conv2d(&t[0], &t[1], Some(&t[2]), &config)), 2);
    }

    #[test]
    fn transposed_convolution(
        (batch, groups, cin, cout) in (1..4usize, 1..3usize, 1..12usize, 1..12usize),
        (h, w) in (1..7usize, 1..7usize), kernel in (1..5usize, 1..5usize), stride in (1..4usize, 1..4usize),
        dilation in (1..3usize, 1..3usize),
    ) {
        let config = ConvTranspose2dConfig { stride, dilation, groups, ..Default::default() };
        let weight = normal(2, (groups * cin, cout, kernel.0, kernel.1));
        let inputs = vec![normal(1, (batch, groups * cin, h, w)), weight, normal(3, groups * cout)];
        check_linear(&case(inputs, move |t| ops::conv_transpose2d(&t[0], &t[1], Some(&t[2]), &config)), 2);
    }

    #[test]
    fn linear((rows, inputs, outputs) in (1..50usize, 1..70usize, 1..50usize)) {
        let inputs = vec![normal(1, (rows, inputs)), normal(2, (outputs, inputs)), normal(3, outputs)];
        check_linear(&case(inputs, |t| ops::linear(&t[0], &t[1], Some(&t[2]))), 2);
    }

    #[test]
    fn resolution((b, c, h, w, f) in (1..3usize, 1..6usize, 1..8usize, 1..8usize, 1..4usize)) {
        check_linear(&case(vec![normal(1, (b, c, h, w))], move |t| ops::upsample_nearest2d(&t[0], f)), 1);
        check_linear(&case(vec![normal(1, (b, c, h * f, w * f))], move |t| ops::avg_pool2d(&t[0], f)), 1);
        check_linear(&case(vec![normal(1, (b, c, h, w))], |t| ops::global_avg_pool(&t[0])), 1);
    }

    #[test]
    fn normalisation((batch, groups, per_group, p) in (2..6usize, 1..5usize, 1..5usize, 2..80usize), silu: bool) {
        let channels = groups * per_group;
        let activation = if silu { Activation::Silu } else { Activation::Identity };
        let inputs = vec![normal(1, (batch, channels, p)), normal(2, channels), normal(3, channels)];
        check_slope(&case(inputs.clone(), move |t| ops::group_norm(&t[0], &t[1], &t[2], groups, 1e-2, activation)));
        check_slope(&case(inputs.clone(), move |t| Ok(ops::batch_norm_train(&t[0], &t[1], &t[2], 1e-2, activation)?.0)));
        let rows = vec![inputs[0].transpose(1, 2).unwrap().contiguous().unwrap(), inputs[1].clone(), inputs[2].clone()];
        check_slope(&case(rows[..2].to_vec(), |t| ops::rms_norm(&t[0], &t[1], 1e-2)));
        check_slope(&case(rows, |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-2)));
    }

    #[test]
    fn attention((h, l, m, d) in (1..4usize, 1..150usize, 1..90usize, 1..20usize)) {
        let inputs = vec![normal(1, (2, h, l, d)), normal(2, (2, h, m, d)), normal(3, (2, h, m, d))];
        check_slope(&case(inputs, |t| ops::attention(&t[0], &t[1], &t[2], 0.3)));
    }

    #[test]
    fn functions((rows, width) in (1..30usize, 1..90usize)) {
        let x = vec![normal(1, (rows, width))];
        for f in [ops::silu, ops::gelu, ops::softplus, ops::sigmoid, ops::softmax, ops::log_softmax] {
            check_slope(&case(x.clone(), move |t| f(&t[0])));
        }
        let gate = normal(2, rows);
        check_slope(&case(vec![x[0].clone(), gate], |t| ops::weight_norm(&t[0], &t[1], 1e-5)));
        let maps = vec![x[0].reshape((rows, 1, width)).unwrap(), normal(2, (rows, 1))];
        check_slope(&case(maps, |t| ops::squeeze_excite(&t[0], &t[1])));
        let bits = x[0].gt(0.3).unwrap().to_dtype(DType::F64).unwrap();
        check_slope(&case(vec![normal(3, (rows, width)), bits], |t| ops::bernoulli_log_prob(&t[0], &t[1])));
    }
}
