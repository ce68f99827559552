use std::f64::consts::PI;

use candle_core::Tensor;
use lsgm_core::{Params, Result};
use lsgm_nn::ops::{self, Conv1dConfig, ConvTranspose1dConfig};
use lsgm_nn::{Precision, with_precision};

use crate::learned::Learned;

/// A learned lapped transform between a waveform `[B, 1, L]` and `stride` bands `[B, stride, L / stride]`.
///
/// It starts as the modified discrete cosine transform with a sine window (Princen, Johnson, Bradley 1987): windows of two
/// strides overlap by half, and synthesis undoes analysis but for half a stride at both ends of the clip. A
/// strided convolution that starts there need not learn first how waveforms are made of frequencies.
///
/// Parameter: `change` `[stride, 1, 2·stride]` (zeros), added to the cosine basis.
#[derive(Debug, Clone)]
pub(crate) struct Lapped {
    basis: Learned,
    stride: usize,
}

impl Lapped {
    /// With `stride` bands, an even number.
    ///
    /// # Errors
    /// When the store has a parameter with another shape.
    pub(crate) fn new(stride: usize, params: &Params) -> Result<Self> {
        Ok(Self { basis: Learned::new(cosine_basis(stride), (stride, 1, 2 * stride), params)?, stride })
    }

    /// `[B, 1, L]` to `[B, stride, L / stride]`.
    ///
    /// # Errors
    /// Another shape.
    pub(crate) fn analyse(&self, x: &Tensor) -> Result<Tensor> {
        let config = Conv1dConfig { stride: self.stride, padding: self.stride / 2, ..Default::default() };
        // Samples of 16 bits: no precision of a pass may round them.
        with_precision(Precision::F32, || ops::conv1d(x, &self.basis.weight()?, None, &config))
    }

    /// `[B, stride, L / stride]` to `[B, 1, L]`.
    ///
    /// # Errors
    /// Another shape.
    pub(crate) fn synthesise(&self, bands: &Tensor) -> Result<Tensor> {
        let config = ConvTranspose1dConfig { stride: self.stride, padding: self.stride / 2, ..Default::default() };
        with_precision(Precision::F32, || ops::conv_transpose1d(bands, &self.basis.weight()?, None, &config))
    }
}

/// `√(2/s) · sin(π(n + ½)/2s) · cos(π/s · (n + ½ + s/2)(k + ½))`, `[s, 2s]`: orthonormal rows, whose overlapped copies are
/// orthogonal too.
fn cosine_basis(stride: usize) -> Vec<f32> {
    let s = stride as f64;
    let value = |k: usize, n: usize| {
        let (k, n) = (k as f64 + 0.5, n as f64 + 0.5);
        (2.0 / s).sqrt() * (PI * n / (2.0 * s)).sin() * (PI / s * (n + s / 2.0) * k).cos()
    };
    (0..stride).flat_map(|k| (0..2 * stride).map(move |n| value(k, n) as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use lsgm_core::{ParamStore, Rng};

    #[test]
    fn synthesis_undoes_analysis_inside_the_clip() {
        for stride in [2, 8, 64] {
            let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(0));
            let lapped = Lapped::new(stride, &store.root()).unwrap();
            let x = Rng::new(1).normal_tensor((2, 1, 8 * stride), DType::F32, &Device::Cpu).unwrap();
            let bands = lapped.analyse(&x).unwrap();
            assert_eq!(bands.dims(), [2, stride, 8]);
            let inner = |t: &Tensor| t.narrow(2, stride, 6 * stride).unwrap();
            let y = lapped.synthesise(&bands).unwrap();
            assert_eq!(y.dims(), x.dims());
            let error = (inner(&x) - inner(&y)).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(error.to_scalar::<f32>().unwrap() < 1e-5, "{stride}");
        }
    }
}
