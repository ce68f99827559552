//! The identity with another gradient.

use candle_core::Tensor;
use lsgm_core::Result;

/// `x` itself, with a gradient that is multiplied by the constant `factor` on the way back; `factor` broadcasts over `x`.
///
/// # Errors
/// A factor that does not broadcast, or has another element type.
pub fn scale_gradient(x: &Tensor, factor: &Tensor) -> Result<Tensor> {
    let value = x.detach();
    let zero = (x - &value)?;
    Ok((zero.broadcast_mul(&factor.detach())? + value)?)
}
