//! Optimizers against PyTorch's, and their state.

mod common;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use common::{assert_close, normal, values};
use lsgm_core::{Init, ParamStore, Rng};
use lsgm_nn::ops::without_kernels;
use lsgm_nn::optim::{Ema, GradientScale, Gradients, Optimizer, OptimizerConfig, OptimizerKind};

fn var(values: &[f64]) -> Var {
    Var::new(values, &Device::Cpu).unwrap()
}

/// Gradients of `vars` with given values.
fn gradients(vars: &[(String, Var)], of: impl Fn(usize) -> Option<Tensor>) -> Gradients {
    let mut loss = Tensor::zeros((), vars[0].1.dtype(), &Device::Cpu).unwrap();
    for (i, (_, var)) in vars.iter().enumerate() {
        if let Some(g) = of(i) {
            loss = (loss + (var.as_tensor() * g).unwrap().sum_all().unwrap()).unwrap();
        }
    }
    Gradients::collect(&loss.backward().unwrap(), vars)
}

/// Seven steps in PyTorch 2 with betas 0.8 and 0.95, weight decay 0.1, learning rate 0.05; an average with decay 0.9.
#[test]
fn updates_are_pytorchs() {
    let cases = [
        (
            OptimizerKind::Adam,
            1e-6,
            [0.644744461165673, -1.683557769472479, 0.538641522588515],
            [0.883945614525319, -1.893157973783599, 0.522142830747339],
        ),
        (
            OptimizerKind::AdamW,
            1e-6,
            [0.619358009760518, -1.655650843689061, 0.551097377715056],
            [0.875107027695212, -1.880219321605355, 0.525207600237208],
        ),
        (
            OptimizerKind::Adamax,
            1e-3,
            [0.724733085980743, -1.738853234723045, 0.539891891662785],
            [0.905735744452566, -1.908628750100303, 0.522532197039388],
        ),
    ];
    for (kind, eps, expected, expected_average) in cases {
        for dtype in [DType::F64, DType::F32] {
            let start = [1.0, -2.0, 0.5];
            let typed = |v: &[f64]| Var::from_tensor(&var(v).to_dtype(dtype).unwrap()).unwrap();
            let vars = vec![("p".to_owned(), typed(&start))];
            let averages = vec![("p".to_owned(), typed(&start))];
            let config = OptimizerConfig { kind, beta1: 0.8, beta2: 0.95, eps, weight_decay: 0.1 };
            let mut optimizer = Optimizer::new(config, vars.clone()).unwrap();
            for t in 1..8 {
                let t = f64::from(t);
                let sign = if t % 2.0 == 0.0 { 1.0 } else { -1.0 };
                let g = gradients(&vars, |_| Some(typed(&[0.3 * t, -1.0 / t, sign]).as_tensor().clone()));
                optimizer.step(&g, 0.05, 0.5, Some(Ema { decay: 0.9, averages: &averages })).unwrap();
            }
            let tolerance = if dtype == DType::F64 { 1e-14 } else { 5e-7 };
            for (got, expected) in [(&vars, expected), (&averages, expected_average)] {
                for (a, b) in values(&got[0].1).iter().zip(expected) {
                    assert!((a - b).abs() < tolerance, "{kind:?} {dtype:?}: {a} against {b}");
                }
            }
        }
    }
}

fn many(threads: usize) -> (Vec<Vec<f64>>, f64) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let single = |seed: u64, n: usize| normal(seed, n).to_dtype(DType::F32).unwrap();
        let sizes = [1, 17, 40_000, 100_003];
        let vars: Vec<(String, Var)> =
            (0u64..).zip(sizes).map(|(i, n)| (format!("p{i}"), Var::from_tensor(&single(i, n)).unwrap())).collect();
        let mut optimizer = Optimizer::new(OptimizerConfig::default(), vars.clone()).unwrap();
        let mut norm = 0.0;
        for step in 0..3 {
            let g = gradients(&vars, |i| Some(single(100 + step + i as u64, sizes[i])));
            norm = g.norm().unwrap();
            optimizer.step(&g, 0.01, 1.0 / norm, None).unwrap();
        }
        (vars.iter().map(|(_, v)| values(v)).collect(), norm)
    })
}

#[test]
fn updates_and_norms_do_not_depend_on_the_number_of_threads() {
    assert!(many(1) == many(2) && many(1) == many(5));
}

