use candle_core::Tensor;
use lsgm_core::{
    Autoencoder, Auxiliary, Decoder, Encoder, LatentShape, Latents, Likelihood, Params, Pass, Posterior, Result,
    soft_clamp,
};
use lsgm_nn::{Conv1d, ConvTranspose1d, full_precision, lower_precision};

use crate::blocks::{Stack, conv3, lengthen, shorten, silent_conv3};
use crate::config::WaveConfig;
use crate::direct::{ToBands, ToLatents};
use crate::head::Head;
use crate::lapped::Lapped;
use crate::spectral::StftDistance;

/// Range of the soft clamp of posterior means and log standard deviations.
const CLAMP: f64 = 5.0;

/// Where the logarithm of the posterior's standard deviation starts: narrow enough to see what the mean carries.
const LOG_SIGMA: f64 = -3.0;

/// What waveforms are multiplied with before the first layer: speech and music then have a standard deviation near 1.
pub(crate) const GAIN: f64 = 5.0;

/// A residual VAE on waveforms `[B, 1, L]`, with latents `[B, C, L / stride]`.
///
/// A lapped transform leads to the first level and back; between the levels stand strided convolutions. No
/// normalisation lies on the way through the skip connections, so that loudness passes. The networks add to a way from the
/// transform to the latents and back, one compressed coefficient a latent, and add nothing at first: training starts from a
/// codec.
pub struct WaveVae {
    shape: LatentShape,
    analysis: Lapped,
    enter: Conv1d,
    encoder: Vec<EncoderLevel>,
    posterior: Conv1d,
    to_latents: ToLatents,
    to_bands: ToBands,
    decoder_in: Conv1d,
    decoder: Vec<DecoderLevel>,
    head: Head,
    stft: Option<StftDistance>,
}

/// Blocks at one length, and the convolution that leads there from the one before.
struct EncoderLevel {
    shorten: Option<Conv1d>,
    blocks: Stack,
}

/// Blocks at one length, and the transposed convolution that leads to the next.
struct DecoderLevel {
    blocks: Stack,
    lengthen: Option<ConvTranspose1d>,
}

impl WaveVae {
    /// Build for clips of `samples`; `config` must be valid for them.
    ///
    /// # Errors
    /// A config that is not valid, or a store that has a parameter with another shape.
    pub fn new(config: &WaveConfig, samples: usize, params: &Params) -> Result<Self> {
        config.validate(samples)?;
        let levels = config.strides.len();
        let (first, last) = (config.channels[0], config.channels[levels - 1]);
        let (enc, dec) = (params.pp("encoder"), params.pp("decoder"));
        let (latents, bands, stride) = (config.latent_channels, config.strides[0], config.stride() / config.strides[0]);
        Ok(Self {
            shape: LatentShape::line(config.latent_channels, samples / config.stride()),
            analysis: Lapped::new(config.strides[0], &enc.pp("analysis"))?,
            enter: conv3(config.strides[0], first, &enc.pp("in"))?,
            encoder: (0..levels)
                .map(|l| EncoderLevel::new(config, l, &enc.pp("levels").pp(l)))
                .collect::<Result<_>>()?,
            posterior: silent_conv3(last, 2 * config.latent_channels, &enc.pp("posterior"))?,
            to_latents: ToLatents::new(latents, bands, stride, &enc.pp("direct"))?,
            to_bands: ToBands::new(latents, bands, stride, &dec.pp("direct"))?,
            decoder_in: conv3(config.latent_channels, last, &dec.pp("in"))?,
            decoder: (0..levels)
                .rev()
                .map(|l| DecoderLevel::new(config, l, &dec.pp("levels").pp(l)))
                .collect::<Result<_>>()?,
            head: Head::new(config, &dec.pp("out"))?,
            stft: config.stft.as_ref().map(|stft| StftDistance::new(stft, params)).transpose()?,
        })
    }
}

