use candle_core::Tensor;
use lsgm_core::{
    Autoencoder, Decoder, Encoder, Group, LatentShape, Latents, Likelihood, Params, Pass, Posterior, Result, soft_clamp,
};
use lsgm_image::Bernoulli;
use lsgm_nn::ops::{self, Conv2dConfig};
use lsgm_nn::{Conv2d, GroupNorm, full_precision, lower_precision};

use crate::blocks::{ResidualBlock, conv3x3, norm_silu, run, stack};
use crate::config::PlainConfig;

/// Range of the soft clamp of posterior means and log standard deviations.
const CLAMP: f64 = 5.0;

/// A small residual VAE for binarized images `[B, 1, H, W]`.
///
/// The first convolution halves the size at once and the decoder reaches full size only in its last two layers:
/// nearly all computation happens at half size and below, where a step costs least for what it brings.
pub struct PlainVae {
    shape: LatentShape,
    stem: Conv2d,
    encoder: Vec<EncoderLevel>,
    encoder_norm: GroupNorm,
    heads: Vec<PosteriorHead>,
    decoder_in: Conv2d,
    decoder: Vec<DecoderLevel>,
    output: Output,
}

/// Blocks at one size, and the convolution that leads to the next smaller one.
struct EncoderLevel {
    blocks: Vec<ResidualBlock>,
    down: Option<Conv2d>,
}

/// Blocks at one size, and the convolution after up-sampling to the next larger one.
struct DecoderLevel {
    blocks: Vec<ResidualBlock>,
    up: Option<Conv2d>,
}

/// The posterior of one group of latent channels given the image and the groups before it.
struct PosteriorHead {
    context: Option<(Conv2d, ResidualBlock, GroupNorm)>,
    out: Conv2d,
}

/// From half size to logits at full size.
struct Output {
    norm: GroupNorm,
    expand: Conv2d,
    full_norm: GroupNorm,
    logits: Conv2d,
}

impl PlainVae {
    /// Build for images of `height` × `width`; `config` must be valid for them.
    pub fn new(config: &PlainConfig, height: usize, width: usize, params: &Params) -> Result<Self> {
        config.validate(height, width)?;
        let (channels, levels) = (&config.channels, config.channels.len());
        let (first, last) = (channels[0], channels[levels - 1]);
        let (enc, dec) = (params.pp("encoder"), params.pp("decoder"));
        let stem = Conv2dConfig { stride: (2, 2), padding: (2, 2), ..Conv2dConfig::default() };
        let group = config.latent_channels / config.latent_groups;
        Ok(Self {
            shape: LatentShape::plane(config.latent_channels, height >> levels, width >> levels),
            stem: Conv2d::new(1, first, (5, 5), stem, true, &enc.pp("stem"))?,
            encoder: (0..levels)
                .map(|l| EncoderLevel::new(config, l, &enc.pp("levels").pp(l)))
                .collect::<Result<_>>()?,
            encoder_norm: norm_silu(last, &enc.pp("norm"))?,
            heads: (0..config.latent_groups)
                .map(|g| PosteriorHead::new(last, group, g, &enc.pp("heads").pp(g)))
                .collect::<Result<_>>()?,
            decoder_in: conv3x3(config.latent_channels, last, &dec.pp("in"))?,
            decoder: (0..levels)
                .rev()
                .map(|l| DecoderLevel::new(config, l, &dec.pp("levels").pp(l)))
                .collect::<Result<_>>()?,
            output: Output::new(first, config.output_channels, &dec.pp("out"))?,
        })
    }
}

