//! Kernels on a GPU, compiled when they are first used, by NVRTC, for whatever GPU is there.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::cuda::cudarc::driver::{
    CudaFunction, DevicePtr, DriverError, LaunchConfig, PushKernelArg, result, sys,
};
use candle_core::cuda::{CudaDevice, CudaStorageSlice, DeviceId, WrapErr, cudarc::nvrtc};
use candle_core::{CudaStorage, Device, Result, bail};

use super::{Argument, COMMON, Element, Launch, Source, THREADS};

/// The GPU of this number.
pub(crate) fn open(ordinal: usize) -> Result<Device> {
    let device = Device::new_cuda(ordinal)?;
    super::install();
    keep_memory(device.as_cuda_device()?);
    // SAFETY: the device has one stream, on which everything that happens to its memory happens in order. So nothing has to be
    // recorded for other streams, which would take two events for each tensor.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    Ok(device)
}

/// Where a device takes memory from, and gives it back to.
fn pool(device: &CudaDevice) -> std::result::Result<sys::CUmemoryPool, DriverError> {
    let stream = device.cuda_stream();
    // SAFETY: the device is one that the driver has opened.
    unsafe { result::device::get_default_mem_pool(stream.context().cu_device()) }
}

/// Let the pool keep what tensors give back: else it all goes to the driver whenever the host waits for something, and has to be
/// asked for again. An old driver that cannot do that is none the worse.
fn keep_memory(device: &CudaDevice) {
    let mut all = u64::MAX;
    if let Ok(pool) = pool(device) {
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the pool is the device's own, and the value a number of 64 bits, as this attribute is.
        let _ = unsafe { result::mem_pool::set_attribute(pool, threshold, (&raw mut all).cast()) };
    }
}

/// The most bytes that tensors have held on a device at a time.
pub(crate) fn peak_memory(device: &CudaDevice) -> Result<u64> {
    let mut bytes = 0u64;
    let highest = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    // SAFETY: as in `keep_memory`.
    unsafe { result::mem_pool::get_attribute(pool(device).w()?, highest, (&raw mut bytes).cast()) }.w()?;
    Ok(bytes)
}

/// A kernel on a device.
type Key = (DeviceId, &'static str, &'static str, Element);

thread_local! {
    static FUNCTIONS: RefCell<HashMap<Key, CudaFunction>> = RefCell::new(HashMap::new());
}

/// What NVRTC makes of a source.
fn compiled(source: &Source, element: Element) -> Result<String> {
    match nvrtc::compile_ptx([element.definition(), COMMON, source.text].concat()) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(error) => bail!("{} does not compile: {error}", source.name),
    }
}

fn function(device: &CudaDevice, launch: &Launch) -> Result<CudaFunction> {
    let (source, element) = (launch.source, launch.element);
    let key = (device.id(), source.name, launch.kernel, element);
    FUNCTIONS.with_borrow_mut(|functions| {
        if let Some(function) = functions.get(&key) {
            return Ok(function.clone());
        }
        let module = device.cuda_stream().context().load_module(compiled(source, element)?.into()).w()?;
        // The other kernels of the source will be wanted too.
        for kernel in source.kernels {
            functions.insert((device.id(), source.name, kernel, element), module.load_function(kernel).w()?);
        }
        match functions.get(&key) {
            Some(function) => Ok(function.clone()),
            None => bail!("{} has no kernel `{}`", source.name, launch.kernel),
        }
    })
}

pub(super) fn run(device: &CudaDevice, launch: &Launch) -> Result<()> {
    let (function, stream) = (function(device, launch)?, device.cuda_stream());
    let mut arguments = stream.launch_builder(&function);
    for argument in &launch.arguments {
        match argument {
            Argument::Address(value) | Argument::Long(value) => arguments.arg(value),
            Argument::Int(value) => arguments.arg(value),
            Argument::Word(value) => arguments.arg(value),
            Argument::Float(value) => arguments.arg(value),
        };
    }
    let blocks = LaunchConfig { grid_dim: (launch.blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the arguments are those of the kernel, and every address is that of as many elements as they imply, for which
    // the op vouches (`Launch::run`). Memory is freed behind the launch, by the allocator of the one stream that there is.
    unsafe { arguments.launch(blocks) }.w()?;
    Ok(())
}

/// Where the elements of a storage begin.
pub(super) fn address(storage: &CudaStorage) -> Result<u64> {
    let stream = storage.device.cuda_stream();
    Ok(match &storage.slice {
        CudaStorageSlice::U8(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::U32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::I64(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::BF16(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::F32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::F64(slice) => slice.device_ptr(&stream).0,
        _ => bail!("a kernel got a type that it does not know"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::SOURCES;
    use super::*;

    /// NVRTC needs no GPU.
    #[test]
    fn the_kernels_compile() {
        for source in SOURCES {
            for element in [Element::F32, Element::Bf16] {
                let ptx = compiled(source, element).unwrap();
                for kernel in source.kernels {
                    assert!(ptx.contains(&format!(".entry {kernel}(")), "{kernel}");
                }
            }
        }
    }
}
