//! The score-based generative prior: SDEs, mixed score, weightings, score networks, samplers and likelihoods.

mod sde;
mod weighting;

pub use sde::{Sde, SdeConfig};
pub use weighting::{Times, Weighting};
