//! Comparison of tensors, gradient checks, and the list of all ops that the tests run through.
#![allow(dead_code)]
// Tables of cases read best as they stand.
#![allow(clippy::type_complexity, clippy::useless_vec)]

pub(crate) mod cases;
pub(crate) mod host;
pub(crate) mod lowered;
pub(crate) mod pixels;
pub(crate) mod plain;

use candle_core::{DType, Device, Shape, Tensor, Var};
use lsgm_core::{Result, Rng};
use lsgm_nn::ops;
use lsgm_nn::optim::{Ema, GradientScale, Gradients, Optimizer, OptimizerConfig, OptimizerKind};

/// A function of several tensors.
pub(crate) type Function = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync>;

/// An op with inputs (`f64`) to try it on.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) f: Function,
}

/// `f64` standard Normal numbers.
pub(crate) fn normal(seed: u64, shape: impl Into<Shape>) -> Tensor {
    Rng::new(seed).normal_tensor(shape, DType::F64, &Device::Cpu).unwrap()
}

pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// A tensor of `f64` numbers.
pub(crate) fn tensor(values: Vec<f64>, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_vec(values, shape.into(), &Device::Cpu).unwrap()
}

/// Assert that two tensors have one shape and differ by at most `tolerance`, relative to the largest element.
#[track_caller]
pub(crate) fn assert_close(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let (a, b) = (values(a), values(b));
    let size = b.iter().fold(1e-30_f64, |m, v| m.max(v.abs()));
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        assert!((a - b).abs() <= tolerance * size, "{what}, element {i}: {a} against {b} (largest {size})");
    }
}

/// `Σ y · weights` for fixed weights, so that every output counts differently.
pub(crate) fn loss(y: &Tensor) -> Tensor {
    let weights = normal(99, y.shape().clone()).to_dtype(y.dtype()).unwrap().to_device(y.device()).unwrap();
    (y * weights).unwrap().sum_all().unwrap()
}

/// The output and the gradient of [`loss`] with respect to every input.
pub(crate) fn run(case: &Case, dtype: DType) -> (Tensor, Vec<Tensor>) {
    run_on(case, dtype, &Device::Cpu)
}

