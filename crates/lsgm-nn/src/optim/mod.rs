//! Gradients and optimizers.

mod composed;
mod device;
mod gradients;
mod norm_penalty;
mod optimizer;
mod scale;
mod slices;

pub use gradients::Gradients;
pub use norm_penalty::NormPenalty;
pub use optimizer::{Ema, Optimizer, OptimizerConfig, OptimizerKind};
pub use scale::GradientScale;
