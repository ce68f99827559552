//! Scaled-dot-product attention.

use std::sync::OnceLock;

use candle_core::{Shape, Tensor};
use lsgm_core::Result;

use super::composed;
use super::custom::{Op, View, apply3, fault, has_kernel, keep};
use crate::kernels::Float;
use crate::kernels::attention::{Sizes, backward, forward};

/// `softmax(scale · q · kᵀ) · v` for `q: [B, H, L, D]` and `k, v: [B, H, M, D]`: `[B, H, L, D]`.
///
/// The memory is linear in `L` and `M`. `scale` is `1/√D` in Vaswani et al. (2017).
///
/// # Errors
/// Shapes that do not fit.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
    let sizes = match (q.dims(), k.dims()) {
        (&[b, h, queries, dim], &[kb, kh, keys, kd]) if (b, h, dim) == (kb, kh, kd) && k.dims() == v.dims() => {
            Sizes { queries, keys, dim, scale }
        }
        _ => {
            let (q, k, v) = (q.dims(), k.dims(), v.dims());
            return Err(fault(
                "attention",
                format!("queries {q:?}, keys {k:?} and values {v:?} must be [B, H, L, D], [B, H, M, D], [B, H, M, D]"),
            ));
        }
    };
    if !has_kernel(q) {
        return composed::attention(q, k, v, scale);
    }
    apply3(Attention { sizes, log_sums: OnceLock::new() }, [q, k, v])
}

struct Attention {
    sizes: Sizes,
    /// Logarithm of the sum of exponentials of each row of scores, kept for the backward pass.
    log_sums: OnceLock<Vec<f64>>,
}

impl Op<3> for Attention {
    const NAME: &'static str = "attention";

    fn forward<T: Float>(&self, [q, k, v]: [View<'_, T>; 3]) -> (Vec<T>, Shape) {
        let (y, log_sums) = forward(&self.sizes, q.data, k.data, v.data);
        self.log_sums.get_or_init(|| log_sums.into_iter().map(T::to_f64).collect());
        (y, q.dims.into())
    }

    fn backward<T: Float>(
        &self,
        [q, k, v]: [View<'_, T>; 3],
        y: View<'_, T>,
        gy: &[T],
        needed: [bool; 3],
    ) -> [Option<Vec<T>>; 3] {
        let log_sums: Vec<T> = self.log_sums.get_or_init(Vec::new).iter().map(|v| T::of(*v)).collect();
        let (dq, dk, dv) = backward(&self.sizes, [q.data, k.data, v.data], y.data, &log_sums, gy);
        keep(needed, [dq, dk, dv])
    }
}
