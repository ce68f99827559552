//! The affine map of the last dimension.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;

use super::affine::{self, Affine};
use super::composed;
use super::custom::{View, fault, has_kernel};
use crate::kernels::{Float, linear as kernel};

/// `x · wᵀ + bias` for `x: [.., I]`, `w: [O, I]`, `bias: [O]`: `[.., O]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (inputs, outputs) = match (x.dims().last(), w.dims()) {
        (Some(i), &[outputs, inputs]) if *i == inputs => (inputs, outputs),
        _ => return Err(fault("linear", format!("input {:?} does not fit weight {:?}", x.dims(), w.dims()))),
    };
    match bias {
        Some(b) if b.dims() != [outputs] => Err(fault("linear", format!("bias {:?} must be [{outputs}]", b.dims()))),
        bias if !has_kernel(x) => composed::linear(x, w, bias),
        bias => affine::apply(Linear { inputs, outputs }, x, w, bias),
    }
}

struct Linear {
    inputs: usize,
    outputs: usize,
}

impl Affine for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn forward<T: Float>(&self, x: View<'_, T>, w: &[T], bias: Option<&[T]>) -> (Vec<T>, Shape) {
        let mut dims = x.dims.to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.outputs;
        }
        (kernel::forward(x.data, w, bias, self.inputs, self.outputs), dims.into())
    }

    fn gradients<T: Float>(&self, x: &[T], w: &[T], gy: &[T], needed: [bool; 2]) -> [Option<Vec<T>>; 2] {
        [
            needed[0].then(|| kernel::data_gradient(gy, w, self.inputs, self.outputs)),
            needed[1].then(|| kernel::weight_gradient(x, gy, self.inputs, self.outputs)),
        ]
    }

    fn bias_gradient<T: Float>(&self, gy: &[T]) -> Vec<T> {
        kernel::column_sums(gy, self.outputs)
    }
}
