//! Tensors from the host to a GPU, for which the host seldom waits.
//!
//! A copy from ordinary memory may first wait for all that the GPU still has to do. From pinned memory the GPU fetches it itself,
//! while the host goes on; such memory is used again when it has been fetched.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use candle_core::cuda::cudarc::driver::{CudaEvent, PinnedHostSlice, result};
use candle_core::cuda::{CudaDevice, DeviceId, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, Device, Result, Storage, Tensor};

use super::{address, cuda, fresh_storage};

/// Bytes from which on a copy from ordinary memory may wait.
const SMALL: usize = 64 * 1024;

/// Transfers of one size that may be under way at a time.
const MAX_IN_FLIGHT: usize = 16;

/// The most bytes of pinned memory of a thread.
const MAX_PINNED_BYTES: usize = 1 << 28;

/// Pinned memory.
struct Stage {
    memory: PinnedHostSlice<u8>,
    /// Happens when the GPU has fetched what was last there.
    fetched: Option<CudaEvent>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(fetched) = &self.fetched {
            // The memory goes: nothing is left to be done about an error.
            let _ = fetched.synchronize();
        }
    }
}

/// Pinned memory by device and number of bytes, the longest unused first.
#[derive(Default)]
struct Stages {
    free: HashMap<(DeviceId, usize), VecDeque<Stage>>,
    bytes: usize,
}

thread_local! {
    static STAGES: RefCell<Stages> = RefCell::default();
}

pub(super) fn upload(x: &Tensor, device: &CudaDevice) -> Result<Tensor> {
    let x = x.contiguous()?;
    let bytes = x.elem_count() * x.dtype().size_in_bytes();
    let large = bytes > SMALL && address(&x).is_ok();
    let stage = STAGES.with_borrow_mut(|stages| if large { stages.take(device, bytes) } else { None });
    let Some(mut stage) = stage else { return x.to_device(&Device::Cuda(device.clone())) };
    let copied = stage.send(&x, bytes, device);
    STAGES.with_borrow_mut(|stages| stages.free.entry((device.id(), bytes)).or_default().push_back(stage));
    Ok(Tensor::from_storage(Storage::Cuda(copied?), x.shape(), BackpropOp::none(), false))
}

impl Stage {
    /// Put a contiguous tensor of so many bytes here, for the GPU to fetch.
    fn send(&mut self, x: &Tensor, bytes: usize, device: &CudaDevice) -> Result<CudaStorage> {
        if let Some(fetched) = self.fetched.take() {
            fetched.synchronize().w()?;
        }
        // SAFETY: the elements of a contiguous tensor, which the caller keeps alive.
        let values = unsafe { std::slice::from_raw_parts(address(x)? as *const u8, bytes) };
        self.memory.as_mut_slice().w()?.copy_from_slice(values);
        let (stream, storage) = (device.cuda_stream(), fresh_storage(device, x.shape(), x.dtype())?);
        stream.context().bind_to_thread().w()?;
        let to = cuda::address(&storage)?;
        // SAFETY: there are as many bytes at `to`; the memory that they come from stays until the event that follows.
        unsafe { result::memcpy_htod_async(to, self.memory.as_slice().w()?, stream.cu_stream()) }.w()?;
        self.fetched = Some(stream.record_event(None).w()?);
        Ok(storage)
    }

    fn is_free(&self) -> bool {
        self.fetched.as_ref().is_none_or(CudaEvent::is_complete)
    }
}

impl Stages {
    /// Memory for so many bytes, if there is some.
    fn take(&mut self, device: &CudaDevice, bytes: usize) -> Option<Stage> {
        let key = (device.id(), bytes);
        let own = self.free.entry(key).or_default();
        if own.front().is_some_and(Stage::is_free) || own.len() >= MAX_IN_FLIGHT {
            return own.pop_front();
        }
        self.make_room(bytes, key);
        if self.bytes + bytes > MAX_PINNED_BYTES {
            return self.free.get_mut(&key)?.pop_front();
        }
        // SAFETY: the only caller writes every byte before one is read.
        let memory = unsafe { device.cuda_stream().context().alloc_pinned::<u8>(bytes) }.ok()?;
        self.bytes += bytes;
        Some(Stage { memory, fetched: None })
    }

    /// Give memory of other sizes back that is not in use, until there is room for so many bytes.
    fn make_room(&mut self, bytes: usize, but: (DeviceId, usize)) {
        for (key, stages) in self.free.iter_mut().filter(|(key, _)| **key != but) {
            while self.bytes + bytes > MAX_PINNED_BYTES && stages.front().is_some_and(Stage::is_free) {
                stages.pop_front();
                self.bytes -= key.1;
            }
        }
    }
}
