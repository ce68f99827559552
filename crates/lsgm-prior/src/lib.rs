//! The score-based generative prior over latents: SDEs, mixed score, weightings, score networks, samplers and
//! likelihoods (Vahdat, Kreis and Kautz 2021, "Score-based generative modeling in latent space").
//!
//! [`Prior`] holds an SDE ([`Sde`]), a score network ([`ScoreNetwork`]) and the mixed score. Training goes through
//! [`Prior::sample_times`] and [`Prior::cross_entropy`]; sampling through [`solvers`]; densities through
//! [`ode_log_prob`]. Time arithmetic is done in `f64`; tensors are in the type of the latents.

pub mod networks;
pub mod solvers;

mod baseline;
mod config;
mod likelihood;
mod loss;
mod mixed;
mod prior;
mod sde;
mod weighting;

pub use config::{Prediction, PriorConfig};
pub use likelihood::{OdeLogProb, OdeOptions, Trace, ode_log_prob};
pub use loss::PriorLosses;
pub use mixed::MixedScore;
pub use networks::{NetworkConfig, ScoreNetwork};
pub use prior::{Guidance, Prior};
pub use sde::{Sde, SdeConfig};
pub use weighting::{Times, Weighting};
