//! Sound: a convolutional VAE on waveforms with likelihoods of 8-bit and 16-bit samples, and everything the toolkit needs
//! to train it.
//!
//! Items are clips `[B, 1, L]`: 16-bit samples over 32,768, multiples of 2⁻¹⁵ in [-1, 1).

mod blocks;
mod config;
mod head;
mod lapped;
mod measures;
mod mixture;
mod modality;
mod mu_law;
mod render;
mod spectral;
mod spectrum;
mod vae;

pub use config::{Activation, LikelihoodConfig, ModelConfig, StftConfig, WaveConfig};
pub use lapped::Lapped;
pub use measures::{log_spectral_distance, scale_invariant_ratio, stft_distance};
pub use mixture::LogisticMixture;
pub use modality::Audio;
pub use mu_law::MuLaw;
pub use spectral::StftDistance;
pub use spectrum::{LogMel, PowerSpectrum};
pub use vae::WaveVae;
