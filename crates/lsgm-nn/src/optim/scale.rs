use candle_core::Tensor;
use lsgm_core::Result;

use crate::ops::has_kernel;

/// A factor on all gradients of an optimizer.
#[derive(Debug, Clone)]
pub enum GradientScale {
    /// A number that the host knows.
    Number(f64),
    /// A scalar that the device has computed and the host need not wait for.
    OnDevice(Tensor),
}

impl GradientScale {
    /// The factor `min(1, limit / norm)`, which brings gradients of a larger norm down to `limit`.
    ///
    /// # Errors
    /// A norm that is no scalar.
    pub fn clip(norm: &Tensor, limit: f64) -> Result<Self> {
        if has_kernel(norm) {
            let norm = norm.to_scalar::<f64>()?;
            return Ok(Self::Number(if norm > limit { limit / norm } else { 1.0 }));
        }
        Ok(Self::OnDevice((norm.recip()? * limit)?.minimum(&norm.ones_like()?)?))
    }

    /// The factor as a scalar (`f64`) on a device.
    pub(super) fn tensor(&self, device: &candle_core::Device) -> Result<Tensor> {
        Ok(match self {
            Self::Number(factor) => Tensor::new(*factor, device)?,
            Self::OnDevice(factor) => factor.to_dtype(candle_core::DType::F64)?,
        })
    }

    /// The factor on the host.
    pub(super) fn number(&self) -> Result<f64> {
        match self {
            Self::Number(factor) => Ok(*factor),
            Self::OnDevice(factor) => Ok(factor.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?),
        }
    }
}

impl From<f64> for GradientScale {
    fn from(factor: f64) -> Self {
        Self::Number(factor)
    }
}
