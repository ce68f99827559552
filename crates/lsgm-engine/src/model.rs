use std::sync::Arc;

use lsgm_core::{Autoencoder, LatentShape, ParamStore, Params, Result};
use lsgm_prior::{Prior, PriorConfig};

/// Builds an encoder and decoder on given parameters.
pub(crate) type BuildAutoencoder = dyn Fn(&Params) -> Result<Box<dyn Autoencoder>> + Send + Sync;

/// What a model is made of. It can be built several times: once to train, once on moving-average weights.
#[derive(Clone)]
pub struct ModelSpec {
    /// Builds encoder and decoder, usually `Modality::build`.
    pub autoencoder: Arc<BuildAutoencoder>,
    /// The score-based prior.
    pub prior: PriorConfig,
}

/// An autoencoder and the score-based prior over its latents.
pub struct Model {
    /// Encoder and decoder; parameters below `encoder.` and `decoder.`.
    pub autoencoder: Box<dyn Autoencoder>,
    /// The prior; parameters below `prior.`.
    pub prior: Prior,
}

impl ModelSpec {
    /// Build the model on parameters below `root`.
    pub fn build(&self, root: &Params) -> Result<Model> {
        let autoencoder = (self.autoencoder)(root)?;
        let shape = autoencoder.latent_shape();
        self.prior.validate(&shape)?;
        let prior = Prior::new(&self.prior, shape, &root.pp("prior"))?;
        Ok(Model { autoencoder, prior })
    }

    /// Build the model for evaluation on the values in `store`.
    pub fn build_frozen(&self, store: &ParamStore) -> Result<Model> {
        self.build(&store.frozen_root())
    }
}

impl Model {
    /// The shape of the latent that the prior models.
    pub fn latent_shape(&self) -> LatentShape {
        self.autoencoder.latent_shape()
    }
}

impl std::fmt::Debug for ModelSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelSpec").field("prior", &self.prior).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("latent", &self.latent_shape()).finish_non_exhaustive()
    }
}