#[test]
fn the_norm_is_that_of_all_gradients_and_shows_what_is_not_finite() {
    let vars = vec![("a".to_owned(), var(&[0.0, 0.0])), ("b".to_owned(), var(&[0.0])), ("c".to_owned(), var(&[0.0]))];
    let row = |v: &[f64]| Some(Tensor::new(v, &Device::Cpu).unwrap());
    let mut g = gradients(&vars, |i| [row(&[2.0, 3.0]), row(&[6.0]), None][i].clone());
    assert_eq!(g.norm().unwrap(), 7.0);
    assert_eq!(g.missing(), ["c"]);
    let again = gradients(&vars, |i| [row(&[2.0, 3.0]), None, row(&[1.0])][i].clone());
    g.add(&again).unwrap();
    g.scale(0.5).unwrap();
    assert_eq!(values(g.get("a").unwrap()), [2.0, 3.0]);
    assert_eq!((values(g.get("b").unwrap()), values(g.get("c").unwrap())), (vec![3.0], vec![0.5]));
    assert!(g.is_finite().unwrap());
    for bad in [f64::NAN, f64::INFINITY] {
        assert!(!gradients(&vars, |i| [None, row(&[bad]), None][i].clone()).is_finite().unwrap());
    }
}

#[test]
fn a_parameter_without_a_gradient_stays() {
    let vars = vec![("a".to_owned(), var(&[1.0])), ("b".to_owned(), var(&[1.0]))];
    let config = OptimizerConfig { weight_decay: 0.1, ..Default::default() };
    let mut optimizer = Optimizer::new(config, vars.clone()).unwrap();
    let g = gradients(&vars, |i| (i == 0).then(|| Tensor::new(&[1f64], &Device::Cpu).unwrap()));
    optimizer.step(&g, 0.1, 1.0, None).unwrap();
    assert!(values(&vars[0].1)[0] < 1.0);
    assert_eq!(values(&vars[1].1), [1.0]);
}

