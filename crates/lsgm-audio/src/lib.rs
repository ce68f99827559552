//! Sound: a convolutional VAE on waveforms with likelihoods of 8-bit and 16-bit samples, and everything the toolkit needs
//! to train it.
//!
//! Items are clips `[B, 1, L]`: 16-bit samples over 32,768, multiples of 2⁻¹⁵ in [-1, 1).

mod blocks;
mod config;
mod direct;
mod head;
mod lapped;
mod learned;
mod measures;
mod mixture;
mod modality;
mod mu_law;
mod render;
mod spectral;
mod spectrum;
mod vae;

pub use config::{Activation, LikelihoodConfig, ModelConfig, StftConfig, WaveConfig};
pub use mixture::LogisticMixture;
pub use modality::Audio;
pub use mu_law::MuLaw;
pub use vae::WaveVae;