impl EncoderLevel {
    fn new(config: &PlainConfig, level: usize, params: &Params) -> Result<Self> {
        let channels = config.channels[level];
        let halve = Conv2dConfig { stride: (2, 2), padding: (1, 1), ..Conv2dConfig::default() };
        let down = config.channels.get(level + 1);
        Ok(Self {
            blocks: stack(config.blocks, channels, &params.pp("blocks"))?,
            // Kernel 4: every input pixel is seen equally often.
            down: down.map(|next| Conv2d::new(channels, *next, (4, 4), halve, true, &params.pp("down"))).transpose()?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = run(&self.blocks, x)?;
        self.down.as_ref().map_or(Ok(x.clone()), |down| down.forward(&x))
    }
}

impl DecoderLevel {
    fn new(config: &PlainConfig, level: usize, params: &Params) -> Result<Self> {
        let channels = config.channels[level];
        let up = level.checked_sub(1).map(|next| conv3x3(channels, config.channels[next], &params.pp("up")));
        Ok(Self { blocks: stack(config.blocks, channels, &params.pp("blocks"))?, up: up.transpose()? })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = run(&self.blocks, x)?;
        match &self.up {
            Some(up) => up.forward(&ops::upsample_nearest2d(&x, 2)?),
            None => Ok(x),
        }
    }
}

impl PosteriorHead {
    fn new(features: usize, group: usize, index: usize, params: &Params) -> Result<Self> {
        let context = (index > 0).then(|| -> Result<_> {
            Ok((
                conv3x3(group * index, features, &params.pp("latents"))?,
                ResidualBlock::new(features, &params.pp("block"))?,
                norm_silu(features, &params.pp("norm"))?,
            ))
        });
        Ok(Self { context: context.transpose()?, out: conv3x3(features, 2 * group, &params.pp("out"))? })
    }

    /// Mean and log standard deviation, given the encoder's features and the groups drawn so far.
    fn forward(&self, features: &Tensor, drawn: &[Group]) -> Result<(Tensor, Tensor)> {
        let h = match &self.context {
            None => features.clone(),
            Some((latents, block, norm)) => {
                let z: Vec<&Tensor> = drawn.iter().map(|g| &g.z).collect();
                let h = (features + latents.forward(&lower_precision(&Tensor::cat(&z, 1)?)?)?)?;
                norm.forward(&block.forward(&h)?)?
            }
        };
        let out = full_precision(&self.out.forward(&h)?)?;
        let group = out.dim(1)? / 2;
        let mu = soft_clamp(&out.narrow(1, 0, group)?.contiguous()?, CLAMP)?;
        let log_sigma = soft_clamp(&out.narrow(1, group, group)?.contiguous()?, CLAMP)?;
        Ok((mu, log_sigma))
    }
}

impl Output {
    fn new(channels: usize, full: usize, params: &Params) -> Result<Self> {
        Ok(Self {
            norm: norm_silu(channels, &params.pp("norm"))?,
            expand: conv3x3(channels, 4 * full, &params.pp("expand"))?,
            full_norm: norm_silu(full, &params.pp("full_norm"))?,
            logits: conv3x3(full, 1, &params.pp("logits"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.expand.forward(&self.norm.forward(x)?)?;
        full_precision(&self.logits.forward(&self.full_norm.forward(&pixel_shuffle(&x)?)?)?)
    }
}

/// `[B, 4C, H, W]` to `[B, C, 2H, 2W]`: four channels become the pixels of a 2×2 square (arXiv 1609.05158).
fn pixel_shuffle(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let squares = x.reshape(&[b, c / 4, 2, 2, h, w][..])?.permute(vec![0, 1, 4, 2, 5, 3])?;
    Ok(squares.contiguous()?.reshape((b, c / 4, 2 * h, 2 * w))?)
}

impl Encoder for PlainVae {
    fn latent_shape(&self) -> LatentShape {
        self.shape
    }

    fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
        let centred = lower_precision(&x.affine(2.0, -1.0)?)?;
        let h = self.encoder.iter().try_fold(self.stem.forward(&centred)?, |h, level| level.forward(h))?;
        let features = self.encoder_norm.forward(&h)?;
        let mut groups = Vec::with_capacity(self.heads.len());
        for head in &self.heads {
            let (mu, log_sigma) = head.forward(&features, &groups)?;
            groups.push(Group::sample(mu, log_sigma, false, pass.rng)?);
        }
        Ok(Posterior { groups })
    }
}

impl Decoder for PlainVae {
    fn decode(&self, z: &Latents, _: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
        self.shape.check("decoder", &z.prior)?;
        let h = self.decoder_in.forward(&lower_precision(&z.prior)?)?;
        let h = self.decoder.iter().try_fold(h, |h, level| level.forward(h))?;
        Ok(Box::new(Bernoulli::new(self.output.forward(&h)?)))
    }
}

impl Autoencoder for PlainVae {}

impl std::fmt::Debug for PlainVae {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainVae").field("latent", &self.shape).finish_non_exhaustive()
    }
}
