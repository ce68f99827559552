use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The spatial extent of a latent: a line (text, audio) or a plane (images).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spatial {
    /// Length `L` of latents `[B, C, L]`.
    Line(usize),
    /// Height and width of latents `[B, C, H, W]`.
    Plane(usize, usize),
}

/// The shape of one latent without its batch dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatentShape {
    /// Number of channels `C`.
    pub channels: usize,
    /// Spatial extent.
    pub spatial: Spatial,
}

impl LatentShape {
    /// Latents `[B, channels, length]`.
    pub fn line(channels: usize, length: usize) -> Self {
        Self { channels, spatial: Spatial::Line(length) }
    }

    /// Latents `[B, channels, height, width]`.
    pub fn plane(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, spatial: Spatial::Plane(height, width) }
    }

    /// Tensor dimensions for a batch.
    pub fn dims(&self, batch: usize) -> Vec<usize> {
        match self.spatial {
            Spatial::Line(l) => vec![batch, self.channels, l],
            Spatial::Plane(h, w) => vec![batch, self.channels, h, w],
        }
    }

    /// Dimensions of one value per channel that broadcasts over a batch: `[1, C, 1(, 1)]`.
    pub fn channel_dims(&self) -> Vec<usize> {
        match self.spatial {
            Spatial::Line(_) => vec![1, self.channels, 1],
            Spatial::Plane(..) => vec![1, self.channels, 1, 1],
        }
    }

    /// Number of spatial positions.
    pub fn positions(&self) -> usize {
        match self.spatial {
            Spatial::Line(l) => l,
            Spatial::Plane(h, w) => h * w,
        }
    }

    /// Number of dimensions `D` of one latent.
    pub fn dim(&self) -> usize {
        self.channels * self.positions()
    }

    /// Check a tensor against this shape.
    ///
    /// # Errors
    /// [`Error::Contract`] that names `part` and both shapes.
    pub fn check(&self, part: &str, z: &Tensor) -> Result<()> {
        let batch = z.dims().first().copied().unwrap_or(0);
        if z.dims() == self.dims(batch) {
            return Ok(());
        }
        Err(Error::contract(part, format!("latents of shape {:?} instead of {:?}", z.dims(), self.dims(batch))))
    }
}

/// Latents of a batch, as a decoder takes them.
///
/// The score-based prior models `prior`. A hierarchical model with several spatial scales keeps the N(0, I) prior
/// for the latents of the other scales; those are `side`. An empty `side` asks the decoder to draw them.
#[derive(Debug, Clone)]
pub struct Latents {
    /// The latent that the score-based prior models, `[B, C, *spatial]`.
    pub prior: Tensor,
    /// Latents with a standard Normal prior, in the order in which the decoder takes them.
    pub side: Vec<Tensor>,
}

impl From<Tensor> for Latents {
    fn from(prior: Tensor) -> Self {
        Self { prior, side: Vec::new() }
    }
}
