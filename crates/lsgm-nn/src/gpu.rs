//! The GPUs of this machine.

use candle_core::{Device, DeviceLocation};

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
}

/// Whether this program was built with the feature `cuda`, without which it finds no GPU.
pub const fn is_built_in() -> bool {
    cfg!(feature = "cuda")
}

/// The GPUs that the driver shows to this process, in its order.
///
/// # Errors
/// What the driver says when it cannot tell. A program without the feature `cuda` knows of none and asks nobody.
#[cfg(feature = "cuda")]
pub fn gpus() -> Result<Vec<Gpu>, String> {
    use candle_core::cuda::cudarc::driver::{CudaContext, DriverError};

    fn one(ordinal: usize) -> Result<Gpu, DriverError> {
        let context = CudaContext::new(ordinal)?;
        let (free, total) = context.mem_get_info()?;
        Ok(Gpu { name: context.name()?, capability: context.compute_capability()?, free, total })
    }
    let count = CudaContext::device_count().map_err(|e| e.to_string())?;
    (0..usize::try_from(count).unwrap_or(0)).map(|i| one(i).map_err(|e| format!("GPU {i}: {e}"))).collect()
}

/// The GPUs that the driver shows to this process, in its order.
///
/// # Errors
/// What the driver says when it cannot tell. A program without the feature `cuda` knows of none and asks nobody.
#[cfg(not(feature = "cuda"))]
pub fn gpus() -> Result<Vec<Gpu>, String> {
    Ok(Vec::new())
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

/// Whether activations can be kept in bf16 on `device`; on a CPU that asks for nothing.
pub fn knows_bf16(device: &Device) -> bool {
    gpu(device).is_none_or(|gpu| gpu.capability.0 >= 8)
}

/// What is known of the GPU that `device` is.
fn gpu(device: &Device) -> Option<Gpu> {
    match device.location() {
        DeviceLocation::Cuda { gpu_id } => gpus().ok()?.into_iter().nth(gpu_id),
        _ => None,
    }
}

/// Bytes of memory that nobody holds on the GPU that `device` is; 0 for another device.
pub fn free_memory(device: &Device) -> usize {
    gpu(device).map_or(0, |gpu| gpu.free)
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
