//! Images: the NVAE backbone with everything that its published checkpoints need.
//!
//! * [`NvaeConfig`] describes an NVAE; [`NvaeConfig::from_published_args`] and [`published_name`] translate the published
//!   layout.

mod config;
mod published;

pub use config::{CellKind, ImageShape, NvaeConfig, PixelLikelihood};
pub use published::{PublishedName, SPECTRAL_STATE, published_image, published_name};
