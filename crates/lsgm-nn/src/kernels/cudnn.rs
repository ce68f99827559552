//! Convolutions through cuDNN.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda::cudarc::cudnn::{ConvBackwardData, ConvBackwardFilter, ConvForward, Cudnn, CudnnDataType, sys};
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaView, DeviceRepr, ValidAsZeroBits};
use candle_core::cuda::{CudaDType, CudaDevice, CudaStorageSlice, DeviceId};
use candle_core::{CudaStorage, Layout, Result, WithDType, bail};

use super::conv::Geometry;
use crate::ops::Part;

thread_local! {
    /// Handles serve the thread that made them.
    static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::new(HashMap::new());
}

fn handle(device: &CudaDevice) -> Result<Arc<Cudnn>> {
    HANDLES.with_borrow_mut(|handles| {
        if let Some(handle) = handles.get(&device.id()) {
            return Ok(handle.clone());
        }
        let handle = Cudnn::new(device.cuda_stream())?;
        handles.insert(device.id(), handle.clone());
        Ok(handle)
    })
}

/// A part of a convolution of contiguous inputs, `elements` in number.
pub(crate) fn run(
    g: &Geometry,
    part: Part,
    a: (&CudaStorage, &Layout),
    b: (&CudaStorage, &Layout),
    elements: usize,
) -> Result<CudaStorage> {
    match &a.0.slice {
        // The type in which sums are formed stands second.
        CudaStorageSlice::F32(_) => typed::<f32, f32>(g, part, a, b, elements),
        CudaStorageSlice::F64(_) => typed::<f64, f64>(g, part, a, b, elements),
        CudaStorageSlice::BF16(slice) => of_bf16(slice, g, part, a, b, elements),
        _ => bail!("convolution: inputs of type {:?}", a.0.dtype()),
    }
}

/// The type of bf16 numbers, which this crate has no name for, is taken from the slice.
fn of_bf16<T: Element>(
    _: &CudaSlice<T>,
    g: &Geometry,
    part: Part,
    a: (&CudaStorage, &Layout),
    b: (&CudaStorage, &Layout),
    elements: usize,
) -> Result<CudaStorage> {
    typed::<T, f32>(g, part, a, b, elements)
}

/// What cuDNN and candle ask of an element.
trait Element: CudaDType + CudnnDataType + DeviceRepr + ValidAsZeroBits + WithDType {}

impl<T: CudaDType + CudnnDataType + DeviceRepr + ValidAsZeroBits + WithDType> Element for T {}

fn typed<T: Element, C: CudnnDataType>(
    g: &Geometry,
    part: Part,
    (a, la): (&CudaStorage, &Layout),
    (b, lb): (&CudaStorage, &Layout),
    elements: usize,
) -> Result<CudaStorage> {
    let device = a.device();
    let (a, b) = (view::<T>(a, la)?, view::<T>(b, lb)?);
    // SAFETY: cuDNN writes every element, since the result is not added to what is there (beta is 0).
    let mut result = unsafe { device.alloc::<T>(elements)? };
    launch::<T, C>(g, part, &a, &b, &mut result, device)?;
    Ok(T::wrap_cuda_slice(result, device.clone()))
}

fn view<'a, T: Element>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(T::as_cuda_slice(storage)?.slice(start..end)),
        None => bail!("convolution: an input is not contiguous"),
    }
}

fn launch<T: Element, C: CudnnDataType>(
    g: &Geometry,
    part: Part,
    a: &CudaView<'_, T>,
    b: &CudaView<'_, T>,
    result: &mut CudaSlice<T>,
    device: &CudaDevice,
) -> Result<()> {
    let cudnn = handle(device)?;
    let pair = |(rows, columns): (usize, usize)| [rows as i32, columns as i32];
    let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
    let mut conv = cudnn.create_conv2d::<C>(pair(g.padding), pair(g.stride), pair(g.dilation), mode)?;
    conv.set_group_count(g.groups as i32)?;
    // Single precision is single precision: by default cuDNN would round factors to TF32.
    conv.set_math_type(sys::cudnnMathType_t::CUDNN_FMA_MATH)?;
    if std::mem::size_of::<T>() == 2 {
        conv.set_math_type(sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH)?;
    }
    let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
    let planes = |channels: usize, (h, w): (usize, usize)| {
        cudnn.create_4d_tensor::<T>(format, [g.batch, g.groups * channels, h, w].map(|n| n as i32))
    };
    let (x, y) = (planes(g.cin, g.input)?, planes(g.cout, g.output)?);
    let filter = [g.groups * g.cout, g.cin, g.kernel.0, g.kernel.1].map(|n| n as i32);
    let w = cudnn.create_4d_filter::<T>(format, filter)?;
    let scale = (T::from_f64(1.0), T::from_f64(0.0));
    match part {
        Part::Forward => {
            let op = ConvForward { conv: &conv, x: &x, w: &w, y: &y };
            let algorithm = op.pick_algorithm()?;
            let mut space = workspace(device, op.get_workspace_size(algorithm)?)?;
            // SAFETY: the descriptors are those of the slices, whose lengths the layouts of the tensors have given.
            unsafe { op.launch(algorithm, Some(&mut space), scale, a, b, result)? };
        }
        Part::DataGradient => {
            let op = ConvBackwardData { conv: &conv, dx: &x, w: &w, dy: &y };
            let algorithm = op.pick_algorithm()?;
            let mut space = workspace(device, op.get_workspace_size(algorithm)?)?;
            // SAFETY: the descriptors are those of the slices, whose lengths the layouts of the tensors have given.
            unsafe { op.launch(algorithm, Some(&mut space), scale, result, b, a)? };
        }
        Part::WeightGradient => {
            let op = ConvBackwardFilter { conv: &conv, x: &x, dw: &w, dy: &y };
            let algorithm = op.pick_algorithm()?;
            let mut space = workspace(device, op.get_workspace_size(algorithm)?)?;
            // SAFETY: the descriptors are those of the slices, whose lengths the layouts of the tensors have given.
            unsafe { op.launch(algorithm, Some(&mut space), scale, a, result, b)? };
        }
    }
    Ok(())
}

/// Memory that cuDNN computes in.
fn workspace(device: &CudaDevice, bytes: usize) -> Result<CudaSlice<u8>> {
    // SAFETY: cuDNN writes what it reads from there.
    unsafe { device.alloc::<u8>(bytes.max(1)) }
}
