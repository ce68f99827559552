use candle_core::{D, Tensor};
use lsgm_core::Result;

use super::constant;

/// An id outside the table stops the device with an error of the driver: reading ids back would stop the host.
pub(crate) fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let mut dims = ids.dims().to_vec();
    dims.push(table.dim(1)?);
    Ok(table.index_select(&ids.flatten_all()?.contiguous()?, 0)?.reshape(dims)?)
}

/// The element `ids: [..]` of each row of `x: [.., V]`.
pub(crate) fn pick(x: &Tensor, ids: &Tensor) -> Result<Tensor> {
    Ok(x.gather(&ids.unsqueeze(D::Minus1)?.contiguous()?, D::Minus1)?.squeeze(D::Minus1)?)
}

/// `sines` and `cosines` of each position and pair.
pub(crate) fn rotary(x: &Tensor, sines: Vec<f64>, cosines: Vec<f64>) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let table = |values: Vec<f64>| constant(values, (x.dim(D::Minus2)?, half), x);
    let (sines, cosines) = (table(sines)?, table(cosines)?);
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let turned = [
        (a.broadcast_mul(&cosines)? - b.broadcast_mul(&sines)?)?,
        (a.broadcast_mul(&sines)? + b.broadcast_mul(&cosines)?)?,
    ];
    Ok(Tensor::cat(&turned, D::Minus1)?)
}
