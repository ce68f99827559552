//! Where and in which numbers we compute, as `compare.py` says through the environment.

use std::sync::OnceLock;

use lsgm::nn::{Precision, gpu, with_precision};
use lsgm::{Device, Error, Result};

use crate::rows::Step;

/// The device of all tensors: the first GPU where `LSGM_COMPARE_DEVICE` is `cuda`.
pub(crate) fn device() -> Result<&'static Device> {
    static DEVICE: OnceLock<Result<Device, String>> = OnceLock::new();
    let open = || match std::env::var("LSGM_COMPARE_DEVICE").as_deref() {
        Ok("cuda") => gpu::open(0).map_err(|e| e.to_string()),
        _ => Ok(Device::Cpu),
    };
    DEVICE.get_or_init(open).as_ref().map_err(|e| Error::contract("device", e.clone()))
}

/// One call, to its end: on a GPU with activations and matrix products in bf16.
pub(crate) fn call(step: &mut Step) -> Result<()> {
    let device = device()?;
    let precision = if device.is_cpu() { Precision::F32 } else { Precision::Bf16 };
    with_precision(precision, step)?;
    Ok(device.synchronize()?)
}

/// The most MiB that tensors have held on the GPU, where one computes.
pub(crate) fn gpu_memory() -> Result<Option<f64>> {
    let device = device()?;
    Ok(if device.is_cpu() { None } else { Some(gpu::peak_memory(device)? as f64 / f64::from(1 << 20)) })
}
