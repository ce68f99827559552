use candle_core::Tensor;
use lsgm_core::{Init, Params, Result};

use crate::ops;

/// A learned vector for each of `vocab` ids.
///
/// Parameter: `weight` `[vocab, dim]`, standard Normal.
#[derive(Debug, Clone)]
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// Build it.
    ///
    /// # Errors
    /// When the store has the parameter with another shape.
    pub fn new(vocab: usize, dim: usize, params: &Params) -> Result<Self> {
        Self::new_with(vocab, dim, Init::Normal(1.0), params)
    }

    /// With a given initialisation.
    ///
    /// # Errors
    /// As [`Embedding::new`].
    pub fn new_with(vocab: usize, dim: usize, weight: Init, params: &Params) -> Result<Self> {
        Ok(Self { weight: params.get("weight", (vocab, dim), weight)? })
    }

    /// Ids `[..]` (`u32`) to vectors `[.., dim]`.
    ///
    /// # Errors
    /// An id outside the table.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        ops::embedding(&self.weight, ids)
    }

    /// The table `[vocab, dim]`, for an output layer that shares it.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}
