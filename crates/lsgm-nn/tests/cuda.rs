//! Every op on a GPU beside the kernels of the CPU, forwards and on the way back. Without a GPU each test says so and ends.

mod common;

use candle_core::{DType, Device};
use common::{Case, assert_close, cases, normal, pixels};
use lsgm_nn::ops::{self, Conv2dConfig};
use lsgm_nn::optim::{Ema, GradientScale, Gradients, Optimizer, OptimizerConfig, OptimizerKind};
use lsgm_nn::{Precision, gpu, with_precision};

/// The first GPU.
fn cuda() -> Option<Device> {
    if !gpu::is_built_in() {
        eprintln!("skipped: built without the feature `cuda`");
        return None;
    }
    match gpu::gpus() {
        Ok(gpus) if !gpus.is_empty() => Some(Device::new_cuda(0).unwrap()),
        Ok(_) => {
            eprintln!("skipped: the driver shows no GPU");
            None
        }
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

fn check(case: &Case, device: &Device, dtype: DType, tolerance: f64) {
    let (y, gradients) = common::run(case, dtype);
    let (on_gpu, gpu_gradients) = common::run_on(case, dtype, device);
    assert_close(&case.name, &on_gpu, &y, tolerance);
    for (i, (g, expected)) in gpu_gradients.iter().zip(&gradients).enumerate() {
        assert_close(&format!("{}, gradient {i}", case.name), g, expected, tolerance);
    }
}

#[test]
fn every_op_agrees_with_the_cpu() {
    let Some(device) = cuda() else { return };
    for case in cases::small().iter().chain(&cases::large()).chain(&pixels::cases()) {
        check(case, &device, DType::F32, 1e-4);
    }
}

#[test]
fn bf16_products_agree_with_the_cpu_up_to_rounding() {
    let Some(device) = cuda() else { return };
    let mut all = cases::attention(&[(40, 40, 16)]);
    all.extend(cases::conv2d([8, 32, 14, 14], [48, 32, 3, 3], Conv2dConfig::same((3, 3))));
    all.extend(cases::conv2d([8, 32, 14, 14], [48, 32, 1, 1], Conv2dConfig::default()));
    all.extend(cases::conv2d([8, 32, 14, 14], [32, 1, 5, 5], Conv2dConfig::same((5, 5)).with_groups(32)));
    all.push(Case {
        name: "linear".to_owned(),
        inputs: vec![normal(1, (64, 96)), normal(2, (80, 96)), normal(3, 80)],
        f: Box::new(|t| ops::linear(&t[0], &t[1], Some(&t[2]))),
    });
    with_precision(Precision::Bf16, || all.iter().for_each(|case| check(case, &device, DType::F32, 2e-2)));
}

#[test]
fn optimizers_agree_with_the_cpu() {
    let Some(device) = cuda() else { return };
    for kind in [OptimizerKind::Adam, OptimizerKind::AdamW, OptimizerKind::Adamax] {
        let run = |device: &Device| {
            let var = |seed: u64| {
                let values = normal(seed, (37, 11)).to_dtype(DType::F32).unwrap().to_device(device).unwrap();
                candle_core::Var::from_tensor(&values).unwrap()
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
            vars.into_iter().chain(averages).map(|(_, var)| var.as_tensor().clone()).collect::<Vec<_>>()
        };
        for (a, b) in run(&device).iter().zip(&run(&Device::Cpu)) {
            assert_close(&format!("{kind:?}"), a, b, 1e-5);
        }
    }
}
