use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::{D, DType, DeviceLocation, Tensor};
use lsgm_core::Result;

use super::{constant, in_full_precision};
use crate::kernels::device::serves_f32;
use crate::ops::device;
use crate::ops::rotary::turns_of;

/// An id outside the table gives rows that are not numbers, or stops the device with an error of the driver: reading ids back
/// would stop the host.
pub(crate) fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    if ids.dtype() == DType::U32 && serves_f32(table) {
        return device::embedding(table, ids);
    }
    let mut dims = ids.dims().to_vec();
    dims.push(table.dim(1)?);
    Ok(table.index_select(&ids.flatten_all()?.contiguous()?, 0)?.reshape(dims)?)
}

/// The element `ids: [..]` of each row of `x: [.., V]`.
pub(crate) fn pick(x: &Tensor, ids: &Tensor) -> Result<Tensor> {
    Ok(x.gather(&ids.unsqueeze(D::Minus1)?.contiguous()?, D::Minus1)?.squeeze(D::Minus1)?)
}

/// Each pair of `x` turned by the angle of its position.
pub(crate) fn rotary(x: &Tensor, base: f64) -> Result<Tensor> {
    in_full_precision(x, |x| {
        let half = x.dim(D::Minus1)? / 2;
        let (sines, cosines) = turns(x, base)?;
        let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
        let turned = [
            (a.broadcast_mul(&cosines)? - b.broadcast_mul(&sines)?)?,
            (a.broadcast_mul(&sines)? + b.broadcast_mul(&cosines)?)?,
        ];
        Ok(Tensor::cat(&turned, D::Minus1)?)
    })
}

/// Length, width, base, type and device of sequences that are turned.
type Turned = (usize, usize, u64, DType, DeviceLocation);

thread_local! {
    static TURNS: RefCell<HashMap<Turned, (Tensor, Tensor)>> = RefCell::new(HashMap::new());
}

/// Sines and cosines of each position and pair, which are made once.
fn turns(x: &Tensor, base: f64) -> Result<(Tensor, Tensor)> {
    let (length, width) = (x.dim(D::Minus2)?, x.dim(D::Minus1)?);
    let key = (length, width, base.to_bits(), x.dtype(), x.device().location());
    TURNS.with_borrow_mut(|turns| {
        if let Some(tables) = turns.get(&key) {
            return Ok(tables.clone());
        }
        let (sines, cosines) = turns_of(length, width, base);
        let table = |values: Vec<f64>| constant(values, (length, width / 2), x);
        Ok(turns.entry(key).or_insert((table(sines)?, table(cosines)?)).clone())
    })
}
