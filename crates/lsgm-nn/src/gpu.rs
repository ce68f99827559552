//! The GPUs of this machine.

use candle_core::{Device, DeviceLocation};
use lsgm_core::Error;

use crate::Precision;

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// The name that its maker gave it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Memory that nobody holds, in bytes.
    pub free: usize,
    /// All of its memory, in bytes.
    pub total: usize,
    /// What tensors of this process hold, in bytes.
    pub held: usize,
    /// What this process keeps for tensors to come, in bytes.
    pub kept: usize,
}

/// Whether this program was built with the feature `cuda`, without which it finds no GPU.
pub const fn is_built_in() -> bool {
    cfg!(feature = "cuda")
}

/// How many GPUs the driver shows to this process.
///
/// # Errors
/// What the driver says when it cannot tell. A program without the feature `cuda` knows of none and asks nobody.
pub fn count() -> Result<usize, String> {
    #[cfg(feature = "cuda")]
    return crate::kernels::device::count().map_err(|e| e.to_string());
    #[cfg(not(feature = "cuda"))]
    Ok(0)
}

/// The GPU of this number in the driver's order.
///
/// # Errors
/// What the driver says when it cannot tell; that there is no GPU in a program without the feature `cuda`.
pub fn gpu(ordinal: usize) -> Result<Gpu, String> {
    #[cfg(feature = "cuda")]
    return crate::kernels::device::gpu(ordinal).map_err(|e| e.to_string());
    #[cfg(not(feature = "cuda"))]
    Err(format!("GPU {ordinal}: this program was built for the CPU alone"))
}

/// The GPU of this number in the driver's order. Tensors and random numbers come to it without the host waiting, which they do
/// not on a device of [`Device::new_cuda`].
///
/// # Errors
/// What the driver says; that there is no GPU in a program without the feature `cuda`.
pub fn open(ordinal: usize) -> candle_core::Result<Device> {
    #[cfg(feature = "cuda")]
    return crate::kernels::device::open(ordinal);
    #[cfg(not(feature = "cuda"))]
    Device::new_cuda(ordinal)
}

/// The GPU that `device` is, as far as the driver tells.
pub fn of(device: &Device) -> Option<Gpu> {
    match device.location() {
        DeviceLocation::Cuda { gpu_id } => gpu(gpu_id).ok(),
        _ => None,
    }
}

/// Check that `device` can compute in `precision`, which the config asks for under `key`; a CPU, which computes in f32, always can.
///
/// # Errors
/// [`Error::Config`] for bf16 on a GPU that does not know it.
pub fn check_precision(device: &Device, precision: Precision, key: &str) -> lsgm_core::Result<()> {
    match of(device) {
        Some(gpu) if precision == Precision::Bf16 && gpu.capability.0 < 8 => {
            let message = format!("{} computes no bf16 (that takes a compute capability of 8.0): use f32", gpu.name);
            Err(Error::config(key, message))
        }
        _ => Ok(()),
    }
}

/// The most bytes that tensors have held on `device` at a time; 0 for a device that is no GPU.
///
/// # Errors
/// What the driver says when it cannot tell.
pub fn peak_memory(device: &Device) -> candle_core::Result<u64> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::kernels::device::peak_memory(device),
        _ => Ok(0),
    }
}

/// Compile every kernel of this crate for GPUs, as happens when each is first used. It takes NVRTC, but no GPU.
///
/// # Errors
/// What the compiler says; that there is none in a program without the feature `cuda`.
pub fn compile_kernels() -> candle_core::Result<()> {
    #[cfg(feature = "cuda")]
    return crate::kernels::device::compile_all();
    #[cfg(not(feature = "cuda"))]
    candle_core::bail!("this program was built for the CPU alone")
}
