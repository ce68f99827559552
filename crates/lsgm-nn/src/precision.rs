//! In which numbers a GPU computes.

use std::cell::Cell;

use candle_core::{DType, Tensor};
use lsgm_core::Result;
use serde::{Deserialize, Serialize};

use crate::ops::has_kernel;

/// In which numbers a GPU keeps activations and multiplies matrices.
///
/// Parameters, statistics, losses and the optimizer's state are `f32` in every case. A CPU always computes in `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Factors of products rounded to ten binary digits by GPUs that know TF32 (from compute capability 8.0 on), all else in
    /// `f32`.
    Tf32,
    /// Activations and factors of products in `bf16`, sums in `f32`.
    Bf16,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::Bf16];

    /// The name in configs and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

thread_local! {
    static PRECISION: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// The precision of ops that this thread applies now.
pub(crate) fn precision() -> Precision {
    PRECISION.get()
}

/// `x` as the body of a network keeps it: `bf16` on a GPU where the precision of the pass says so, else `x` itself.
///
/// A body begins with this and ends with [`full_precision`]; the ops between the two take activations in `bf16` together with
/// parameters in `f32`. Plain tensor operations take one type only.
///
/// # Errors
/// A failed tensor operation.
pub fn lower_precision(x: &Tensor) -> Result<Tensor> {
    if precision() != Precision::Bf16 || x.dtype() != DType::F32 || has_kernel(x) {
        return Ok(x.clone());
    }
    Ok(x.to_dtype(DType::BF16)?)
}

/// `x` in `f32` where it is in `bf16`: what a body hands out.
///
/// # Errors
/// A failed tensor operation.
pub fn full_precision(x: &Tensor) -> Result<Tensor> {
    Ok(if x.dtype() == DType::BF16 { x.to_dtype(DType::F32)? } else { x.clone() })
}

/// Run `f` in `precision`. A backward pass has the precision in which it is run; the types of the tensors that it goes through
/// are those of the forward pass. Whether matrices are multiplied in TF32 is one word for all threads of the process.
pub fn with_precision<R>(precision: Precision, f: impl FnOnce() -> R) -> R {
    /// Ends when dropped, whatever happens.
    struct Outer(Precision);
    impl Drop for Outer {
        fn drop(&mut self) {
            set(self.0);
        }
    }
    let _outer = Outer(set(precision));
    f()
}

/// Compute in `precision` from now on; returns what was before.
fn set(precision: Precision) -> Precision {
    // candle has one word for all threads.
    candle_core::cuda::set_gemm_reduced_precision_f32(precision == Precision::Tf32);
    PRECISION.replace(precision)
}
