//! Gradients and optimizers.

mod composed;
mod gradients;
mod optimizer;
mod scale;
mod slices;

pub use gradients::Gradients;
pub use optimizer::{Ema, Optimizer, OptimizerConfig, OptimizerKind};
pub use scale::GradientScale;
