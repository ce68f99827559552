//! Ops that are linear in an input and in a weight, with or without a bias.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;

use super::custom::{Op, View, apply2, apply3};
use crate::kernels::Float;

/// A product of an input and a weight, to which a bias may be added.
pub(super) trait Affine: Send + Sync + 'static {
    /// The name of the public function, for errors.
    fn name(&self) -> &'static str;

    /// The output and its shape.
    fn forward<T: Float>(&self, x: View<'_, T>, w: &[T], bias: Option<&[T]>) -> (Vec<T>, Shape);

    /// The gradients of input and weight, where they are needed.
    fn gradients<T: Float>(&self, x: &[T], w: &[T], gy: &[T], needed: [bool; 2]) -> [Option<Vec<T>>; 2];

    /// The gradient of the bias.
    fn bias_gradient<T: Float>(&self, gy: &[T]) -> Vec<T>;
}

/// Apply it; the public function has checked all shapes.
pub(super) fn apply(op: impl Affine, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) => apply3(Node(op), [x, w, bias]),
        None => apply2(Node(op), [x, w]),
    }
}

struct Node<A>(A);

impl<A: Affine> Op<2> for Node<A> {
    const NAME: &'static str = "affine";

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn forward<T: Float>(&self, [x, w]: [View<'_, T>; 2]) -> (Vec<T>, Shape) {
        self.0.forward(x, w.data, None)
    }

    fn backward<T: Float>(
        &self,
        [x, w]: [View<'_, T>; 2],
        _: View<'_, T>,
        gy: &[T],
        needed: [bool; 2],
    ) -> [Option<Vec<T>>; 2] {
        self.0.gradients(x.data, w.data, gy, needed)
    }
}

impl<A: Affine> Op<3> for Node<A> {
    const NAME: &'static str = "affine";

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn forward<T: Float>(&self, [x, w, bias]: [View<'_, T>; 3]) -> (Vec<T>, Shape) {
        self.0.forward(x, w.data, Some(bias.data))
    }

    fn backward<T: Float>(
        &self,
        [x, w, _]: [View<'_, T>; 3],
        _: View<'_, T>,
        gy: &[T],
        [needs_x, needs_w, needs_bias]: [bool; 3],
    ) -> [Option<Vec<T>>; 3] {
        let [dx, dw] = self.0.gradients(x.data, w.data, gy, [needs_x, needs_w]);
        [dx, dw, needs_bias.then(|| self.0.bias_gradient(gy))]
    }
}
