//! Latent score-based generative models (LSGM) for data that is not a plain continuous image.
//!
//! An encoder turns items to continuous latents, a score-based prior models the latents, and a decoder turns them to a
//! likelihood over items; all three are trained end to end (Vahdat, Kreis and Kautz, arXiv 2106.05931).
//!
//! The contracts of `lsgm-core` stand at the root of this crate, with the tensors of candle that they speak of; the parts
//! have a module each. A program of your own with a kind of data of your own is a [`Modality`] and
//!
//! ```no_run
//! #[global_allocator]
//! static ALLOCATOR: lsgm::Allocator = lsgm::Allocator;
//!
//! fn main() -> std::process::ExitCode {
//!     lsgm::cli::main(lsgm::Registry::default())
//! }
//! ```
//!
//! with `.with::<MyModality>()` after the default registry. `lsgm new-modality NAME DIR` writes such a program to begin
//! with; `docs/add-a-modality.md` in the repository goes on from there.

pub mod cli;

pub use candle_core::{DType, Device, Tensor};
pub use lsgm_cli::Registry;
pub use lsgm_core::{
    Arrangement, Artifact, Assets, Autoencoder, Batch, Dataset, Decoder, Decoding, Encoder, Error, Group, Init,
    LatentShape, Latents, Likelihood, Measure, Modality, ParamStore, Params, Pass, Posterior, Result, Rng, RngState,
    Spatial, Split, Template, Yardstick, nats_to_bits, soft_clamp,
};
/// The allocator of the `lsgm` binary. Training frees and takes large buffers at every step; this one keeps them.
pub use mimalloc::MiMalloc as Allocator;

pub use lsgm_audio as audio;
pub use lsgm_binary as binary;
pub use lsgm_data as data;
pub use lsgm_engine as engine;
pub use lsgm_image as image;
pub use lsgm_import as import;
pub use lsgm_nn as nn;
pub use lsgm_prior as prior;
pub use lsgm_text as text;

/// What the file of a modality needs: `use lsgm::prelude::*;`.
pub mod prelude {
    pub use crate::nn::{self, Categorical, ops};
    pub use crate::{
        Arrangement, Artifact, Assets, Autoencoder, Batch, DType, Dataset, Decoder, Device, Encoder, Error,
        LatentShape, Latents, Likelihood, Measure, Modality, Params, Pass, Posterior, Result, Rng, Split, Tensor,
        Yardstick, soft_clamp,
    };
    pub use std::path::Path;
}
