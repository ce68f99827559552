//! Checkpoints of the published LSGM and NVAE code, as weights and configs of this toolkit.
//!
//! * [`read`] takes a `.safetensors`, `.pt` or `.pth` file, or a folder of them, to a [`Checkpoint`]: the `args` that a
//!   model was made with, and its tensors under their published names. Pickles are read without running anything.
//! * [`autoencoder`] and [`prior`] turn `args` and names to an [`lsgm_image::NvaeConfig`], a [`lsgm_prior::PriorConfig`]
//!   and our names, and recompute the outputs that a file carries; [`config`] does the rest of a run's config.
//! * [`fit`] compares tensors with a model, and names each one that is missing, unknown or of another shape.
//!
//! This crate knows files, names and architectures; it does not know runs, training or the command line.

mod args;
pub mod autoencoder;
mod check;
mod checkpoint;
pub mod config;
mod error;
mod fit;
mod pickle;
pub mod prior;
mod storage;
mod torch;

pub use check::Check;
pub use checkpoint::{Checkpoint, Half, Tensors, read};
pub use error::{ImportError, Result};
pub use fit::{Part, Place, averaged, fit};
