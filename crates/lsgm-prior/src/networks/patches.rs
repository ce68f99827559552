//! Latents cut to tokens and put together again.

use candle_core::Tensor;
use lsgm_core::{LatentShape, Result, Spatial};

/// How latents are cut to tokens, row by row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patches {
    channels: usize,
    spatial: Spatial,
    side: usize,
}

impl Patches {
    pub(super) fn new(shape: &LatentShape, side: usize) -> Self {
        Self { channels: shape.channels, spatial: shape.spatial, side }
    }

    /// Number of tokens.
    pub(super) fn count(self) -> usize {
        match self.spatial {
            Spatial::Line(length) => length / self.side,
            Spatial::Plane(height, width) => (height / self.side) * (width / self.side),
        }
    }

    /// Latent values in a token.
    pub(super) fn width(self) -> usize {
        match self.spatial {
            Spatial::Line(_) => self.channels * self.side,
            Spatial::Plane(..) => self.channels * self.side * self.side,
        }
    }

    /// Latents to tokens `[B, count, width]`.
    pub(super) fn split(self, z: &Tensor) -> Result<Tensor> {
        let (batch, channels, p) = (z.dim(0)?, self.channels, self.side);
        let cut = match self.spatial {
            Spatial::Line(length) => z.reshape((batch, channels, length / p, p))?.permute((0, 2, 1, 3))?,
            Spatial::Plane(height, width) => {
                z.reshape(vec![batch, channels, height / p, p, width / p, p])?.permute(vec![0, 2, 4, 1, 3, 5])?
            }
        };
        Ok(cut.reshape((batch, self.count(), self.width()))?)
    }

    /// Tokens back to latents.
    pub(super) fn merge(self, tokens: &Tensor, batch: usize) -> Result<Tensor> {
        let (channels, p) = (self.channels, self.side);
        Ok(match self.spatial {
            Spatial::Line(length) => tokens
                .reshape((batch, length / p, channels, p))?
                .permute((0, 2, 1, 3))?
                .reshape((batch, channels, length))?,
            Spatial::Plane(height, width) => tokens
                .reshape(vec![batch, height / p, width / p, channels, p, p])?
                .permute(vec![0, 3, 1, 4, 2, 5])?
                .reshape((batch, channels, height, width))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use lsgm_core::Rng;

    #[test]
    fn cutting_to_patches_loses_nothing() {
        for (shape, side, count) in [(LatentShape::plane(3, 4, 6), 2, 6), (LatentShape::line(3, 6), 3, 2)] {
            let patches = Patches::new(&shape, side);
            let z = Rng::new(1).normal_tensor(shape.dims(2), DType::F64, &Device::Cpu).unwrap();
            let tokens = patches.split(&z).unwrap();
            assert_eq!(tokens.dims(), [2, count, patches.width()]);
            let back = patches.merge(&tokens, 2).unwrap();
            assert_eq!(
                back.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
                z.flatten_all().unwrap().to_vec1::<f64>().unwrap()
            );
        }
    }
}
