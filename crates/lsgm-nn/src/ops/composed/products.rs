use candle_core::{D, DType, Tensor};
use lsgm_core::Result;

use super::softmax;
use crate::precision::{Precision, precision};

/// The matrix product of the last two dimensions, in the precision of the pass.
pub(super) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if precision() == Precision::F32 || a.dtype() != DType::F32 {
        return Ok(a.matmul(b)?);
    }
    let (a, b) = (a.to_dtype(DType::BF16)?, b.to_dtype(DType::BF16)?);
    Ok(if a.device().is_cpu() {
        // A CPU multiplies no bf16: the rounded numbers, in f32, as a GPU accumulates them.
        a.to_dtype(DType::F32)?.matmul(&b.to_dtype(DType::F32)?)?
    } else {
        a.matmul(&b)?.to_dtype(DType::F32)?
    })
}

pub(crate) fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = w.dims2()?;
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    let y = matmul(&x.reshape(((), inputs))?, &w.t()?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    Ok(y.reshape(dims)?)
}

pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
    let scores = (matmul(&q.contiguous()?, &k.contiguous()?.transpose(D::Minus2, D::Minus1)?)? * scale)?;
    matmul(&softmax(&scores)?, &v.contiguous()?)
}
