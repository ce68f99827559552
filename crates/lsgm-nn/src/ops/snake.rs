//! The snake activation.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;

use super::composed;
use super::custom::{Op, View, apply2, fault, has_kernel};
use crate::kernels::Float;
use crate::kernels::snake::{alpha_gradient, input_gradient, value};

struct Snake;

/// Elements of one channel of one item.
fn width(dims: &[usize]) -> usize {
    dims[2..].iter().product()
}

impl Op<2> for Snake {
    const NAME: &'static str = "snake";

    fn forward<T: Float>(&self, [x, alpha]: [View<'_, T>; 2]) -> (Vec<T>, Shape) {
        (value(x.data, alpha.data, width(x.dims)), x.dims.into())
    }

    fn backward<T: Float>(
        &self,
        [x, alpha]: [View<'_, T>; 2],
        _: View<'_, T>,
        gy: &[T],
        needed: [bool; 2],
    ) -> [Option<Vec<T>>; 2] {
        let width = width(x.dims);
        [
            needed[0].then(|| input_gradient(x.data, alpha.data, gy, width)),
            needed[1].then(|| alpha_gradient(x.data, alpha.data, gy, width)),
        ]
    }
}

/// `x + sin²(α·x) / α` for `x: [B, C, ..]` and one positive `alpha: [C]` for each channel: an activation with a bias
/// towards periodic functions (Ziyin, Hartwig, Ueda 2020, arXiv 2006.08195).
///
/// # Errors
/// Shapes that do not fit.
pub fn snake(x: &Tensor, alpha: &Tensor) -> Result<Tensor> {
    match x.dims() {
        [_, channels, ..] if alpha.dims() == [*channels] && !has_kernel(x) => composed::snake(x, alpha),
        [_, channels, ..] if alpha.dims() == [*channels] => apply2(Snake, [x, alpha]),
        dims => Err(fault("snake", format!("alpha {:?} does not fit the channels of {dims:?}", alpha.dims()))),
    }
}
