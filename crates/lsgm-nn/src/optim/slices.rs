//! Access to the memory of tensors for one pass without copies.

use candle_core::{CpuStorage, DType, Storage, Tensor};
use lsgm_core::{Error, Result};

use crate::kernels::{Float, pointwise};

/// Run `f` on the elements of a contiguous CPU tensor of type `T`.
pub(super) fn read<T: Float, R>(t: &Tensor, f: impl FnOnce(&[T]) -> R) -> candle_core::Result<R> {
    let (storage, layout) = t.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => Ok(f(&storage.as_slice::<T>()?[start..end])),
        _ => candle_core::bail!("optimizer: a tensor of shape {:?} is not contiguous on the CPU", t.dims()),
    }
}

/// Run `f` on the elements of contiguous CPU storage of type `T` that is to change.
pub(super) fn write<T: Float, R>(
    storage: &mut CpuStorage,
    layout: &candle_core::Layout,
    f: impl FnOnce(&mut [T]) -> R,
) -> candle_core::Result<R> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("optimizer: a parameter of shape {:?} is not contiguous", layout.dims())
    };
    Ok(f(&mut T::slice_mut(storage)?[start..end]))
}

/// The sum of squares in `f64`, in a fixed order.
pub(super) fn square_norm(t: &Tensor) -> Result<f64> {
    let t = t.contiguous()?;
    Ok(match t.dtype() {
        DType::F32 => read::<f32, _>(&t, pointwise::square_norm)?,
        DType::F64 => read::<f64, _>(&t, pointwise::square_norm)?,
        other => return Err(Error::contract("gradients", format!("a gradient of type {other:?}"))),
    })
}
