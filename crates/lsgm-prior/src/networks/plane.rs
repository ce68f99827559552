use candle_core::Tensor;
use lsgm_core::{Error, LatentShape, Result, Spatial};
use lsgm_nn::ops::{Conv2dConfig, upsample_nearest1d, upsample_nearest2d};

/// The grid that a convolutional network works on. A line is a plane of height 1, so that one network serves latents
/// `[B, C, L]` and `[B, C, H, W]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plane {
    line: bool,
    /// Height and width.
    pub(crate) size: (usize, usize),
}

impl Plane {
    pub(crate) fn new(shape: &LatentShape) -> Self {
        match shape.spatial {
            Spatial::Line(length) => Self { line: true, size: (1, length) },
            Spatial::Plane(height, width) => Self { line: false, size: (height, width) },
        }
    }

    /// The grid of half the size, rounded up.
    pub(crate) fn half(self) -> Self {
        Self { size: (self.size.0.div_ceil(2), self.size.1.div_ceil(2)), ..self }
    }

    /// Whether the latents are `[B, C, L]`.
    pub(crate) fn is_line(self) -> bool {
        self.line
    }

    /// The shorter side, of a line its length.
    pub(crate) fn shortest(self) -> usize {
        if self.line { self.size.1 } else { self.size.0.min(self.size.1) }
    }

    /// A kernel of extent `k` along each dimension of the latent.
    pub(crate) fn kernel(self, k: usize) -> (usize, usize) {
        if self.line { (1, k) } else { (k, k) }
    }

    /// Convolution of extent `k` and stride `s` along each dimension, which keeps the size for `s = 1`.
    pub(crate) fn conv(self, k: usize, s: usize) -> Conv2dConfig {
        Conv2dConfig::same(self.kernel(k)).with_stride(self.kernel(s))
    }

    /// Latents to `[B, C, H, W]`.
    pub(crate) fn enter(self, z: &Tensor) -> Result<Tensor> {
        Ok(if self.line { z.unsqueeze(2)? } else { z.clone() })
    }

    /// `[B, C, H, W]` back to the layout of latents.
    pub(crate) fn leave(self, x: &Tensor) -> Result<Tensor> {
        Ok(if self.line { x.squeeze(2)? } else { x.clone() })
    }

    /// Double the size of `x` by repetition, then cut it to this grid, which may be odd.
    pub(crate) fn double(self, x: &Tensor) -> Result<Tensor> {
        let x =
            if self.line { upsample_nearest1d(&x.squeeze(2)?, 2)?.unsqueeze(2)? } else { upsample_nearest2d(x, 2)? };
        self.crop(&x)
    }

    /// The part of `x` that lies on this grid.
    pub(crate) fn crop(self, x: &Tensor) -> Result<Tensor> {
        let (height, width) = self.size;
        let (_, _, h, w) = x.dims4()?;
        if h < height || w < width {
            return Err(Error::contract(
                "score network",
                format!("a feature map {h}x{w} cannot cover {height}x{width}"),
            ));
        }
        let x = if h > height { x.narrow(2, 0, height)? } else { x.clone() };
        Ok(if w > width { x.narrow(3, 0, width)? } else { x })
    }
}
