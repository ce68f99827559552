use candle_core::{Device, Tensor};
use lsgm_core::{Params, Result};
use lsgm_nn::ops::{self, Conv1dConfig};
use lsgm_nn::{Precision, with_precision};

use crate::config::StftConfig;
use crate::spectrum::hann;

/// Power below which spectra count as empty.
const FLOOR: f64 = 1e-7;

/// A differentiable distance of spectra at several resolutions (Yamamoto et al. 2019, arXiv 1910.11480): for each, the
/// difference of magnitudes relative to those of the data, and the mean difference of their logarithms.
///
/// A short-time Fourier transform is a strided convolution with fixed sines and cosines.
#[derive(Debug, Clone)]
pub(crate) struct StftDistance {
    weight: f64,
    resolutions: Vec<Resolution>,
}

#[derive(Debug, Clone)]
struct Resolution {
    /// Windowed cosines, then sines: `[2·bins, 1, size]`.
    basis: Tensor,
    bins: usize,
    hop: usize,
}

impl StftDistance {
    /// On the device of `params`, of which it takes none.
    ///
    /// # Errors
    /// A tensor operation that fails.
    pub(crate) fn new(config: &StftConfig, params: &Params) -> Result<Self> {
        let resolution = |size: &usize| -> Result<Resolution> {
            let (size, bins) = (*size, size / 2 + 1);
            let basis = Tensor::from_vec(fourier_basis(size), (2 * bins, 1, size), &Device::Cpu)?;
            Ok(Resolution { basis: basis.to_dtype(params.dtype())?.to_device(&params.device())?, bins, hop: size / 4 })
        };
        Ok(Self { weight: config.weight, resolutions: config.sizes.iter().map(resolution).collect::<Result<_>>()? })
    }

    /// The weighted distance of `y` from the data `x`, both `[B, 1, L]`: a scalar.
    ///
    /// # Errors
    /// Another shape, or clips shorter than a window.
    pub(crate) fn loss(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let mut total = Tensor::zeros((), y.dtype(), y.device())?;
        for resolution in &self.resolutions {
            let (a, b) = (resolution.magnitudes(&x.to_dtype(y.dtype())?)?, resolution.magnitudes(y)?);
            // The root has no slope at 0.
            let relative = (((&a - &b)?.sqr()?.sum_all()? / a.sqr()?.sum_all()?)? + 1e-12)?.sqrt()?;
            let logarithmic = (a.log()? - b.log()?)?.abs()?.mean_all()?;
            total = (total + (relative + logarithmic)?)?;
        }
        Ok((total * (self.weight / self.resolutions.len() as f64))?)
    }
}

impl Resolution {
    /// `[B, 1, L]` to `[B, bins, frames]`, above the floor.
    fn magnitudes(&self, x: &Tensor) -> Result<Tensor> {
        let config = Conv1dConfig { stride: self.hop, ..Default::default() };
        let parts = with_precision(Precision::F32, || ops::conv1d(x, &self.basis, None, &config))?;
        let (re, im) = (parts.narrow(1, 0, self.bins)?, parts.narrow(1, self.bins, self.bins)?);
        Ok(((re.sqr()? + im.sqr()?)? + FLOOR)?.sqrt()?)
    }
}

/// Cosines and sines of every whole number of cycles under a Hann window, scaled so that a full-scale sine has a magnitude
/// near 1.
fn fourier_basis(size: usize) -> Vec<f32> {
    let window = hann(size);
    let scale = 2.0 / window.iter().sum::<f64>();
    let row = |bin: usize, sine: bool| {
        let angle = move |n: usize| std::f64::consts::TAU * ((bin * n) % size) as f64 / size as f64;
        let window = &window;
        (0..size).map(move |n| (scale * window[n] * if sine { angle(n).sin() } else { angle(n).cos() }) as f32)
    };
    let bins = size / 2 + 1;
    (0..bins).flat_map(|k| row(k, false)).chain((0..bins).flat_map(|k| row(k, true))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spectrum::PowerSpectrum;
    use candle_core::{DType, Var};
    use lsgm_core::{ParamStore, Rng};

    fn distance(dtype: DType) -> StftDistance {
        let store = ParamStore::new(dtype, &Device::Cpu, Rng::new(0));
        StftDistance::new(&StftConfig { weight: 3.0, sizes: vec![16, 32] }, &store.root()).unwrap()
    }

    #[test]
    fn magnitudes_are_those_of_a_fourier_transform() {
        let x: Vec<f32> = Rng::new(4).normals(100);
        let tensor = Tensor::from_vec(x.clone(), (1, 1, 100), &Device::Cpu).unwrap();
        let found = distance(DType::F32).resolutions[1].magnitudes(&tensor).unwrap();
        let spectrum = PowerSpectrum::new(32, 8);
        let scale = 2.0 / hann(32).iter().sum::<f64>();
        let frames = spectrum.of(&x);
        assert_eq!(found.dims(), [1, 17, frames.len()]);
        for (t, frame) in frames.iter().enumerate() {
            for (k, power) in frame.iter().enumerate() {
                let a = f64::from(found.get(0).unwrap().get(k).unwrap().get(t).unwrap().to_scalar::<f32>().unwrap());
                let b = (power * scale * scale + FLOOR).sqrt();
                assert!((a - b).abs() < 1e-5, "bin {k}, frame {t}: {a} {b}");
            }
        }
    }

    #[test]
    fn the_gradient_agrees_with_central_differences() {
        let stft = distance(DType::F64);
        let mut rng = Rng::new(5);
        let x = rng.normal_tensor((2, 1, 64), DType::F64, &Device::Cpu).unwrap();
        let y = Var::from_tensor(&rng.normal_tensor((2, 1, 64), DType::F64, &Device::Cpu).unwrap()).unwrap();
        let value = |y: &Tensor| stft.loss(&x, y).unwrap().to_scalar::<f64>().unwrap();
        assert!(value(&x).abs() < 1e-5 && value(y.as_tensor()) > 1.0);
        let gradient = stft.loss(&x, y.as_tensor()).unwrap().backward().unwrap().get(y.as_tensor()).unwrap().clone();
        let (at, gradient) = (
            y.as_tensor().flatten_all().unwrap().to_vec1::<f64>().unwrap(),
            gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
        );
        for i in (0..128).step_by(9) {
            let moved = |step: f64| {
                let mut v = at.clone();
                v[i] += step;
                value(&Tensor::from_vec(v, (2, 1, 64), &Device::Cpu).unwrap())
            };
            let difference = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((difference - gradient[i]).abs() < 1e-5, "{i}: {} against {difference}", gradient[i]);
        }
    }
}
