//! Functions with parameters.
//!
//! A layer takes its parameters from [`lsgm_core::Params`] at construction; built on a frozen root it is a constant
//! function, and its backward pass computes the gradient of the input alone.

mod attention;
mod conv;
mod dropout;
mod embedding;
mod linear;
mod norm;
mod squeeze_excite;
mod time;

pub use attention::{MultiHeadAttention, SelfAttention2d};
pub use conv::{Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d};
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use linear::Linear;
pub use norm::{BatchNorm, GroupNorm, LayerNorm, RmsNorm, groups_for};
pub use squeeze_excite::SqueezeExcite;
pub use time::{TimeEmbedding, sinusoidal};
