//! Layers, kernels with hand-written backward passes, optimizers and initialisers for training with candle.
//!
//! * [`ops`]: differentiable functions of tensors;
//! * layers such as [`Linear`] and [`Conv2d`]: functions with parameters, built from [`lsgm_core::Params`];
//! * [`backward`]: the backward pass; [`checkpoint`]: with less memory;
//! * [`Categorical`]: the likelihood of items that are ids;
//! * [`optim`]: gradients and optimizers;
//! * [`init`]: how parameters start;
//! * [`gpu`]: the GPUs of this machine; [`device`]: the kernels for them, as tests run them.
//!
//! Results do not depend on the number of threads, bit for bit: work is cut by shape alone.

mod awake;
mod backward;
mod categorical;
mod checkpoint;
pub mod gpu;
pub mod init;
mod layers;
pub mod ops;
pub mod optim;
mod precision;

// Kernels run over several slices in step, by index, and take the slices of an operation one by one.
#[allow(clippy::needless_range_loop, clippy::too_many_arguments)]
mod kernels;

pub use awake::Awake;
pub use backward::backward;
pub use categorical::Categorical;
pub use checkpoint::{checkpoint, checkpoint_in, with_checkpoints};
pub use kernels::InstructionSet;
pub use kernels::device;
pub use layers::*;
pub use ops::Activation;
pub use precision::{Precision, full_precision, lower_precision, with_precision};
