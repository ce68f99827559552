//! Rotary position embedding.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;
use rayon::prelude::*;

use super::composed;
use super::custom::{Op, View, apply1, fault, has_kernel};
use crate::kernels::{Float, uninit};

/// Turn the pairs `(x_i, x_{i + D/2})` of position `l` by the angle `l · base^(−2i/D)` (Su et al. 2021, "RoFormer", with
/// the halves of a vector as pairs) for `x: [.., L, D]`: the same shape. Products of turned queries and keys depend on the
/// distance of their positions alone.
///
/// # Errors
/// Fewer than two dimensions, or an odd last one.
pub fn rotary(x: &Tensor, base: f64) -> Result<Tensor> {
    let &[.., length, width] = x.dims() else {
        return Err(fault("rotary", format!("input {:?} must be [.., L, D]", x.dims())));
    };
    if !width.is_multiple_of(2) {
        return Err(fault("rotary", format!("input {:?} has no halves in its last dimension", x.dims())));
    }
    if !has_kernel(x) {
        return composed::rotary(x, base);
    }
    apply1(Rotary::new(length, width, base), [x])
}

/// Sines and cosines of each position and pair.
pub(super) fn turns_of(length: usize, width: usize, base: f64) -> (Vec<f64>, Vec<f64>) {
    let half = width / 2;
    let angles = (0..length).flat_map(|l| (0..half).map(move |i| l as f64 * base.powf(-(i as f64) / half as f64)));
    angles.map(f64::sin_cos).unzip()
}

/// The angles of sequences of one length and width.
pub(super) struct Rotary {
    width: usize,
    /// Of each position and pair.
    sines: Vec<f64>,
    cosines: Vec<f64>,
}

impl Rotary {
    /// For `[.., length, width]`, an even width.
    pub(super) fn new(length: usize, width: usize, base: f64) -> Self {
        let (sines, cosines) = turns_of(length, width, base);
        Self { width, sines, cosines }
    }

    /// Turn forth, or back for a `sign` of −1.
    pub(super) fn turn<T: Float>(&self, x: &[T], sign: f64) -> Vec<T> {
        let (half, sequence) = (self.width / 2, 2 * self.sines.len());
        let sines: Vec<T> = self.sines.iter().map(|s| T::of(sign * s)).collect();
        let cosines: Vec<T> = self.cosines.iter().map(|c| T::of(*c)).collect();
        let mut y = uninit(x.len());
        y.par_chunks_mut(sequence).zip(x.par_chunks(sequence)).for_each(|(y, x)| {
            let rows = y.chunks_exact_mut(self.width).zip(x.chunks_exact(self.width));
            for ((y, x), (sines, cosines)) in rows.zip(sines.chunks_exact(half).zip(cosines.chunks_exact(half))) {
                let ((y0, y1), (x0, x1)) = (y.split_at_mut(half), x.split_at(half));
                for i in 0..half {
                    y0[i] = x0[i] * cosines[i] - x1[i] * sines[i];
                    y1[i] = x0[i] * sines[i] + x1[i] * cosines[i];
                }
            }
        });
        y
    }
}

impl Op<1> for Rotary {
    const NAME: &'static str = "rotary";

    fn forward<T: Float>(&self, [x]: [View<'_, T>; 1]) -> (Vec<T>, Shape) {
        (self.turn(x.data, 1.0), x.dims.into())
    }

    fn backward<T: Float>(&self, _: [View<'_, T>; 1], _: View<'_, T>, gy: &[T], _: [bool; 1]) -> [Option<Vec<T>>; 1] {
        [Some(self.turn(gy, -1.0))]
    }
}
