//! What a condition of each item does to its rows: adaptive layer norm and gates (Peebles and Xie 2023, "Scalable diffusion
//! models with transformers").

use std::sync::OnceLock;

use candle_core::{Shape, Tensor};
use lsgm_core::Result;

use super::composed;
use super::custom::{Op, View, apply3, fault, has_kernel, keep};
use crate::kernels::Float;
use crate::kernels::gate::{add_gated, add_gated_gradients};
use crate::kernels::norm::{Moments, Rows, modulated_backward, modulated_forward};

/// Layer normalisation of each row of `x: [B, L, D]` without parameters of its own, times `1 + scale`, plus `shift`, both
/// `[B, 1, D]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn modulated_layer_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, eps: f64) -> Result<Tensor> {
    let width = check("modulated_layer_norm", x, &[scale, shift])?;
    if !has_kernel(x) {
        return composed::modulated_layer_norm(x, scale, shift, eps);
    }
    let sizes = Rows { width, eps, centered: true };
    apply3(ModulatedNorm { sizes, saved: OnceLock::new() }, [x, scale, shift])
}

/// `x + branch · gate` for `x` and `branch` `[B, L, D]` and gates `[B, 1, D]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn gated_sum(x: &Tensor, branch: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let width = check("gated_sum", x, &[gate])?;
    if branch.dims() != x.dims() {
        return Err(fault("gated_sum", format!("a branch {:?} beside {:?}", branch.dims(), x.dims())));
    }
    if !has_kernel(x) {
        return composed::gated_sum(x, branch, gate);
    }
    apply3(GatedSum { width }, [x, branch, gate])
}

/// The width of rows that fit the conditions.
fn check(op: &str, x: &Tensor, conditions: &[&Tensor]) -> Result<usize> {
    match x.dims() {
        [batch, _, width] if conditions.iter().all(|c| c.dims() == [*batch, 1, *width]) => Ok(*width),
        dims => {
            let conditions: Vec<_> = conditions.iter().map(|c| c.dims()).collect();
            Err(fault(op, format!("input {dims:?} must be [B, L, D], and {conditions:?} [B, 1, D]")))
        }
    }
}

struct ModulatedNorm {
    sizes: Rows,
    saved: OnceLock<Moments>,
}

impl Op<3> for ModulatedNorm {
    const NAME: &'static str = "modulated_layer_norm";

    fn forward<T: Float>(&self, [x, scale, shift]: [View<'_, T>; 3]) -> (Vec<T>, Shape) {
        let (y, moments) = modulated_forward(&self.sizes, x.data, scale.data, shift.data);
        self.saved.get_or_init(|| moments);
        (y, x.dims.into())
    }

    fn backward<T: Float>(
        &self,
        [x, scale, _]: [View<'_, T>; 3],
        _: View<'_, T>,
        gy: &[T],
        needed: [bool; 3],
    ) -> [Option<Vec<T>>; 3] {
        let g = modulated_backward(&self.sizes, x.data, scale.data, self.saved.get_or_init(Vec::new), gy);
        keep(needed, [g.x, g.gamma, g.beta])
    }
}

struct GatedSum {
    width: usize,
}

impl Op<3> for GatedSum {
    const NAME: &'static str = "gated_sum";

    fn forward<T: Float>(&self, [x, branch, gate]: [View<'_, T>; 3]) -> (Vec<T>, Shape) {
        (add_gated(x.data, branch.data, gate.data, self.width), x.dims.into())
    }

    fn backward<T: Float>(
        &self,
        [_, branch, gate]: [View<'_, T>; 3],
        _: View<'_, T>,
        gy: &[T],
        needed: [bool; 3],
    ) -> [Option<Vec<T>>; 3] {
        let (of_branch, of_gate) = add_gated_gradients(branch.data, gate.data, gy, self.width);
        [needed[0].then(|| gy.to_vec()), needed[1].then_some(of_branch), needed[2].then_some(of_gate)]
    }
}
