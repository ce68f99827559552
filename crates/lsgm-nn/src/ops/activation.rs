//! Elementwise functions.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;

use super::composed;
use super::custom::{Op, View, apply1, has_kernel};
use crate::kernels::Float;
use crate::kernels::pointwise::{Function, gradient, value};

struct Pointwise(Function);

impl Op<1> for Pointwise {
    const NAME: &'static str = "activation";

    fn name(&self) -> &'static str {
        match self.0 {
            Function::Relu => "relu",
            Function::Silu => "silu",
            Function::Gelu => "gelu",
            Function::Elu => "elu",
            Function::Softplus => "softplus",
            Function::Sigmoid => "sigmoid",
        }
    }

    fn forward<T: Float>(&self, [x]: [View<'_, T>; 1]) -> (Vec<T>, Shape) {
        (value(self.0, x.data), x.dims.into())
    }

    fn backward<T: Float>(&self, [x]: [View<'_, T>; 1], _: View<'_, T>, gy: &[T], _: [bool; 1]) -> [Option<Vec<T>>; 1] {
        [Some(gradient(self.0, x.data, gy))]
    }
}

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $variant:ident;)*) => { $(
        $(#[$doc])*
        ///
        /// # Errors
        /// An element type other than `f32` and `f64`.
        pub fn $name(x: &Tensor) -> Result<Tensor> {
            if !has_kernel(x) {
                return composed::$name(x);
            }
            apply1(Pointwise(Function::$variant), [x])
        }
    )* };
}

functions! {
    /// `max(x, 0)`; the derivative at 0 is 0.
    relu = Relu;
    /// `x · sigmoid(x)`, also known as swish.
    silu = Silu;
    /// `x · Φ(x)` with the standard Normal distribution function (the exact form, not the one with tanh).
    gelu = Gelu;
    /// `x` for `x > 0`, else `exp(x) − 1`.
    elu = Elu;
    /// `ln(1 + exp(x))`, stable for every `x`.
    softplus = Softplus;
    /// `1 / (1 + exp(−x))`.
    sigmoid = Sigmoid;
}
