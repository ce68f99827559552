//! Convolutions through cuDNN.
//!
//! Which algorithm serves a convolution is asked once. One that adds in another order each time gives way to one that does not
//! where that serves; one whose workspace finds no memory gives way to one that needs none, whatever its order.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::thread::LocalKey;

use candle_core::backend::BackendStorage;
use candle_core::cuda::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvForward, Cudnn, CudnnDataType, CudnnError, sys,
};
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaView, DeviceRepr, ValidAsZeroBits};
use candle_core::cuda::{CudaDType, CudaDevice, CudaStorageSlice, DeviceId};
use candle_core::{CudaStorage, DType, Layout, Result, WithDType, bail};

use super::conv::{Geometry, Part};
use crate::precision::{Precision, precision};

thread_local! {
    /// Handles serve the thread that made them.
    static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::new(HashMap::new());
}

/// A convolution on a device, in a type and with products of a precision.
type Key = (DeviceId, Geometry, DType, Precision);

/// Algorithms of one operation, each with the bytes that it computes in.
type Choices<A> = RefCell<HashMap<Key, (A, usize)>>;

/// What cuDNN's three operations have in common.
trait Operation {
    type Algorithm: Copy + 'static;

    /// One that serves nearly everywhere.
    const USUAL: Self::Algorithm;

    /// One that needs no workspace.
    const THRIFTY: Self::Algorithm;

    fn choices() -> &'static LocalKey<Choices<Self::Algorithm>>;

    /// The fastest one, by cuDNN's reckoning.
    fn fastest(&self) -> std::result::Result<Self::Algorithm, CudnnError>;

    /// One that always adds in the same order, in the place of one that does not.
    fn repeatable(algorithm: Self::Algorithm) -> Self::Algorithm;

    /// Bytes that it computes in; an error where it does not serve.
    fn workspace(&self, algorithm: Self::Algorithm) -> std::result::Result<usize, CudnnError>;

    fn choose(&self, key: Key) -> Result<(Self::Algorithm, usize)> {
        Self::choices().with_borrow_mut(|choices| {
            if let Some(choice) = choices.get(&key) {
                return Ok(*choice);
            }
            let fastest = self.fastest().unwrap_or(Self::USUAL);
            let choice = self.first_that_serves([Self::repeatable(fastest), fastest, Self::USUAL, Self::THRIFTY])?;
            choices.insert(key, choice);
            Ok(choice)
        })
    }

    /// An algorithm, and the bytes that it computes in.
    fn first_that_serves<const N: usize>(&self, algorithms: [Self::Algorithm; N]) -> Result<(Self::Algorithm, usize)> {
        let mut refusal = None;
        for algorithm in algorithms {
            match self.workspace(algorithm) {
                Ok(bytes) => return Ok((algorithm, bytes)),
                Err(error) => refusal = Some(error),
            }
        }
        match refusal {
            Some(error) => Err(error.into()),
            None => bail!("convolution: no algorithm was asked for"),
        }
    }

    /// The algorithm, and memory for it.
    fn prepare(&self, key: Key, device: &CudaDevice) -> Result<(Self::Algorithm, CudaSlice<u8>)> {
        let (algorithm, bytes) = self.choose(key)?;
        let thrifty = |error| match self.workspace(Self::THRIFTY) {
            Ok(bytes) => Ok((Self::THRIFTY, memory(device, bytes)?)),
            Err(_) => Err(error),
        };
        memory(device, bytes).map(|memory| (algorithm, memory)).or_else(thrifty)
    }
}

