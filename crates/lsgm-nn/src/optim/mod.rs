//! Gradients and optimizers.

mod composed;
mod gradients;
mod optimizer;
mod scale;
mod slices;
mod spectral;

pub use gradients::Gradients;
pub use optimizer::{Ema, Optimizer, OptimizerConfig, OptimizerKind};
pub use scale::GradientScale;
pub use spectral::SpectralPenalty;
