use candle_core::{DType, Device, Tensor};
use lsgm_core::{Result, upload};

use crate::ops::has_kernel;

/// The sinusoidal features of DDPM (Ho et al. 2020): for `t: [B]` the row `[sin(s·t·f_i) ..., cos(s·t·f_i) ...]` with
/// frequencies `f_i = max_period^(−i/(dim/2 − 1))`, `[B, dim]`. An odd `dim` ends with a column of zeros.
///
/// No gradient reaches `t`.
///
/// # Errors
/// When `t` has more than one dimension.
pub fn sinusoidal(t: &Tensor, dim: usize, scale: f64, max_period: f64) -> Result<Tensor> {
    let half = dim / 2;
    let step = max_period.ln() / (half.max(2) - 1) as f64;
    let frequencies: Vec<f64> = (0..half).map(|i| (-step * i as f64).exp() * scale).collect();
    if !has_kernel(t) {
        return on_the_device(t, dim, frequencies);
    }
    let times = t.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let mut rows = Vec::with_capacity(times.len() * dim);
    for time in &times {
        rows.extend(frequencies.iter().map(|f| (time * f).sin()));
        rows.extend(frequencies.iter().map(|f| (time * f).cos()));
        rows.extend(std::iter::repeat_n(0.0, dim - 2 * half));
    }
    Ok(Tensor::from_vec(rows, (times.len(), dim), &Device::Cpu)?.to_dtype(t.dtype())?.to_device(t.device())?)
}

/// The features without a look at the times from the host.
fn on_the_device(t: &Tensor, dim: usize, frequencies: Vec<f64>) -> Result<Tensor> {
    let (batch, half) = (t.dims1()?, frequencies.len());
    let frequencies = upload(&Tensor::from_vec(frequencies, (1, half), &Device::Cpu)?, t.device())?;
    let angles = t.detach().to_dtype(DType::F64)?.reshape((batch, 1))?.broadcast_mul(&frequencies)?;
    let rows = Tensor::cat(&[angles.sin()?, angles.cos()?], 1)?.pad_with_zeros(1, 0, dim - 2 * half)?;
    Ok(rows.to_dtype(t.dtype())?)
}

/// [`sinusoidal`] features with fixed numbers.
#[derive(Debug, Clone, Copy)]
pub struct TimeEmbedding {
    /// Number of features.
    pub dim: usize,
    /// Factor on the time: 1000 for times in [0, 1] in the place of DDPM's step numbers.
    pub scale: f64,
    /// The longest period, 10000 in DDPM.
    pub max_period: f64,
}

impl TimeEmbedding {
    /// DDPM's numbers for times in [0, 1].
    pub fn new(dim: usize) -> Self {
        Self { dim, scale: 1000.0, max_period: 10_000.0 }
    }

    /// Times `[B]` to features `[B, dim]`.
    ///
    /// # Errors
    /// When `t` has more than one dimension.
    pub fn forward(&self, t: &Tensor) -> Result<Tensor> {
        sinusoidal(t, self.dim, self.scale, self.max_period)
    }

    /// [`TimeEmbedding::forward`] in the type and on the device of `like`, wherever the times are.
    ///
    /// # Errors
    /// When `t` has more than one dimension.
    pub fn forward_like(&self, t: &Tensor, like: &Tensor) -> Result<Tensor> {
        upload(&self.forward(t)?.to_dtype(like.dtype())?, like.device())
    }
}
