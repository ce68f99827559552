//! The kernels of a GPU, run on the CPU, beside those of the CPU: values and gradients.

mod common;

use candle_core::{DType, Device};
use common::host::{never_launched, with_gpu_kernels};
use common::{Case, assert_agree, assert_close, cases, lowered, normal, pixels, values};
use lsgm_core::Rng;
use lsgm_nn::optim::OptimizerKind;
use lsgm_nn::{Precision, full_precision, lower_precision, ops, with_precision};

fn check(case: &Case, tolerance: f64) {
    if let Some(found) = with_gpu_kernels(|| common::run(case, DType::F32)) {
        assert_agree(case, &found, &common::run(case, DType::F32), tolerance);
    }
}

#[test]
fn every_op_agrees_with_the_cpu() {
    for case in cases::small().iter().chain(&cases::large()).chain(&cases::kinks()).chain(&pixels::cases()) {
        check(case, 1e-5);
    }
}

#[test]
fn every_op_agrees_in_bf16_up_to_rounding() {
    with_precision(Precision::Bf16, || lowered::cases().iter().for_each(|case| check(case, 2e-2)));
}

/// The same without any kernel: as on a GPU that the kernels do not serve.
#[test]
fn compositions_agree_in_bf16_up_to_rounding() {
    with_precision(Precision::Bf16, || {
        for case in lowered::cases() {
            let found = ops::without_kernels(|| common::run(&case, DType::F32));
            assert_agree(&case, &found, &common::run(&case, DType::F32), 2e-2);
        }
    });
}

/// Activations are kept in bf16 from one op to the next, and a pass in single precision keeps none.
#[test]
fn activations_keep_their_type() {
    let x = normal(1, (2, 4, 3, 3)).to_dtype(DType::F32).unwrap();
    let w = normal(2, (4, 4, 1, 1)).to_dtype(DType::F32).unwrap();
    let types = || {
        let x = lower_precision(&x).unwrap();
        let y = ops::silu(&ops::conv2d(&x, &w, None, &Default::default()).unwrap()).unwrap();
        [x.dtype(), y.dtype(), full_precision(&y).unwrap().dtype()]
    };
    let bf16 = || with_precision(Precision::Bf16, types);
    assert_eq!(ops::without_kernels(bf16), [DType::BF16, DType::BF16, DType::F32]);
    assert_eq!(ops::without_kernels(types), [DType::F32; 3]);
    assert_eq!(bf16(), [DType::F32; 3], "a CPU computes in f32");
}

/// Numbers that a device draws are those that the host would have drawn, bit for bit, from wherever the generator stands.
#[test]
fn a_device_draws_what_the_host_draws() {
    for (before, count) in [(0, 1), (3, 16), (16, 100), (37, 5000)] {
        let mut host = Rng::new(5).fork("noise");
        host.uniforms(before);
        let mut device = host.clone();
        let expected = host.uniforms(count);
        let drawn = || device.uniform_tensor(count, DType::F32, &Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
        let Some(found) = with_gpu_kernels(drawn) else { return };
        assert_eq!(found, expected);
        assert_eq!(device.bits(), host.bits(), "both go on alike");
    }
}

#[test]
fn dropout_leaves_out_what_the_host_leaves_out() {
    let expected = common::run(&common::dropout(DType::F32), DType::F32);
    let zeros = values(&expected.0).iter().filter(|v| **v == 0.0).count();
    assert!((40..100).contains(&zeros), "{zeros} of 231");
    for (dtype, tolerance) in [(DType::F32, 1e-7), (DType::BF16, 1e-2)] {
        let case = common::dropout(dtype);
        let Some(found) = with_gpu_kernels(|| common::run(&case, DType::F32)) else { return };
        assert_agree(&case, &found, &expected, tolerance);
    }
}

#[test]
fn batch_moments_agree() {
    let Some(found) = with_gpu_kernels(|| common::batch_moments(&Device::Cpu)) else { return };
    for (a, b) in found.iter().zip(&common::batch_moments(&Device::Cpu)) {
        assert_close("moments", a, b, 1e-5);
    }
}

#[test]
fn spectral_norms_of_many_weights_agree() {
    let Some(found) = with_gpu_kernels(|| common::spectral_norms(&Device::Cpu)) else { return };
    for (i, (a, b)) in found.iter().zip(&common::spectral_norms(&Device::Cpu)).enumerate() {
        assert_close(&format!("tensor {i}"), a, b, 1e-5);
    }
}

#[test]
fn optimizers_agree_with_the_cpu() {
    for kind in [OptimizerKind::Adam, OptimizerKind::AdamW, OptimizerKind::Adamax] {
        let run = || common::optimizer_steps(kind, &Device::Cpu);
        let Some(found) = with_gpu_kernels(run) else { return };
        for (a, b) in found.iter().zip(&run()) {
            assert_close(&format!("{kind:?}"), a, b, 1e-5);
        }
    }
}

/// What the other tests compare is what the kernels compute: none of them is left out.
#[test]
fn every_kernel_is_launched() {
    let launched = with_gpu_kernels(|| {
        cases::small().iter().for_each(|case| _ = common::run(case, DType::F32));
        common::run(&common::dropout(DType::F32), DType::F32);
        common::batch_moments(&Device::Cpu);
        common::spectral_norms(&Device::Cpu);
        common::optimizer_steps(OptimizerKind::Adam, &Device::Cpu);
        Rng::new(1).uniform_tensor(3, DType::F32, &Device::Cpu).unwrap();
    });
    if launched.is_some() {
        assert_eq!(never_launched(), [""; 0]);
    }
}
