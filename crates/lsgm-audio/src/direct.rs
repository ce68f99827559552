//! A way between the bands of a [`Lapped`](crate::lapped::Lapped) transform `[B, bands, L]` and latents
//! `[B, C, L / stride]`, beside the networks, so that an autoencoder starts as a transform codec: each latent is one
//! coefficient of one band, compressed, the lowest bands first, and the bands for which no latent is left are silent.
//!
//! Both directions have a parameter `change` `[C, bands, stride]` (zeros), added to that choice.

use candle_core::Tensor;
use lsgm_core::{Params, Result};
use lsgm_nn::ops::{self, Conv1dConfig, ConvTranspose1dConfig};
use lsgm_nn::{Precision, with_precision};

use crate::learned::Learned;

/// What bands are multiplied with on their way to the latents: the loudest of a full-scale tone stay inside the soft clamp.
const SCALE: f32 = 0.25;

/// A band `c` of latent `z` is `z³ + LINEAR · z`: like the ear, the latents hear relative differences, and what is loud and
/// what is quiet have a similar spread.
const LINEAR: f64 = 0.02;

/// From bands to latents.
pub(crate) struct ToLatents {
    choice: Learned,
    stride: usize,
}

impl ToLatents {
    /// # Errors
    /// When the store has a parameter with another shape.
    pub(crate) fn new(latents: usize, bands: usize, stride: usize, params: &Params) -> Result<Self> {
        Ok(Self { choice: choice(latents, bands, stride, SCALE, params)?, stride })
    }

    /// `[B, bands, L]` to `[B, C, L / stride]`.
    ///
    /// # Errors
    /// Another shape.
    pub(crate) fn forward(&self, bands: &Tensor) -> Result<Tensor> {
        let config = Conv1dConfig { stride: self.stride, ..Default::default() };
        let chosen = with_precision(Precision::F32, || ops::conv1d(bands, &self.choice.weight()?, None, &config))?;
        compress(&chosen)
    }
}

/// From latents back to bands.
pub(crate) struct ToBands {
    choice: Learned,
    stride: usize,
}

impl ToBands {
    /// # Errors
    /// When the store has a parameter with another shape.
    pub(crate) fn new(latents: usize, bands: usize, stride: usize, params: &Params) -> Result<Self> {
        Ok(Self { choice: choice(latents, bands, stride, 1.0 / SCALE, params)?, stride })
    }

    /// `[B, C, L / stride]` to `[B, bands, L]`.
    ///
    /// # Errors
    /// Another shape.
    pub(crate) fn forward(&self, z: &Tensor) -> Result<Tensor> {
        let config = ConvTranspose1dConfig { stride: self.stride, ..Default::default() };
        with_precision(Precision::F32, || ops::conv_transpose1d(&expand(z)?, &self.choice.weight()?, None, &config))
    }
}

/// `z³ + LINEAR · z`.
fn expand(z: &Tensor) -> Result<Tensor> {
    Ok((z * (z.sqr()? + LINEAR)?)?)
}

/// The `z` with `z³ + LINEAR · z = c`: `2 √(p/3) · sinh(asinh(x) / 3)`, `x = 3c / 2p · √(3/p)`, `p = LINEAR`.
fn compress(c: &Tensor) -> Result<Tensor> {
    let root = (LINEAR / 3.0).sqrt();
    // asinh loses its digits where x is negative: its sign is put aside.
    let x = (c.abs()? * (1.5 / LINEAR / root))?;
    let third = (((x.sqr()? + 1.0)?.sqrt()? + x)?.log()? / 3.0)?;
    let size = ((third.exp()? - third.neg()?.exp()?)? * root)?;
    Ok((size * c.detach().sign()?)?)
}

/// Row `band · stride + position` takes this coefficient alone.
fn choice(latents: usize, bands: usize, stride: usize, scale: f32, params: &Params) -> Result<Learned> {
    let mut weight = vec![0.0; latents * bands * stride];
    for coefficient in 0..latents.min(bands * stride) {
        weight[coefficient * bands * stride + coefficient] = scale;
    }
    Learned::new(weight, (latents, bands, stride), params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};
    use lsgm_core::{ParamStore, Rng};

    #[test]
    fn compression_is_undone_and_its_slope_is_that_of_the_cubic() {
        let values: Vec<f64> = vec![-30.0, -1.0, -1e-3, 1e-9, 1e-4, 0.3, 20.0];
        let c = Var::new(values.as_slice(), &Device::Cpu).unwrap();
        let z = compress(c.as_tensor()).unwrap();
        let back = expand(&z).unwrap().to_vec1::<f64>().unwrap();
        let slopes = z.sum_all().unwrap().backward().unwrap().get(&c).unwrap().to_vec1::<f64>().unwrap();
        for (((c, back), z), slope) in values.iter().zip(back).zip(z.to_vec1::<f64>().unwrap()).zip(slopes) {
            assert!((c - back).abs() < 1e-12 * (1.0 + c.abs()), "{c} came back as {back}");
            assert!((slope * (3.0 * z * z + LINEAR) - 1.0).abs() < 1e-6, "{slope} at {c}");
        }
    }

    /// There and back, the lowest bands are what they were and the others silent, on one level and on several.
    #[test]
    fn the_lowest_bands_come_back() {
        for (latents, bands, stride) in [(3, 8, 1), (8, 8, 1), (6, 4, 2), (20, 4, 4)] {
            let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(0));
            let there = ToLatents::new(latents, bands, stride, &store.root().pp("there")).unwrap();
            let back = ToBands::new(latents, bands, stride, &store.root().pp("back")).unwrap();
            let x = Rng::new(1).normal_tensor((2, bands, 8), DType::F32, &Device::Cpu).unwrap();
            let z = there.forward(&x).unwrap();
            assert_eq!(z.dims(), [2, latents, 8 / stride]);
            let y = back.forward(&z).unwrap();
            let whole = (latents / stride).min(bands);
            let kept = |t: &Tensor| t.narrow(1, 0, whole).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(kept(&x).iter().zip(kept(&y)).all(|(a, b)| (a - b).abs() < 1e-5));
            if whole < bands {
                let rest = y.narrow(1, whole, bands - whole).unwrap().abs().unwrap().max_all().unwrap();
                assert_eq!(rest.to_scalar::<f32>().unwrap(), 0.0);
            }
        }
    }
}
