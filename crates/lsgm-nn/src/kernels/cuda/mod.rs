//! Kernels of our own for a GPU, compiled when they are first used, by NVRTC, for whatever GPU is there.

pub(crate) mod norm;
pub(crate) mod optimizer;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::cuda::cudarc::driver::{CudaFunction, DevicePtr, LaunchConfig};
use candle_core::cuda::{CudaDType, CudaDevice, cudarc::nvrtc};
use candle_core::{CudaStorage, Layout, Result, Storage, Tensor, bail};

/// Threads of a block, in every kernel.
const THREADS: u32 = 256;

/// A source file and its name.
struct Source {
    name: &'static str,
    text: &'static str,
}

/// What NVRTC made of a source.
fn compiled(source: &Source) -> Result<String> {
    static COMPILED: Mutex<Option<HashMap<&'static str, String>>> = Mutex::new(None);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let compiled = compiled.get_or_insert_default();
    if let Some(ptx) = compiled.get(source.name) {
        return Ok(ptx.clone());
    }
    match nvrtc::compile_ptx(source.text) {
        Ok(ptx) => Ok(compiled.entry(source.name).or_insert(ptx.to_src()).clone()),
        Err(error) => bail!("{} does not compile: {error}", source.name),
    }
}

fn function(device: &CudaDevice, source: &Source, name: &str) -> Result<CudaFunction> {
    Ok(device.get_or_load_custom_func(name, source.name, &compiled(source)?)?.into_cuda_function())
}

/// So many blocks of threads.
fn blocks(count: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (count, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}

/// Where the elements of a contiguous tensor of `length` elements of f32 lie on the device.
fn address(device: &CudaDevice, t: &Tensor, length: usize) -> Result<u64> {
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => address_in(device, storage, layout, length),
        _ => bail!("a kernel got a tensor of shape {:?} that is not on the GPU", t.dims()),
    }
}

/// The same of a tensor's parts.
fn address_in(device: &CudaDevice, storage: &CudaStorage, layout: &Layout, length: usize) -> Result<u64> {
    match layout.contiguous_offsets() {
        Some((start, end)) if end - start == length => {
            let view = f32::as_cuda_slice(storage)?.slice(start..end);
            Ok(view.device_ptr(&device.cuda_stream()).0)
        }
        _ => bail!("a kernel got {:?} in the place of {length} elements side by side", layout.dims()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NVRTC needs no GPU.
    #[test]
    fn the_kernels_compile() {
        for (source, names) in [
            (&optimizer::SOURCE, ["step", "squares", "root"]),
            (&norm::SOURCE, ["forward", "data_gradient", "parameter_gradients"]),
        ] {
            let ptx = compiled(source).unwrap();
            for name in names {
                assert!(ptx.contains(&format!(".entry {name}(")), "{name}");
            }
        }
    }
}
