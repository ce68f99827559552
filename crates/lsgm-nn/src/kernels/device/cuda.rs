//! Kernels on a GPU, compiled when they are first used, by NVRTC, for whatever GPU is there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, Mutex, PoisonError};

use candle_core::cuda::cudarc::driver::sys::CUmemPool_attribute;
use candle_core::cuda::cudarc::driver::{
    CudaContext, CudaFunction, DevicePtr, DriverError, LaunchConfig, PushKernelArg, result, sys,
};
use candle_core::cuda::{CudaDevice, CudaStorageSlice, DeviceId, WrapErr, cudarc::nvrtc};
use candle_core::{CudaStorage, Device, Result, bail};

use crate::gpu::Gpu;

use super::{Argument, COMMON, Element, Launch, Source, THREADS};

/// The GPU of this number: one device, however often it is asked for.
pub(crate) fn open(ordinal: usize) -> Result<Device> {
    static OPEN: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = open.get(&ordinal) {
        return Ok(device.clone());
    }
    let device = Device::new_cuda_with_stream(ordinal)?;
    super::install();
    keep_memory(device.as_cuda_device()?);
    // SAFETY: the device has one stream for all threads, on which everything that happens to its memory happens in order. So
    // nothing has to be recorded for other streams, which would take two events for each tensor.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    open.insert(ordinal, device.clone());
    Ok(device)
}

/// How many GPUs there are.
pub(crate) fn count() -> std::result::Result<usize, DriverError> {
    Ok(usize::try_from(CudaContext::device_count()?).unwrap_or(0))
}

/// What is known of a GPU.
pub(crate) fn gpu(ordinal: usize) -> std::result::Result<Gpu, DriverError> {
    let context = CudaContext::new(ordinal)?;
    let (free, total) = context.mem_get_info()?;
    let of_pool = |attribute| pool(&context).and_then(|pool| bytes_of(pool, attribute)).unwrap_or(0) as usize;
    let held = of_pool(CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT);
    let reserved = of_pool(CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
    let (name, capability) = (context.name()?, context.compute_capability()?);
    Ok(Gpu { name, capability, free, total, held, kept: reserved.saturating_sub(held) })
}

/// Where a GPU takes the memory of tensors from, and gives it back to.
fn pool(context: &CudaContext) -> std::result::Result<sys::CUmemoryPool, DriverError> {
    // SAFETY: the device is one that the driver has opened.
    unsafe { result::device::get_default_mem_pool(context.cu_device()) }
}

/// A number of bytes that a pool knows.
fn bytes_of(pool: sys::CUmemoryPool, attribute: CUmemPool_attribute) -> std::result::Result<u64, DriverError> {
    let mut bytes = 0u64;
    // SAFETY: the pool is that of a device, and the value a number of 64 bits, as all that are asked for are.
    unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) }?;
    Ok(bytes)
}

/// Let the pool keep what tensors give back: else it all goes to the driver whenever the host waits for something, and has to be
/// asked for again. An old driver that cannot do that is none the worse.
fn keep_memory(device: &CudaDevice) {
    let mut all = u64::MAX;
    if let Ok(pool) = pool(device.cuda_stream().context()) {
        let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: as in `bytes_of`.
        let _ = unsafe { result::mem_pool::set_attribute(pool, threshold, (&raw mut all).cast()) };
    }
}

/// The most bytes that tensors have held on a device at a time.
pub(crate) fn peak_memory(device: &CudaDevice) -> Result<u64> {
    let pool = pool(device.cuda_stream().context()).w()?;
    bytes_of(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH).w()
}

/// A kernel on a device.
type Key = (DeviceId, &'static str, &'static str, Element);

/// Kernels that have been loaded, for all threads.
static FUNCTIONS: LazyLock<Mutex<HashMap<Key, CudaFunction>>> = LazyLock::new(Mutex::default);

/// What NVRTC makes of a source.
fn compiled(source: &Source, element: Element) -> Result<String> {
    match nvrtc::compile_ptx([element.definition(), COMMON, source.text].concat()) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(error) => bail!("{} does not compile: {error}", source.name),
    }
}

/// Compile every source in both types, which takes no GPU.
pub(crate) fn compile_all() -> Result<()> {
    for source in super::SOURCES {
        for element in [Element::F32, Element::Bf16] {
            let ptx = compiled(source, element)?;
            if let Some(kernel) = source.kernels.iter().find(|kernel| !ptx.contains(&format!(".entry {kernel}("))) {
                bail!("{} has no kernel `{kernel}`", source.name);
            }
        }
    }
    Ok(())
}

fn function(device: &CudaDevice, launch: &Launch) -> Result<CudaFunction> {
    let (source, element) = (launch.source, launch.element);
    let key = (device.id(), source.name, launch.kernel, element);
    let mut functions = FUNCTIONS.lock().unwrap_or_else(PoisonError::into_inner);
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