impl EncoderLevel {
    fn new(config: &WaveConfig, level: usize, params: &Params) -> Result<Self> {
        let channels = config.channels[level];
        let before = level.checked_sub(1).map(|l| config.channels[l]);
        let shorten = before.map(|before| shorten(before, channels, config.strides[level], &params.pp("shorten")));
        Ok(Self {
            shorten: shorten.transpose()?,
            blocks: Stack::new(config.blocks, channels, config.activation, &params.pp("blocks"))?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        match &self.shorten {
            Some(shorten) => self.blocks.forward(shorten.forward(&x)?),
            None => self.blocks.forward(x),
        }
    }
}

impl DecoderLevel {
    fn new(config: &WaveConfig, level: usize, params: &Params) -> Result<Self> {
        let channels = config.channels[level];
        let next = level.checked_sub(1).map(|l| config.channels[l]);
        let lengthen = next.map(|next| lengthen(channels, next, config.strides[level], &params.pp("lengthen")));
        Ok(Self {
            blocks: Stack::new(config.blocks, channels, config.activation, &params.pp("blocks"))?,
            lengthen: lengthen.transpose()?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = self.blocks.forward(x)?;
        self.lengthen.as_ref().map_or(Ok(x.clone()), |lengthen| lengthen.forward(&x))
    }
}

impl Encoder for WaveVae {
    fn latent_shape(&self) -> LatentShape {
        self.shape
    }

    fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
        let bands = self.analysis.analyse(&(x * GAIN)?)?;
        let h = self.enter.forward(&lower_precision(&bands)?)?;
        let h = self.encoder.iter().try_fold(h, |h, level| level.forward(h))?;
        let out = full_precision(&self.posterior.forward(&h)?)?;
        let channels = self.shape.channels;
        let mu = (out.narrow(1, 0, channels)? + self.to_latents.forward(&bands)?)?;
        let mu = soft_clamp(&mu, CLAMP)?;
        let log_sigma = (out.narrow(1, channels, channels)?.contiguous()? + LOG_SIGMA)?;
        Posterior::normal(mu, soft_clamp(&log_sigma, CLAMP)?, pass.rng)
    }
}

impl Decoder for WaveVae {
    fn decode(&self, z: &Latents, _: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
        self.shape.check("decoder", &z.prior)?;
        let h = self.decoder_in.forward(&lower_precision(&z.prior)?)?;
        let h = self.decoder.iter().try_fold(h, |h, level| level.forward(h))?;
        self.head.forward(&h, &self.to_bands.forward(&z.prior)?)
    }
}

impl Autoencoder for WaveVae {
    fn auxiliary(&self, x: &Tensor, likelihood: &dyn Likelihood) -> Result<Vec<Auxiliary>> {
        match &self.stft {
            Some(stft) => Ok(vec![Auxiliary { name: "stft", loss: stft.loss(x, &likelihood.mean()?)? }]),
            None => Ok(Vec::new()),
        }
    }
}

impl std::fmt::Debug for WaveVae {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaveVae").field("latent", &self.shape).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Activation, LikelihoodConfig, StftConfig};
    use candle_core::{DType, Device};
    use lsgm_core::{ParamStore, Rng};

    /// Every kind of model is built, gives a finite bound, and has a gradient for each of its parameters.
    #[test]
    fn every_parameter_of_every_kind_is_trained() {
        let mixture = LikelihoodConfig::LogisticMixture { components: 2 };
        for (activation, likelihood) in [
            (Activation::Silu, mixture.clone()),
            (Activation::Snake, mixture),
            (Activation::Silu, LikelihoodConfig::MuLaw { width: 6 }),
        ] {
            let config = WaveConfig {
                strides: vec![8, 4],
                channels: vec![6, 8],
                blocks: 2,
                latent_channels: 3,
                activation,
                likelihood,
                stft: Some(StftConfig { weight: 2.0, sizes: vec![16, 32] }),
            };
            let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(0));
            let vae = WaveVae::new(&config, 128, &store.root()).unwrap();
            assert_eq!(vae.latent_shape().dims(5), [5, 3, 4]);
            // Away from the start, where the last layers are zero and hide the others.
            let mut rng = Rng::new(1);
            for (_, var) in store.vars() {
                let noise = rng.normal_tensor(var.shape().clone(), DType::F32, &Device::Cpu).unwrap();
                var.set(&(var.as_tensor() + (noise * 0.05).unwrap()).unwrap()).unwrap();
            }
            let x = ((rng.normal_tensor((5, 1, 128), DType::F32, &Device::Cpu).unwrap() * 3000.0)
                .unwrap()
                .round()
                .unwrap()
                / 32_768.0)
                .unwrap();
            let (posterior, likelihood) = vae.reconstruct(&x, &mut Pass::train(&mut rng)).unwrap();
            let bound = (likelihood.log_prob(&x).unwrap() - posterior.neg_entropy().unwrap()).unwrap();
            assert_eq!(bound.dims(), [5]);
            let auxiliary = vae.auxiliary(&x, likelihood.as_ref()).unwrap();
            assert_eq!(auxiliary[0].name, "stft");
            let loss = (bound.mean_all().unwrap().neg().unwrap() + &auxiliary[0].loss).unwrap();
            assert!(loss.to_scalar::<f32>().unwrap().is_finite());
            let gradients = loss.backward().unwrap();
            for (name, var) in store.vars() {
                let gradient = gradients.get(var.as_tensor()).unwrap_or_else(|| panic!("{name} has no gradient"));
                let size = gradient.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(size.is_finite() && size > 0.0, "{name}: {size}");
            }
        }
    }

    /// With a latent for each band, an untrained model gives back the clip, but for the noise of its posterior.
    #[test]
    fn training_starts_from_a_codec() {
        for (strides, channels) in [(vec![16], vec![8]), (vec![8, 2], vec![8, 8])] {
            let config = WaveConfig { strides, channels, latent_channels: 16, ..WaveConfig::default() };
            let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(0));
            let vae = WaveVae::new(&config, 256, &store.root()).unwrap();
            let mut rng = Rng::new(1);
            let x = (rng.normal_tensor((4, 1, 256), DType::F32, &Device::Cpu).unwrap() * 0.1).unwrap();
            let mu = vae.encode(&x, &mut Pass::eval(&mut rng)).unwrap().groups.remove(0).mu;
            let y = vae.decode(&mu.into(), &mut Pass::eval(&mut rng)).unwrap().mean().unwrap();
            // Half a window at both ends is not undone.
            let inner = |t: &Tensor| t.narrow(2, 16, 224).unwrap().sqr().unwrap().sum_all().unwrap();
            let power = |t: &Tensor| inner(t).to_scalar::<f32>().unwrap();
            assert!(power(&(&x - y).unwrap()) < 1e-3 * power(&x));
        }
    }

    #[test]
    fn latents_of_another_shape_are_refused() {
        let store = ParamStore::new(DType::F32, &Device::Cpu, Rng::new(0));
        let config = WaveConfig { channels: vec![8], ..WaveConfig::default() };
        let vae = WaveVae::new(&config, 256, &store.root()).unwrap();
        let z = Tensor::zeros((1, 16, 5), DType::F32, &Device::Cpu).unwrap();
        assert!(vae.decode(&z.into(), &mut Pass::eval(&mut Rng::new(0))).is_err());
    }
}
