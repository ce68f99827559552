//! Binarized images: a small residual VAE or an NVAE, with a Bernoulli likelihood, and everything the toolkit needs to
//! train them.
//!
//! Items are `[B, 1, H, W]` with values 0 and 1.

mod blocks;
mod config;
mod modality;
mod plain;

pub use config::{ModelConfig, PlainConfig};
pub use lsgm_image::Bernoulli;
pub use modality::Binary;
pub use plain::PlainVae;
