//! Text: discrete tokens in, continuous latents between, discrete tokens out.
//!
//! Items are `[B, L]` token ids (`u32`). A text that is shorter than `L` ends with the end-of-text token; what follows it
//! is filled with the same token and counts for nothing, so that the likelihood of an item is that of its text, length
//! included: the probability that decoding yields these tokens and then ends.
//!
//! * [`Tokenizer`]: characters, bytes, BPE or unigram fitted to the corpus, or one that is given;
//! * [`Corpus`]: entries of a source as items of `L` tokens;
//! * [`TextVae`]: a transformer encoder to latents `[B, C, L / r]` and a decoder, parallel or autoregressive.

mod autoencoder;
mod autoregressive;
mod blocks;
mod categorical;
mod config;
mod corpus;
mod error;
mod fit;
mod measures;
mod modality;
mod ngram;
mod render;
mod statistics;
mod template;
mod tokenizer;

pub use autoencoder::TextVae;
pub use categorical::Categorical;
pub use config::{
    DecoderKind, Fitted, Fixed, Given, ModelConfig, Overlong, Positions, TextConfig, TokenizerConfig, TransformerConfig,
};
pub use corpus::{Corpus, Counts};
pub use error::TextError;
pub use modality::Text;
pub use tokenizer::Tokenizer;
