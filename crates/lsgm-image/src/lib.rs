//! Images: the NVAE backbone with everything that its published checkpoints need, likelihoods of pixels, picture sheets,
//! and the modality of grey and RGB images.
//!
//! * [`NvaeConfig`] describes an [`Nvae`]; [`NvaeConfig::from_published_args`] and [`published_name`] translate the
//!   published layout.
//! * [`Image`] is the modality `image`. Items are `[B, C, H, W]` in [0, 1].
//! * [`grid`] makes a PNG of items; binary images use it too.

mod config;
mod likelihood;
mod modality;
mod nvae;
mod published;
mod render;

pub use config::{CellKind, ImageShape, ModelConfig, NvaeConfig, PixelLikelihood};
pub use likelihood::{Bernoulli, DiscretizedLogistic, PixelNormal};
pub use modality::Image;
pub use nvae::{Inference, Nvae};
pub use published::{PublishedName, SPECTRAL_STATE, published_image, published_name};
pub use render::grid;
