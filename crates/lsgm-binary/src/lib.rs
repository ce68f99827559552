//! Binarized images: a small residual VAE with a Bernoulli likelihood, and everything the toolkit needs to train it.
//!
//! Items are `[B, 1, H, W]` with values 0 and 1.

mod bernoulli;
mod blocks;
mod config;
mod modality;
mod plain;
mod render;

pub use bernoulli::Bernoulli;
pub use config::{ModelConfig, PlainConfig};
pub use modality::Binary;
pub use plain::PlainVae;