/// [`run`] on a device.
pub(crate) fn run_on(case: &Case, dtype: DType, device: &Device) -> (Tensor, Vec<Tensor>) {
    let moved = |t: &Tensor| t.to_dtype(dtype)?.contiguous()?.to_device(device);
    let vars: Vec<Var> = case.inputs.iter().map(|t| Var::from_tensor(&moved(t).unwrap()).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = (case.f)(&tensors).unwrap();
    let store = loss(&y).backward().unwrap();
    let gradients = vars.iter().map(|v| store.get(v).expect("no gradient").clone()).collect();
    (y.detach(), gradients)
}

/// Assert that outputs and gradients of [`run`] agree.
#[track_caller]
pub(crate) fn assert_agree(
    case: &Case,
    found: &(Tensor, Vec<Tensor>),
    expected: &(Tensor, Vec<Tensor>),
    tolerance: f64,
) {
    assert_close(&case.name, &found.0, &expected.0, tolerance);
    for (i, (found, expected)) in found.1.iter().zip(&expected.1).enumerate() {
        assert_close(&format!("{}, gradient {i}", case.name), found, expected, tolerance);
    }
}

/// Compare the gradients with respect to each input with central differences in `f64`.
pub(crate) fn check_gradients(case: &Case) {
    let (_, gradients) = run(case, DType::F64);
    let step = 1e-5;
    for (k, (input, gradient)) in case.inputs.iter().zip(&gradients).enumerate() {
        let (gradient, at) = (values(gradient), values(input));
        let size = gradient.iter().fold(1.0_f64, |m, g| m.max(g.abs()));
        // Every element of a small input, about 40 of a large one.
        for i in (0..at.len()).step_by(at.len().div_ceil(40)) {
            let value = |x: f64| {
                let (mut moved, mut all) = (at.clone(), case.inputs.clone());
                moved[i] = x;
                all[k] = tensor(moved, input.shape());
                loss(&(case.f)(&all).unwrap()).to_scalar::<f64>().unwrap()
            };
            let difference = (value(at[i] + step) - value(at[i] - step)) / (2.0 * step);
            assert!(
                (difference - gradient[i]).abs() <= 2e-7 * size + 1e-9 * value(at[i]).abs().max(1.0),
                "{}: input {k}, element {i}: gradient {} against {difference}",
                case.name,
                gradient[i]
            );
        }
    }
}

/// Parameters and averages after a few steps of an optimizer.
pub(crate) fn optimizer_steps(kind: OptimizerKind, device: &Device) -> Vec<Tensor> {
    let var = |seed: u64| {
        let values = normal(seed, (37, 11)).to_dtype(DType::F32).unwrap().to_device(device).unwrap();
        Var::from_tensor(&values).unwrap()
    };
    let named = || vec![("a".to_owned(), var(1)), ("b".to_owned(), var(2))];
    let (vars, averages) = (named(), named());
    let config = OptimizerConfig { kind, eps: 1e-3, weight_decay: 0.1, ..Default::default() };
    let mut optimizer = Optimizer::new(config, vars.clone()).unwrap();
    for step in 0..4 {
        // The second parameter has no gradient.
        let loss = (vars[0].1.as_tensor() * var(10 + step).as_tensor()).unwrap().sum_all().unwrap();
        let gradients = Gradients::collect(&loss.backward().unwrap(), &vars);
        let scale = GradientScale::clip(&gradients.norm_tensor().unwrap(), 3.0).unwrap();
        optimizer.step(&gradients, 0.03, scale, Some(Ema { decay: 0.9, averages: &averages })).unwrap();
    }
    vars.into_iter().chain(averages).map(|(_, var)| var.as_tensor().clone()).collect()
}

/// Mean and variance that a batch norm tells.
pub(crate) fn batch_moments(device: &Device) -> [Tensor; 2] {
    let x = normal(1, (3, 4, 5)).to_dtype(DType::F32).unwrap().to_device(device).unwrap();
    let c = Tensor::ones(4, DType::F32, device).unwrap();
    let (_, mean, variance) = ops::batch_norm_train(&x, &c, &c, 1e-5, ops::Activation::Silu).unwrap();
    [mean, variance]
}

/// Spectral norms of several weights, the vectors to go on from, and the gradients of their sum.
pub(crate) fn spectral_norms(device: &Device) -> Vec<Tensor> {
    let single = |t: Tensor| t.to_dtype(DType::F32).unwrap().to_device(device).unwrap();
    let shapes = [vec![5, 3, 2], vec![40, 300], vec![1, 7]];
    let weights = shapes.map(|shape| Var::from_tensor(&single(normal(1, shape))).unwrap());
    let starts = weights.each_ref().map(|w| single(normal(2, w.dim(0).unwrap())));
    let pairs: Vec<_> = weights.iter().map(Var::as_tensor).zip(&starts).collect();
    let found = ops::spectral_norms(&pairs, 5).unwrap();
    let total = found.iter().map(|(sigma, _)| sigma.clone()).reduce(|a, b| (a + b).unwrap()).unwrap();
    let store = total.backward().unwrap();
    let gradients = weights.iter().map(|w| store.get(w).unwrap().clone());
    found.iter().flat_map(|(sigma, next)| [sigma.detach(), next.clone()]).chain(gradients).collect()
}

/// A case of dropout, of activations in `dtype`.
pub(crate) fn dropout(dtype: DType) -> Case {
    Case {
        name: format!("dropout in {dtype:?}"),
        inputs: vec![normal(1, (3, 7, 11))],
        f: Box::new(move |t| {
            let x = t[0].to_dtype(dtype)?;
            ops::dropout(&x, 0.3, &mut Rng::new(2))?.to_dtype(DType::F32).map_err(Into::into)
        }),
    }
}
