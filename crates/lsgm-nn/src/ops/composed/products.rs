use candle_core::{D, DType, Tensor};
use lsgm_core::Result;

use super::functions::scaled_softmax;
use super::in_full_precision;
use crate::kernels::device::serves;
use crate::ops::device;
use crate::precision::{Precision, precision};

/// The matrix product of the last two dimensions, in the precision of the pass and the type of `a`.
pub(super) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let factors = factors_of(a);
    Ok(a.to_dtype(factors)?.matmul(&b.to_dtype(factors)?)?.to_dtype(a.dtype())?)
}

/// The type that is multiplied in.
fn factors_of(a: &Tensor) -> DType {
    if a.dtype() == DType::F32 && precision() == Precision::Bf16 { DType::BF16 } else { a.dtype() }
}

pub(crate) fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = w.dims2()?;
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    // Rounded as it lies, then transposed.
    let y = matmul(&x.reshape(((), inputs))?, &w.to_dtype(factors_of(x))?.t()?)?;
    let y = match bias {
        Some(bias) if serves(&y) => device::add_row(&y, bias)?,
        Some(bias) => in_full_precision(&y, |y| Ok(y.broadcast_add(bias)?))?,
        None => y,
    };
    Ok(y.reshape(dims)?)
}

pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
    let scores = matmul(&q.contiguous()?, &k.contiguous()?.transpose(D::Minus2, D::Minus1)?)?;
    matmul(&scaled_softmax(&scores, scale)?, &v.contiguous()?)
}
