//! Halving and doubling of feature maps: by means and repetition, or with the FIR filter [1, 3, 3, 1] (Karras et al. 2020,
//! Song et al. 2021).

use candle_core::Tensor;
use lsgm_core::{Params, Result};
use lsgm_nn::ops::{Conv2dConfig, ConvTranspose2dConfig, avg_pool1d, avg_pool2d, conv_transpose2d, conv2d};

use crate::networks::plane::Plane;

/// How feature maps change size.
#[derive(Debug, Clone)]
pub(crate) enum Resampler {
    /// Means of neighbours, repetition.
    Naive,
    /// The FIR filter, one normalised kernel `[1, 1, kh, kw]`.
    Fir(Tensor),
}

impl Resampler {
    pub(crate) fn new(fir: bool, plane: Plane, params: &Params) -> Result<Self> {
        if !fir {
            return Ok(Self::Naive);
        }
        let taps = [0.125f64, 0.375, 0.375, 0.125];
        let (height, width) = plane.kernel(4);
        let rows = if height == 1 { vec![1.0] } else { taps.to_vec() };
        let kernel: Vec<f64> = rows.iter().flat_map(|a| taps.iter().map(move |b| a * b)).collect();
        let kernel = Tensor::from_vec(kernel, (1, 1, height, width), &candle_core::Device::Cpu)?;
        Ok(Self::Fir(kernel.to_dtype(params.dtype())?.to_device(&params.device())?))
    }

    /// Half the size, rounded up; an odd edge is repeated first. `plane` is the grid of `x`.
    pub(crate) fn down(&self, plane: Plane, x: &Tensor) -> Result<Tensor> {
        let x = even(plane, x)?;
        match self {
            Self::Naive if plane.is_line() => Ok(avg_pool1d(&x.squeeze(2)?, 2)?.unsqueeze(2)?),
            Self::Naive => avg_pool2d(&x, 2),
            Self::Fir(kernel) => {
                let config = Conv2dConfig { padding: padding(plane, 1), ..Conv2dConfig::default() };
                per_channel(&x, |x| conv2d(x, kernel, None, &config.with_stride(plane.kernel(2))))
            }
        }
    }

    /// The FIR filter alone, as it goes before a strided convolution of extent 3: one position longer than `x`. The
    /// naive resampler pads to the same size at the end instead, with zeros.
    pub(crate) fn before_strided_conv(&self, plane: Plane, x: &Tensor) -> Result<Tensor> {
        let x = even(plane, x)?;
        match self {
            Self::Naive => {
                let x = x.pad_with_zeros(3, 0, 1)?;
                Ok(if plane.is_line() { x } else { x.pad_with_zeros(2, 0, 1)? })
            }
            Self::Fir(kernel) => {
                let config = Conv2dConfig { padding: padding(plane, 2), ..Conv2dConfig::default() };
                per_channel(&x, |x| conv2d(x, kernel, None, &config))
            }
        }
    }

    /// Double the size, cut to the grid `target`.
    pub(crate) fn up(&self, target: Plane, x: &Tensor) -> Result<Tensor> {
        let Self::Fir(kernel) = self else { return target.double(x) };
        let gain = if target.is_line() { 2.0 } else { 4.0 };
        let kernel = (kernel * gain)?;
        let config = ConvTranspose2dConfig {
            stride: target.kernel(2),
            padding: padding(target, 1),
            ..ConvTranspose2dConfig::default()
        };
        target.crop(&per_channel(x, |x| conv_transpose2d(x, &kernel, None, &config))?)
    }
}

fn padding(plane: Plane, amount: usize) -> (usize, usize) {
    if plane.is_line() { (0, amount) } else { (amount, amount) }
}

/// `x` with its last row or column repeated where their number is odd.
fn even(plane: Plane, x: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let x = if width % 2 == 1 { x.pad_with_same(3, 0, 1)? } else { x.clone() };
    Ok(if height % 2 == 1 && !plane.is_line() { x.pad_with_same(2, 0, 1)? } else { x })
}

/// Apply a function of one-channel maps to every channel.
fn per_channel(x: &Tensor, function: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let y = function(&x.reshape((batch * channels, 1, height, width))?)?;
    let (_, _, height, width) = y.dims4()?;
    Ok(y.reshape((batch, channels, height, width))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use lsgm_core::{LatentShape, ParamStore, Rng};

    fn line(values: &[f64]) -> (Plane, Tensor, Params) {
        let plane = Plane::new(&LatentShape::line(1, values.len()));
        let x = Tensor::new(values, &Device::Cpu).unwrap().reshape((1, 1, 1, values.len())).unwrap();
        (plane, x, ParamStore::new(DType::F64, &Device::Cpu, Rng::new(0)).root())
    }

    fn values(x: &Tensor) -> Vec<f64> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_filter_halves_and_doubles() {
        let (plane, x, params) = line(&[8.0, 16.0, 0.0, 8.0]);
        let fir = Resampler::new(true, plane, &params).unwrap();
        // 3/8 · 8 + 3/8 · 16 + 1/8 · 0; 1/8 · 16 + 3/8 · 0 + 3/8 · 8.
        assert_eq!(values(&fir.down(plane, &x).unwrap()), [9.0, 5.0]);
        let doubled = Plane::new(&LatentShape::line(1, 8));
        // Weights 3/4 and 1/4 of the nearest two, zeros beyond the ends.
        assert_eq!(values(&fir.up(doubled, &x).unwrap()), [6.0, 10.0, 14.0, 12.0, 4.0, 2.0, 6.0, 6.0]);
        assert_eq!(fir.before_strided_conv(plane, &x).unwrap().dims(), [1, 1, 1, 5]);
    }

    #[test]
    fn odd_sizes_come_back() {
        let (plane, x, params) = line(&[2.0, 4.0, 6.0]);
        for fir in [false, true] {
            let resampler = Resampler::new(fir, plane, &params).unwrap();
            let half = resampler.down(plane, &x).unwrap();
            assert_eq!(half.dims(), [1, 1, 1, 2]);
            assert_eq!(resampler.up(plane, &half).unwrap().dims(), x.dims());
        }
        let naive = Resampler::new(false, plane, &params).unwrap();
        assert_eq!(values(&naive.down(plane, &x).unwrap()), [3.0, 6.0]);
    }
}
