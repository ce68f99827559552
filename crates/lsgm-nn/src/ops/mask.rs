//! Multiplication with a constant, which may be drawn.

use candle_core::{Device, Shape, Tensor};
use lsgm_core::{Result, Rng, upload};
use rayon::prelude::*;

use super::custom::{Op, View, apply1, fault, has_kernel};
use super::device;
use crate::kernels::device::serves;
use crate::kernels::{BLOCK, Float, uninit};

/// `x · factors` elementwise with constants `factors` in the order of `x`'s elements; no gradient reaches them.
///
/// # Errors
/// A number of factors other than that of the elements.
pub fn mask(x: &Tensor, factors: Vec<f32>) -> Result<Tensor> {
    if factors.len() != x.elem_count() {
        return Err(fault("mask", format!("{} factors for an input of {:?}", factors.len(), x.dims())));
    }
    if !has_kernel(x) {
        let factors = Tensor::from_vec(factors, x.shape(), &Device::Cpu)?.to_dtype(x.dtype())?;
        return Ok((x * upload(&factors, x.device())?)?);
    }
    apply1(Mask(factors), [x])
}

/// Zeros in the place of elements of `x` with probability `p`, the others divided by `1 − p` (Srivastava et al. 2014). Which
/// ones is drawn from `rng`, on a GPU by the device itself.
///
/// # Errors
/// A probability outside [0, 1).
pub fn dropout(x: &Tensor, p: f64, rng: &mut Rng) -> Result<Tensor> {
    if !(0.0..1.0).contains(&p) {
        return Err(fault("dropout", format!("probability {p} is not in [0, 1)")));
    }
    let (p, scale) = (p as f32, (1.0 / (1.0 - p)) as f32);
    if !has_kernel(x) && serves(x) {
        return device::dropout(x, rng.pass_over(x.elem_count()), p, scale);
    }
    let mut factors = rng.uniforms(x.elem_count());
    factors.iter_mut().for_each(|u| *u = if *u < p { 0.0 } else { scale });
    mask(x, factors)
}

struct Mask(Vec<f32>);

impl Mask {
    fn apply<T: Float>(&self, x: &[T]) -> Vec<T> {
        let mut y = uninit(x.len());
        y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).zip(self.0.par_chunks(BLOCK)).for_each(|((y, x), f)| {
            for ((y, x), f) in y.iter_mut().zip(x).zip(f) {
                *y = *x * T::of(f64::from(*f));
            }
        });
        y
    }
}

impl Op<1> for Mask {
    const NAME: &'static str = "mask";

    fn forward<T: Float>(&self, [x]: [View<'_, T>; 1]) -> (Vec<T>, Shape) {
        (self.apply(x.data), x.dims.into())
    }

    fn backward<T: Float>(&self, _: [View<'_, T>; 1], _: View<'_, T>, gy: &[T], _: [bool; 1]) -> [Option<Vec<T>>; 1] {
        [Some(self.apply(gy))]
    }
}
