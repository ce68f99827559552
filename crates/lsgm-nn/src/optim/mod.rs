//! Gradients and optimizers.

mod gradients;
mod optimizer;
mod slices;

pub use gradients::Gradients;
pub use optimizer::{Ema, Optimizer, OptimizerConfig, OptimizerKind};
