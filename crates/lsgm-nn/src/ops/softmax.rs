//! Softmax and its logarithm over the last dimension.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;

use super::composed;
use super::custom::{Op, View, apply1, fault, has_kernel};
use crate::kernels::Float;
use crate::kernels::softmax as kernel;

/// `exp(x) / Σ exp(x)` over the last dimension.
///
/// # Errors
/// A scalar, or an element type other than `f32` and `f64`.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    apply(x, "softmax", false)
}

/// `x − ln Σ exp(x)` over the last dimension.
///
/// # Errors
/// A scalar, or an element type other than `f32` and `f64`.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    apply(x, "log_softmax", true)
}

fn apply(x: &Tensor, name: &str, log: bool) -> Result<Tensor> {
    let width = *x.dims().last().ok_or_else(|| fault(name, "a scalar has no last dimension"))?;
    if !has_kernel(x) {
        return if log { composed::log_softmax(x) } else { composed::softmax(x) };
    }
    apply1(Softmax { width, log }, [x])
}

struct Softmax {
    width: usize,
    log: bool,
}

impl Op<1> for Softmax {
    const NAME: &'static str = "softmax";

    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn forward<T: Float>(&self, [x]: [View<'_, T>; 1]) -> (Vec<T>, Shape) {
        let f = if self.log { kernel::log_softmax } else { kernel::softmax };
        (f(x.data, self.width), x.dims.into())
    }

    fn backward<T: Float>(&self, _: [View<'_, T>; 1], y: View<'_, T>, gy: &[T], _: [bool; 1]) -> [Option<Vec<T>>; 1] {
        let f = if self.log { kernel::log_softmax_gradient } else { kernel::softmax_gradient };
        [Some(f(y.data, gy, self.width))]
    }
}
