//! Every op on a GPU beside the kernels of the CPU, forwards and on the way back. Without a GPU each test says so and ends.

mod common;

use candle_core::{DType, Device};
use common::{Case, assert_agree, assert_close, cases, lowered, normal, pixels};
use lsgm_core::Rng;
use lsgm_nn::ops::{self, Conv2dConfig};
use lsgm_nn::optim::OptimizerKind;
use lsgm_nn::{Precision, gpu, with_precision};

/// The first GPU.
fn cuda() -> Option<Device> {
    if !gpu::is_built_in() {
        eprintln!("skipped: built without the feature `cuda`");
        return None;
    }
    match gpu::count() {
        Ok(1..) => Some(gpu::open(0).unwrap()),
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

fn check(case: &Case, device: &Device, tolerance: f64) {
    let (found, expected) = (common::run_on(case, DType::F32, device), common::run(case, DType::F32));
    assert_agree(case, &found, &expected, tolerance);
}

#[test]
fn every_op_agrees_with_the_cpu() {
    let Some(device) = cuda() else { return };
    for case in cases::small().iter().chain(&cases::large()).chain(&cases::kinks()).chain(&pixels::cases()) {
        check(case, &device, 1e-4);
    }
}

#[test]
fn every_op_agrees_in_bf16_up_to_rounding() {
    let Some(device) = cuda() else { return };
    with_precision(Precision::Bf16, || {
        lowered::cases().iter().for_each(|case| check(case, &device, 2e-2));
    });
}

/// Activations in f32 whose products alone are rounded, as in the small layers beside a body.
#[test]
fn bf16_products_agree_with_the_cpu_up_to_rounding() {
    let Some(device) = cuda() else { return };
    let mut all = cases::attention(&[(40, 40, 16)]);
    all.extend(cases::conv2d([8, 32, 14, 14], [48, 32, 3, 3], Conv2dConfig::same((3, 3))));
    all.extend(cases::conv2d([8, 32, 14, 14], [48, 32, 1, 1], Conv2dConfig::default()));
    all.push(Case {
        name: "linear".to_owned(),
        inputs: vec![normal(1, (64, 96)), normal(2, (80, 96)), normal(3, 80)],
        f: Box::new(|t| ops::linear(&t[0], &t[1], Some(&t[2]))),
    });
    with_precision(Precision::Bf16, || all.iter().for_each(|case| check(case, &device, 2e-2)));
}

/// The host has drawn what the device draws, bit for bit.
#[test]
fn the_device_draws_what_the_host_draws() {
    let Some(device) = cuda() else { return };
    let mut rng = Rng::new(5).fork("noise");
    rng.uniforms(37);
    let found = rng.clone().uniform_tensor(5000, DType::F32, &device).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(found, rng.uniforms(5000));
}

#[test]
fn dropout_moments_and_spectral_norms_agree_with_the_cpu() {
    let Some(device) = cuda() else { return };
    check(&common::dropout(DType::F32), &device, 1e-6);
    check(&common::dropout(DType::BF16), &device, 1e-2);
    for (a, b) in common::batch_moments(&device).iter().zip(&common::batch_moments(&Device::Cpu)) {
        assert_close("moments", a, b, 1e-5);
    }
    for (i, (a, b)) in common::spectral_norms(&device).iter().zip(&common::spectral_norms(&Device::Cpu)).enumerate() {
        assert_close(&format!("spectral norms, tensor {i}"), a, b, 1e-4);
    }
}

/// NVRTC needs no GPU.
#[test]
fn every_kernel_compiles() {
    if !gpu::is_built_in() {
        eprintln!("skipped: built without the feature `cuda`");
        return;
    }
    gpu::compile_kernels().unwrap();
}

#[test]
fn optimizers_agree_with_the_cpu() {
    let Some(device) = cuda() else { return };
    for kind in [OptimizerKind::Adam, OptimizerKind::AdamW, OptimizerKind::Adamax] {
        for (a, b) in common::optimizer_steps(kind, &device).iter().zip(&common::optimizer_steps(kind, &Device::Cpu)) {
            assert_close(&format!("{kind:?}"), a, b, 1e-5);
        }
    }
}
