//! Latent score-based generative models (LSGM) for data that is not a plain continuous image.
//!
//! An encoder turns items to continuous latents, a score-based prior models the latents, and a decoder turns them to a
//! likelihood over items; all three are trained end to end (Vahdat, Kreis and Kautz, arXiv 2106.05931).
//!
//! The contracts of `lsgm-core` stand at the root of this crate; the parts have a module each. A program of your own
//! with a kind of data of your own is a [`Modality`] and
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     lsgm::cli::main(lsgm::Registry::default())
//! }
//! ```
//!
//! with `.with::<MyModality>()` after the default registry.

pub use lsgm_cli::Registry;
pub use lsgm_core::{
    Arrangement, Artifact, Assets, Autoencoder, Batch, Dataset, Decoder, Encoder, Error, Group, Init, LatentShape,
    Latents, Likelihood, Modality, ParamStore, Params, Pass, Posterior, Result, Rng, RngState, Spatial, Split,
    Template, nats_to_bits, soft_clamp,
};

pub use lsgm_audio as audio;
pub use lsgm_binary as binary;
pub use lsgm_data as data;
pub use lsgm_engine as engine;
pub use lsgm_image as image;
pub use lsgm_import as import;
pub use lsgm_nn as nn;
pub use lsgm_prior as prior;
pub use lsgm_text as text;

/// The command line.
pub mod cli {
    pub use lsgm_cli::main;
}
