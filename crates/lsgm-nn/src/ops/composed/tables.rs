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
    if ids.dtype() == DType::U32 && ids.device().same_device(table.device()) && serves_f32(table) {
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

/// Width, base, type and device of sequences that are turned.
type Turned = (usize, u64, DType, DeviceLocation);

thread_local! {
    /// For the longest sequences so far.
    static TURNS: RefCell<HashMap<Turned, (Tensor, Tensor)>> = RefCell::new(HashMap::new());
}

/// Sines and cosines of each position and pair, which are made once for all lengths.
fn turns(x: &Tensor, base: f64) -> Result<(Tensor, Tensor)> {
    let (length, width) = (x.dim(D::Minus2)?, x.dim(D::Minus1)?);
    let key = (width, base.to_bits(), x.dtype(), x.device().location());
    TURNS.with_borrow_mut(|turns| {
        let known = turns.get(&key).map_or(0, |(sines, _)| sines.dims()[0]);
        if known < length {
            let longer = length.next_power_of_two();
            let (sines, cosines) = turns_of(longer, width, base);
            let table = |values: Vec<f64>| constant(values, (longer, width / 2), x);
            turns.insert(key, (table(sines)?, table(cosines)?));
        }
        let (sines, cosines) = &turns[&key];
        Ok((sines.narrow(0, 0, length)?, cosines.narrow(0, 0, length)?))
    })
}
