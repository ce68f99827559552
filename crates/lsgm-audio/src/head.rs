use candle_core::Tensor;
use lsgm_core::{Likelihood, Params, Result};
use lsgm_nn::ops::{silu, softplus};
use lsgm_nn::{Conv1d, ConvTranspose1d, Linear, full_precision, init, lower_precision};

use crate::blocks::{Activate, lengthen, lengthen_with, silent_conv3};
use crate::config::{LikelihoodConfig, WaveConfig};
use crate::lapped::Lapped;
use crate::mixture::LogisticMixture;
use crate::mu_law::{CLASSES, MuLaw};
use crate::vae::GAIN;

/// Where log-scales start: those of a residual as large as quiet speech.
const LOG_SCALE: f64 = -2.5;

/// Log-scales stay above this, a third of the distance between two values of 16 bits; silence costs half a nat a sample.
const LEAST_LOG_SCALE: f64 = -11.5;

/// From the decoder's features `[B, C, L / stride]` of the first level to a distribution of the samples `[B, 1, L]`.
pub(crate) struct Head {
    /// What the network adds to the bands of the waveform.
    bands: Conv1d,
    synthesis: Lapped,
    /// What else the distribution needs.
    activate: Activate,
    shape: Shape,
}

enum Shape {
    Mixture { parameters: ConvTranspose1d, components: usize },
    MuLaw { features: ConvTranspose1d, hidden: Linear, logits: Linear },
}

impl Head {
    pub(crate) fn new(config: &WaveConfig, params: &Params) -> Result<Self> {
        let (channels, stride) = (config.channels[0], config.strides[0]);
        let shape = match config.likelihood {
            LikelihoodConfig::LogisticMixture { components } => Shape::Mixture {
                parameters: lengthen_with(channels, 3 * components, stride, init::zeros(), &params.pp("parameters"))?,
                components,
            },
            LikelihoodConfig::MuLaw { width } => Shape::MuLaw {
                features: lengthen(channels, width, stride, &params.pp("features"))?,
                hidden: Linear::new(width + 1, width, true, &params.pp("hidden"))?,
                logits: Linear::new(width, CLASSES, true, &params.pp("logits"))?,
            },
        };
        Ok(Self {
            bands: silent_conv3(channels, stride, &params.pp("bands"))?,
            synthesis: Lapped::new(stride, &params.pp("synthesis"))?,
            activate: Activate::new(config.activation, channels, &params.pp("activation"))?,
            shape,
        })
    }

    /// With the bands `[B, stride, L / stride]` that the latents say without the network.
    pub(crate) fn forward(&self, h: &Tensor, bands: &Tensor) -> Result<Box<dyn Likelihood>> {
        let waveform = self.synthesis.synthesise(&(full_precision(&self.bands.forward(h)?)? + bands)?)?;
        let features = self.activate.forward(h)?;
        match &self.shape {
            Shape::Mixture { parameters, components } => {
                let parameters = full_precision(&parameters.forward(&features)?)?;
                Ok(Box::new(LogisticMixture::new(mixture(&(waveform / GAIN)?, &parameters, *components)?)?))
            }
            Shape::MuLaw { features: layer, hidden, logits } => {
                let features = Tensor::cat(&[&lower_precision(&waveform)?, &layer.forward(&features)?], 1)?;
                let hidden = silu(&hidden.forward(&features.transpose(1, 2)?.contiguous()?)?)?;
                Ok(Box::new(MuLaw::new(full_precision(&logits.forward(&hidden)?)?)?))
            }
        }
    }
}

/// Logits, means and log-scales of a mixture around a waveform, `[B, 3·K, L]`. Components start apart by their scales alone.
fn mixture(waveform: &Tensor, parameters: &Tensor, components: usize) -> Result<Tensor> {
    let part = |i: usize| parameters.narrow(1, i * components, components);
    // Offsets of a tenth of full scale are large ones.
    let means = waveform.broadcast_add(&(part(1)? * 0.1)?)?;
    let spread = components.max(2) as f64 - 1.0;
    let starts: Vec<f32> =
        (0..components).map(|k| (LOG_SCALE - LEAST_LOG_SCALE + 1.0 - 2.0 * k as f64 / spread) as f32).collect();
    let starts = Tensor::from_vec(starts, (1, components, 1), parameters.device())?.to_dtype(parameters.dtype())?;
    let log_scales = (softplus(&part(2)?.broadcast_add(&starts)?)? + LEAST_LOG_SCALE)?;
    Ok(Tensor::cat(&[&part(0)?, &means, &log_scales], 1)?)
}
