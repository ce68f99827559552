//! The step of one parameter composed of tensor operations, for devices without kernels of this crate.

use candle_core::{Tensor, Var};
use lsgm_core::Result;

use super::GradientScale;
use crate::kernels::optimizer::{Rule, Step};

/// A gradient times the factor on all of them.
pub(super) fn scaled(gradient: &Tensor, scale: &GradientScale) -> Result<Tensor> {
    Ok(match scale {
        GradientScale::Number(factor) => (gradient * *factor)?,
        GradientScale::OnDevice(factor) => gradient.broadcast_mul(&factor.to_dtype(gradient.dtype())?)?,
    })
}

/// Moves a parameter by its gradient, and returns the new moments.
pub(super) fn update(step: &Step, var: &Var, g: &Tensor, m: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
    let p = var.as_detached_tensor();
    let g =
        if step.rule == Rule::AdamW || step.weight_decay == 0.0 { g.clone() } else { (g + (&p * step.weight_decay)?)? };
    let m = ((m * step.beta1)? + (&g * (1.0 - step.beta1))?)?;
    let rate = step.lr / step.correction.0;
    let (v, new) = match step.rule {
        Rule::Adam | Rule::AdamW => {
            let keep = if step.rule == Rule::AdamW { 1.0 - step.lr * step.weight_decay } else { 1.0 };
            let v = ((v * step.beta2)? + (g.sqr()? * (1.0 - step.beta2))?)?;
            let size = ((v.sqrt()? / step.correction.1.sqrt())? + step.eps)?;
            let new = ((p * keep)? - ((&m * rate)? / size)?)?;
            (v, new)
        }
        Rule::Adamax => {
            let v = (v * step.beta2)?.maximum(&(g.abs()? + step.eps)?)?;
            let new = (p - ((&m * rate)? / &v)?)?;
            (v, new)
        }
    };
    var.set(&new)?;
    Ok((m, v))
}

/// `average ← decay · average + (1 − decay) · parameter`.
pub(super) fn follow(average: &Var, parameter: &Var, decay: f64) -> Result<()> {
    let p = parameter.as_detached_tensor();
    Ok(average.set(&(((average.as_detached_tensor() - &p)? * decay)? + p)?)?)
}