macro_rules! operation {
    ($operation:ident, $algorithm:ident, $choices:ident, $thrifty:ident, [$($another:ident),*] => $usual:ident) => {
        thread_local! {
            static $choices: Choices<sys::$algorithm> = RefCell::new(HashMap::new());
        }

        impl<X: CudnnDataType, C: CudnnDataType, Y: CudnnDataType> Operation for $operation<'_, X, C, Y> {
            type Algorithm = sys::$algorithm;
            const USUAL: Self::Algorithm = sys::$algorithm::$usual;
            const THRIFTY: Self::Algorithm = sys::$algorithm::$thrifty;

            fn choices() -> &'static LocalKey<Choices<Self::Algorithm>> {
                &$choices
            }

            fn fastest(&self) -> std::result::Result<Self::Algorithm, CudnnError> {
                self.pick_algorithm()
            }

            fn repeatable(algorithm: Self::Algorithm) -> Self::Algorithm {
                match algorithm {
                    $(sys::$algorithm::$another => Self::USUAL,)*
                    other => other,
                }
            }

            fn workspace(&self, algorithm: Self::Algorithm) -> std::result::Result<usize, CudnnError> {
                self.get_workspace_size(algorithm)
            }
        }
    };
}

operation!(
    ConvForward, cudnnConvolutionFwdAlgo_t, FORWARD, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
    [] => CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM
);
operation!(
    ConvBackwardData, cudnnConvolutionBwdDataAlgo_t, DATA_GRADIENT, CUDNN_CONVOLUTION_BWD_DATA_ALGO_0,
    [CUDNN_CONVOLUTION_BWD_DATA_ALGO_0] => CUDNN_CONVOLUTION_BWD_DATA_ALGO_1
);
operation!(
    ConvBackwardFilter, cudnnConvolutionBwdFilterAlgo_t, WEIGHT_GRADIENT, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
    [CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3] => CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1
);

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
    let precision = precision();
    conv.set_math_type(match (std::mem::size_of::<T>(), precision) {
        (2, _) => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        (_, Precision::Tf32) => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
        // Single precision is single precision: by default cuDNN rounds factors to TF32.
        _ => sys::cudnnMathType_t::CUDNN_FMA_MATH,
    })?;
    let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
    let planes = |channels: usize, (h, w): (usize, usize)| {
        cudnn.create_4d_tensor::<T>(format, [g.batch, g.groups * channels, h, w].map(|n| n as i32))
    };
    let (x, y) = (planes(g.cin, g.input)?, planes(g.cout, g.output)?);
    let filter = [g.groups * g.cout, g.cin, g.kernel.0, g.kernel.1].map(|n| n as i32);
    let w = cudnn.create_4d_filter::<T>(format, filter)?;
    let scale = (T::from_f64(1.0), T::from_f64(0.0));
    let key = (device.id(), *g, T::DTYPE, precision);
    match part {
        Part::Forward => {
            let op = ConvForward { conv: &conv, x: &x, w: &w, y: &y };
            let (algorithm, mut space) = op.prepare(key, device)?;
            // SAFETY: the descriptors are those of the slices, whose lengths the layouts of the tensors have given.
            unsafe { op.launch(algorithm, Some(&mut space), scale, a, b, result)? };
        }
        Part::DataGradient => {
            let op = ConvBackwardData { conv: &conv, dx: &x, w: &w, dy: &y };
            let (algorithm, mut space) = op.prepare(key, device)?;
            // SAFETY: the descriptors are those of the slices, whose lengths the layouts of the tensors have given.
            unsafe { op.launch(algorithm, Some(&mut space), scale, result, b, a)? };
        }
        Part::WeightGradient => {
            let op = ConvBackwardFilter { conv: &conv, x: &x, dw: &w, dy: &y };
            let (algorithm, mut space) = op.prepare(key, device)?;
            // SAFETY: the descriptors are those of the slices, whose lengths the layouts of the tensors have given.
            unsafe { op.launch(algorithm, Some(&mut space), scale, a, result, b)? };
        }
    }
    Ok(())
}

/// Memory that cuDNN computes in.
fn memory(device: &CudaDevice, bytes: usize) -> Result<CudaSlice<u8>> {
    // SAFETY: cuDNN writes what it reads from there.
    unsafe { device.alloc::<u8>(bytes.max(1)) }
}
