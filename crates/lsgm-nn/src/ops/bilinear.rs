//! Bilinear up-sampling.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;

use super::composed;
use super::custom::{Op, View, apply1, fault, has_kernel};
use crate::kernels::Float;
use crate::kernels::bilinear::{gather, spread};

/// Bilinear interpolation of `x: [B, C, H, W]` to `[B, C, factor·H, factor·W]`, corners on corners (`align_corners` of
/// PyTorch).
///
/// # Errors
/// Another number of dimensions, or a factor of zero.
pub fn upsample_bilinear2d(x: &Tensor, factor: usize) -> Result<Tensor> {
    match x.dims() {
        [_, _, _, _] if factor > 0 && !has_kernel(x) => composed::upsample_bilinear(x, factor),
        [_, _, height, width] if factor > 0 => apply1(Bilinear { size: (*height, *width), factor }, [x]),
        dims => Err(fault(
            "upsample_bilinear2d",
            format!("input {dims:?} must have 4 dimensions, and the factor {factor} be positive"),
        )),
    }
}

struct Bilinear {
    size: (usize, usize),
    factor: usize,
}

impl Op<1> for Bilinear {
    const NAME: &'static str = "upsample_bilinear2d";

    fn forward<T: Float>(&self, [x]: [View<'_, T>; 1]) -> (Vec<T>, Shape) {
        let ((h, w), f) = (self.size, self.factor);
        (spread(x.data, self.size, f), (x.dims[0], x.dims[1], f * h, f * w).into())
    }

    fn backward<T: Float>(&self, _: [View<'_, T>; 1], _: View<'_, T>, gy: &[T], _: [bool; 1]) -> [Option<Vec<T>>; 1] {
        [Some(gather(gy, self.size, self.factor))]
    }
}
