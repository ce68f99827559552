//! Tensors from the host to a GPU without waiting.
//!
//! A copy from ordinary memory may first wait for all that the GPU still has to do. From memory that stays where it is the GPU
//! fetches it itself, while the host goes on; such memory is used again when it has been fetched.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use candle_core::cuda::cudarc::driver::PinnedHostSlice;
use candle_core::cuda::{CudaDType, CudaDevice, DeviceId, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, Device, Result, Storage, Tensor};

/// Bytes from which on a copy from ordinary memory may wait.
const SMALL: usize = 64 * 1024;

/// Transfers of one size that may be under way at a time.
const UNDER_WAY: usize = 16;

/// The most bytes of memory that stays where it is.
const MOST: usize = 1 << 28;

/// Memory that stays where it is, by device and number of elements, the longest unused first.
#[derive(Default)]
struct Stages {
    free: HashMap<(DeviceId, usize), VecDeque<PinnedHostSlice<f32>>>,
    bytes: usize,
}

thread_local! {
    static STAGES: RefCell<Stages> = RefCell::default();
}

pub(super) fn upload(x: &Tensor, device: &CudaDevice) -> Result<Tensor> {
    let (storage, layout) = x.storage_and_layout();
    let values = match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) if (end - start) * 4 > SMALL => &values[start..end],
        _ => return x.to_device(&Device::Cuda(device.clone())),
    };
    let Some(mut stage) = STAGES.with_borrow_mut(|stages| stages.take(device, values.len()))? else {
        return x.to_device(&Device::Cuda(device.clone()));
    };
    // Waits where the GPU has not yet fetched what was there.
    stage.as_mut_slice().w()?.copy_from_slice(values);
    let copy = device.cuda_stream().clone_htod(&stage).w()?;
    STAGES.with_borrow_mut(|stages| stages.free.entry((device.id(), values.len())).or_default().push_back(stage));
    let storage = Storage::Cuda(f32::wrap_cuda_slice(copy, device.clone()));
    Ok(Tensor::from_storage(storage, x.shape(), BackpropOp::none(), false))
}

impl Stages {
    /// Memory for so many elements, if there is some left.
    fn take(&mut self, device: &CudaDevice, length: usize) -> Result<Option<PinnedHostSlice<f32>>> {
        let free = self.free.entry((device.id(), length)).or_default();
        if free.len() >= UNDER_WAY || (self.bytes + 4 * length > MOST && !free.is_empty()) {
            return Ok(free.pop_front());
        }
        if self.bytes + 4 * length > MOST {
            return Ok(None);
        }
        self.bytes += 4 * length;
        // SAFETY: the only caller writes every element before one is read.
        Ok(Some(unsafe { device.cuda_stream().context().alloc_pinned::<f32>(length) }.w()?))
    }
}
