//! Distributions over pixels, for values in [0, 1].

mod bernoulli;
mod logistic;
mod normal;

use candle_core::Tensor;
use lsgm_core::Likelihood;
use lsgm_nn::ops::LogisticForm;

pub use bernoulli::Bernoulli;
pub use logistic::DiscretizedLogistic;
pub use normal::PixelNormal;

use crate::config::{ImageShape, PixelLikelihood};

/// Components of a mixture.
const COMPONENTS: usize = 10;

/// A distribution over the pixels of an image whose parameters a network gives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PixelDistribution {
    kind: PixelLikelihood,
    channels: usize,
    levels: usize,
}

impl PixelDistribution {
    pub(crate) fn new(kind: PixelLikelihood, image: &ImageShape) -> Self {
        Self { kind, channels: image.channels, levels: 1 << image.bits }
    }

    /// Number of parameters at each position.
    pub(crate) fn parameters(&self) -> usize {
        match self.kind {
            PixelLikelihood::Bernoulli => self.channels,
            PixelLikelihood::Normal => 2 * self.channels,
            PixelLikelihood::Logistic => LogisticForm::Single.parameters(self.channels),
            PixelLikelihood::LogisticMixture => LogisticForm::Mixture(COMPONENTS).parameters(self.channels),
        }
    }

    /// The distribution with parameters `[B, P, H, W]`.
    pub(crate) fn with(&self, parameters: Tensor) -> Box<dyn Likelihood> {
        let logistic =
            |parameters, form| Box::new(DiscretizedLogistic::new(parameters, self.channels, self.levels, form));
        match self.kind {
            PixelLikelihood::Bernoulli => Box::new(Bernoulli::new(parameters)),
            PixelLikelihood::Normal => Box::new(PixelNormal::new(parameters)),
            PixelLikelihood::Logistic => logistic(parameters, LogisticForm::Single),
            PixelLikelihood::LogisticMixture => logistic(parameters, LogisticForm::Mixture(COMPONENTS)),
        }
    }
}
