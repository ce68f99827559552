//! The element type of matrix products on a GPU.

use std::cell::Cell;

use serde::{Deserialize, Serialize};

/// In which numbers a GPU multiplies matrices: linear layers, convolutions, attention.
///
/// Parameters, activations, statistics, losses and the optimizer's state are `f32` in either case. A CPU always computes in
/// `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Factors rounded to `bf16`, sums in `f32`.
    Bf16,
}

thread_local! {
    static PRECISION: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// The precision of ops that this thread applies now.
pub(crate) fn precision() -> Precision {
    PRECISION.get()
}

/// Run `f` with matrix products in `precision`, forwards and on the way back.
pub fn with_precision<R>(precision: Precision, f: impl FnOnce() -> R) -> R {
    /// Ends when dropped, whatever happens.
    struct Outer(Precision);
    impl Drop for Outer {
        fn drop(&mut self) {
            PRECISION.set(self.0);
        }
    }
    let _outer = Outer(PRECISION.replace(precision));
    f()
}
