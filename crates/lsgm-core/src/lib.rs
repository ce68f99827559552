//! The contracts of the lsgm toolkit.
//!
//! A *modality* ([`Modality`]) turns its own items into tensors ([`Dataset`], [`Batch`]), encodes them to a
//! possibly hierarchical [`Posterior`] over continuous latents ([`Encoder`]), decodes latents to a [`Likelihood`]
//! ([`Decoder`]), and renders items to something a person can look at ([`Artifact`]). The training engine and
//! the score-based prior see these traits and nothing else.
//!
//! This crate holds no layers and touches no files.

mod accelerator;
mod batch;
mod error;
mod latent;
mod likelihood;
mod measure;
mod modality;
mod model;
mod params;
mod posterior;
mod resident;
mod rng;

pub use accelerator::{Accelerator, install_accelerator, upload};
pub use batch::{Batch, Dataset, Split, spread_indices};
pub use error::{Error, Result};
pub use latent::{LatentShape, Latents, Spatial};
pub use likelihood::{Likelihood, nats_to_bits};
pub use measure::{Measure, Yardstick};
pub use modality::{Arrangement, Artifact, Assets, Modality, Template};
pub use model::{Autoencoder, Auxiliary, Decoder, Decoding, Encoder, Pass};
pub use params::{Init, ParamStore, Params};
pub use posterior::{Group, LatentNormal, Posterior, soft_clamp};
pub use resident::{Finish, Resident};
pub use rng::{Draws, Rng, RngState};