/// A step, a store and a restore, and a step more are two steps.
#[test]
fn a_restored_optimizer_goes_on_to_the_bit() {
    for kind in [OptimizerKind::Adam, OptimizerKind::AdamW, OptimizerKind::Adamax] {
        let config = OptimizerConfig { kind, ..Default::default() };
        let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(1));
        store.root().get("w", (3, 5), Init::Normal(1.0)).unwrap();
        let copy = store.deep_copy().unwrap();
        let g = |vars: &[(String, Var)], seed| {
            gradients(vars, |_| Some(normal(seed, (3, 5)).to_dtype(DType::F32).unwrap()))
        };
        let mut straight = Optimizer::new(config.clone(), store.vars()).unwrap();
        straight.step(&g(&store.vars(), 1), 0.1, 1.0, None).unwrap();
        let (state, weights) = (straight.state().unwrap(), store.deep_copy().unwrap());
        straight.step(&g(&store.vars(), 2), 0.1, 1.0, None).unwrap();

        copy.load(&weights.tensors()).unwrap();
        let mut resumed = Optimizer::new(config, copy.vars()).unwrap();
        assert_eq!(state.keys().collect::<Vec<_>>(), ["w.m", "w.v"]);
        resumed.restore(&state, straight.steps() - 1).unwrap();
        resumed.step(&g(&copy.vars(), 2), 0.1, 1.0, None).unwrap();
        assert_eq!(values(&store.vars()[0].1), values(&copy.vars()[0].1));
        assert_eq!(resumed.steps(), 2);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let vars = vec![("a".to_owned(), var(&[1.0])), ("b".to_owned(), var(&[1.0, 2.0]))];
    let config = OptimizerConfig::default;
    let error = |r: lsgm_core::Result<()>| r.unwrap_err().to_string();
    let mut optimizer = Optimizer::new(config(), vars.clone()).unwrap();
    let swapped: Vec<_> = vars.iter().rev().cloned().collect();
    let one = |_| Some(Tensor::new(&[1f64], &Device::Cpu).unwrap());
    let g = gradients(&swapped[1..], one);
    assert!(error(optimizer.step(&g, 0.1, 1.0, None)).contains("1 gradients for 2 parameters"));
    let g = gradients(&vars, |_| None);
    let message = error(optimizer.step(&g, 0.1, 1.0, Some(Ema { decay: 0.9, averages: &swapped })));
    assert!(message.contains("`b`") && message.contains("`a`"), "{message}");
    let same = Ema { decay: 0.9, averages: &vars };
    assert!(error(optimizer.step(&g, 0.1, 1.0, Some(same))).contains("the parameter itself"));
    assert_eq!(optimizer.steps(), 0);

    let twice = vec![("a".to_owned(), vars[0].1.clone()), ("b".to_owned(), vars[0].1.clone())];
    assert!(Optimizer::new(config(), twice).unwrap_err().to_string().contains("listed twice"));
    let mut state = optimizer.state().unwrap();
    let moment = state.remove("b.v").unwrap();
    assert!(error(optimizer.restore(&state, 1)).contains("`b.v` is missing"));
    state.insert("b.v".to_owned(), moment.narrow(0, 0, 1).unwrap());
    assert!(error(optimizer.restore(&state, 1)).contains("`b.v` has shape [1] instead of [2]"));
    assert!(error(optimizer.restore(&BTreeMap::from([("x.m".to_owned(), moment)]), 1)).contains("`x.m`"));

    let bad = OptimizerConfig { beta1: 1.0, ..Default::default() };
    assert!(bad.validate("train.optimizer").unwrap_err().to_string().contains("train.optimizer.beta1"));
    assert!(serde_json::from_str::<OptimizerConfig>(r#"{"kind": "adamax", "momentum": 0.9}"#).is_err());
    let read: OptimizerConfig = serde_json::from_str(r#"{"kind": "adamw", "weight_decay": 0.01}"#).unwrap();
    assert_eq!((read.kind, read.beta2), (OptimizerKind::AdamW, 0.999));
}

/// Three steps with clipped gradients, and a second parameter that has none; all that a step changes.
fn clipped(kind: OptimizerKind, dtype: DType) -> Vec<Tensor> {
    let typed = |seed: u64| Var::from_tensor(&normal(seed, (5, 7)).to_dtype(dtype).unwrap()).unwrap();
    let named = |seed: u64| vec![("p".to_owned(), typed(seed)), ("q".to_owned(), typed(seed + 1))];
    let (vars, averages) = (named(1), named(1));
    let config = OptimizerConfig { kind, weight_decay: 0.1, eps: 1e-3, ..Default::default() };
    let mut optimizer = Optimizer::new(config.clone(), vars.clone()).unwrap();
    for step in 0..3 {
        let g = gradients(&vars, |i| (i == 0).then(|| typed(10 + step).as_tensor().clone()));
        let scale = GradientScale::clip(&g.norm_tensor().unwrap(), 2.0).unwrap();
        optimizer.step(&g, 0.05, scale, Some(Ema { decay: 0.9, averages: &averages })).unwrap();
        // Through its stored state into a new one.
        let (state, steps) = (optimizer.state().unwrap(), optimizer.steps());
        optimizer = Optimizer::new(config.clone(), vars.clone()).unwrap();
        optimizer.restore(&state, steps).unwrap();
    }
    let all = vars.into_iter().chain(averages).map(|(_, var)| var.as_tensor().clone());
    all.chain(optimizer.state().unwrap().into_values()).collect()
}

/// A step on a device without kernels is that of the kernels.
#[test]
fn composed_steps_are_those_of_the_kernels() {
    for kind in [OptimizerKind::Adam, OptimizerKind::AdamW, OptimizerKind::Adamax] {
        for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-6)] {
            let composed = without_kernels(|| clipped(kind, dtype));
            for (i, (a, b)) in composed.iter().zip(&clipped(kind, dtype)).enumerate() {
                assert_close(&format!("{kind:?} {dtype:?} {i}"), a, b, tolerance);
            }
        }
    }
}

#[test]
fn gradients_are_clipped_to_the_limit_alone() {
    for (norm, factor) in [(4.0, 0.5), (2.0, 1.0), (1.0, 1.0), (0.0, 1.0)] {
        let norm = Tensor::new(norm, &Device::Cpu).unwrap();
        let GradientScale::Number(kernel) = GradientScale::clip(&norm, 2.0).unwrap() else { panic!("not read") };
        let GradientScale::OnDevice(composed) = without_kernels(|| GradientScale::clip(&norm, 2.0)).unwrap() else {
            panic!("the host waited for the device")
        };
        assert_eq!((kernel, composed.to_scalar::<f64>().unwrap()), (factor, factor));
    }
}
