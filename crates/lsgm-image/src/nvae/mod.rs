//! NVAE (Vahdat and Kautz 2020, arXiv 2007.03898).

mod cell;
mod decoder;
mod encoder;
mod flow;
mod layers;

use std::cell::RefCell;

use candle_core::Tensor;
use lsgm_core::{
    Autoencoder, Decoder, Decoding, Encoder, Error, Group, LatentShape, Latents, Likelihood, Params, Pass, Posterior,
    Result, Rng,
};

use crate::config::{ImageShape, NvaeConfig};
use crate::likelihood::PixelDistribution;
use decoder::{Above, TopDown};
use encoder::BottomUp;
use layers::{Penalty, Site};

/// An NVAE for images `[B, C, H, W]` with values in [0, 1].
///
/// Parameters are named `encoder.` or `decoder.` and then as in published checkpoints; see
/// [`published_name`](crate::published_name).
pub struct Nvae {
    image: ImageShape,
    padding: usize,
    shape: LatentShape,
    groups_per_scale: usize,
    latent_channels: usize,
    bottom_up: BottomUp,
    top_down: TopDown,
    distribution: PixelDistribution,
    penalty: Penalty,
}

/// What a pass through encoder and decoder gives.
#[derive(Debug, Clone)]
pub struct Inference {
    /// Every group's posterior and sample, in the order in which the decoder takes them.
    pub posterior: Posterior,
    /// The parameters of the likelihood with padding, `[B, P, H + 2·padding, W + 2·padding]`.
    pub logits: Tensor,
}

impl Nvae {
    /// Build for images of `image`.
    ///
    /// # Errors
    /// A config that is not valid for them; a store that has a parameter with another shape.
    pub fn new(config: &NvaeConfig, image: ImageShape, params: &Params) -> Result<Self> {
        config.validate(&image)?;
        let shape = config.latent_shape(&image);
        let (height, width) = config.padded(&image);
        let smallest = (height >> config.halvings(), width >> config.halvings());
        let distribution = PixelDistribution::new(config.likelihood_of(&image), &image);
        let penalty = RefCell::new(Penalty::default());
        let site = |side: &str| Site::new(params.pp(side), &penalty);
        let bottom_up = BottomUp::new(config, &image, &site("encoder"))?;
        let top_down = TopDown::new(config, smallest, distribution.parameters(), &site("decoder"))?;
        Ok(Self {
            image,
            padding: config.padding,
            shape,
            groups_per_scale: config.groups_per_scale,
            latent_channels: config.latent_channels,
            bottom_up,
            top_down,
            distribution,
            penalty: penalty.into_inner(),
        })
    }

    /// Encode `x: [B, C, H, W]` in [0, 1] and decode the sample that standard Normal draws lead to; `noise` makes the
    /// draw for a group of a shape.
    ///
    /// # Errors
    /// Images of another shape; a draw of another shape.
    pub fn infer(
        &self,
        x: &Tensor,
        training: bool,
        noise: &mut dyn FnMut(usize, &[usize]) -> Result<Tensor>,
    ) -> Result<Inference> {
        let (posterior, above) = self.posterior(x, training, noise)?;
        Ok(Inference { posterior, logits: self.top_down.below(&above, training)? })
    }

    /// The posterior of all groups, and where the top-down tower stands then.
    fn posterior(
        &self,
        x: &Tensor,
        training: bool,
        noise: &mut dyn FnMut(usize, &[usize]) -> Result<Tensor>,
    ) -> Result<(Posterior, Above)> {
        let features = self.bottom_up.forward(&self.scaled(x)?, training)?;
        let mut groups: Vec<Group> = Vec::new();
        let above = self.top_down.above(x.dim(0)?, training, &mut |group, state| {
            let posterior = self.bottom_up.posterior(group, &features, state, noise)?;
            let z = posterior.z.clone();
            groups.push(posterior);
            Ok(z)
        })?;
        Ok((Posterior { groups }, above))
    }

    /// The parameters of the likelihood, with padding, for latents of every group; groups of the larger sizes for which
    /// `z.side` has none are drawn from N(0, I).
    ///
    /// # Errors
    /// Latents of another shape.
    pub fn generate(&self, z: &Latents, training: bool, rng: &mut Rng) -> Result<Tensor> {
        self.shape.check("decoder", &z.prior)?;
        let channels = self.latent_channels;
        self.top_down.forward(z.prior.dim(0)?, training, &mut |group, state| {
            let Some(side) = group.checked_sub(self.groups_per_scale) else {
                return Ok(z.prior.narrow(1, group * channels, channels)?.contiguous()?);
            };
            let (batch, _, height, width) = state.dims4()?;
            let dims = [batch, channels, height, width];
            match z.side.get(side) {
                None => rng.normal_tensor(dims.as_slice(), z.prior.dtype(), state.device()),
                Some(z) if z.dims() == dims => Ok(z.clone()),
                Some(z) => {
                    Err(Error::contract("decoder", format!("side latents of {:?} instead of {dims:?}", z.dims())))
                }
            }
        })
    }

    /// The likelihood with parameters `logits` as of [`Nvae::infer`] and [`Nvae::generate`].
    pub fn likelihood(&self, logits: &Tensor) -> Result<Box<dyn Likelihood>> {
        let cropped = match self.padding {
            0 => logits.clone(),
            p => logits.narrow(2, p, self.image.height)?.narrow(3, p, self.image.width)?.contiguous()?,
        };
        Ok(self.distribution.with(cropped))
    }

    /// Padded, and from [0, 1] to [-1, 1].
    fn scaled(&self, x: &Tensor) -> Result<Tensor> {
        let ImageShape { channels, height, width, .. } = self.image;
        if !matches!(x.dims(), [_, c, h, w] if (*c, *h, *w) == (channels, height, width)) {
            let message = format!("images of shape {:?} instead of [B, {channels}, {height}, {width}]", x.dims());
            return Err(Error::contract("encoder", message));
        }
        let padded = match self.padding {
            0 => x.clone(),
            p => x.pad_with_zeros(2, p, p)?.pad_with_zeros(3, p, p)?,
        };
        Ok(padded.affine(2.0, -1.0)?)
    }
}

impl Encoder for Nvae {
    fn latent_shape(&self) -> LatentShape {
        self.shape
    }

    fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
        Ok(self.posterior(x, pass.training, &mut draws(pass.rng, x))?.0)
    }
}

impl Decoder for Nvae {
    fn decode(&self, z: &Latents, pass: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
        self.likelihood(&self.generate(z, pass.training, pass.rng)?)
    }
}

impl Autoencoder for Nvae {
    /// One pass through the top-down tower, where encoding and decoding apart take two.
    fn encode_to_decode<'a>(&'a self, x: &Tensor, pass: &mut Pass<'_>) -> Result<(Posterior, Decoding<'a>)> {
        let (posterior, above) = self.posterior(x, pass.training, &mut draws(pass.rng, x))?;
        let decode: Decoding<'a> = Box::new(move |pass| self.likelihood(&self.top_down.below(&above, pass.training)?));
        Ok((posterior, decode))
    }

    fn regularizer(&self) -> Result<Option<Tensor>> {
        self.penalty.value()
    }
}

/// Standard Normal draws of the type and on the device of `x`.
fn draws<'a>(rng: &'a mut Rng, x: &'a Tensor) -> impl FnMut(usize, &[usize]) -> Result<Tensor> + 'a {
    move |_, dims| rng.normal_tensor(dims, x.dtype(), x.device())
}

impl std::fmt::Debug for Nvae {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nvae").field("image", &self.image).field("latent", &self.shape).finish_non_exhaustive()
    }
}
