use std::sync::Arc;

use candle_core::{D, DType, Tensor};
use lsgm_core::{
    Autoencoder, Decoder, Encoder, Error, Init, LatentShape, Latents, Likelihood, Params, Pass, Posterior, Result, Rng,
    soft_clamp,
};
use lsgm_nn::{Embedding, Linear, full_precision, init};

use crate::autoregressive::{Autoregressive, NextToken};
use crate::blocks::{Stack, fold, turned, unfold};
use crate::categorical::{Categorical, counted};
use crate::config::{DecoderKind, TransformerConfig};

/// Range of the soft clamp of posterior means and log standard deviations.
const CLAMP: f64 = 5.0;
/// Where the log standard deviation of the posterior starts: narrow enough that the decoder learns to read the latent.
const LOG_SIGMA_START: f64 = -1.5;

/// What the vocabulary and the items of a corpus say about a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alphabet {
    /// Number of token ids.
    pub(crate) vocabulary: usize,
    /// Tokens of an item.
    pub(crate) length: usize,
    /// The token that ends a text, where what follows it counts for nothing.
    pub(crate) end: Option<u32>,
    /// The token that ends a text.
    pub(crate) end_token: u32,
}

/// A transformer autoencoder of texts: token ids `[B, L]` to latents `[B, C, L / r]` and back.
pub struct TextVae {
    alphabet: Alphabet,
    shape: LatentShape,
    compression: usize,
    latent_noise: f64,
    word_dropout: f64,
    embedding: Embedding,
    encoder: Stack,
    mean: Linear,
    log_sigma: Linear,
    enter: Linear,
    reader: Reader,
}

/// What turns decoded features to tokens.
enum Reader {
    Parallel(Stack, Linear),
    Autoregressive(Arc<NextToken>),
}

impl TextVae {
    pub(crate) fn new(config: &TransformerConfig, alphabet: Alphabet, params: &Params) -> Result<Self> {
        config.validate(alphabet.length)?;
        let (width, latent, r) = (config.channels, config.latent_channels, config.compression);
        let (enc, dec) = (params.pp("encoder"), params.pp("decoder"));
        let log_sigma = Some(Init::Const(LOG_SIGMA_START));
        let reader = match config.decoder {
            DecoderKind::Parallel => Reader::Parallel(
                Stack::new(config, config.decoder_blocks, alphabet.length, false, &dec)?,
                Linear::new(width, alphabet.vocabulary, true, &dec.pp("vocabulary"))?,
            ),
            DecoderKind::Autoregressive => {
                Reader::Autoregressive(Arc::new(NextToken::new(config, alphabet.vocabulary, alphabet.length, &dec)?))
            }
        };
        Ok(Self {
            alphabet,
            shape: LatentShape::line(latent, alphabet.length / r),
            compression: r,
            latent_noise: config.latent_noise,
            word_dropout: config.word_dropout,
            embedding: Embedding::new_with(alphabet.vocabulary, width, Init::Normal(0.5), &enc.pp("vocabulary"))?,
            encoder: Stack::new(config, config.encoder_blocks, alphabet.length, false, &enc)?,
            mean: Linear::new(r * width, latent, true, &enc.pp("mean"))?,
            log_sigma: Linear::new_with(r * width, latent, log_sigma, init::zeros(), &enc.pp("log_sigma"))?,
            enter: Linear::new(latent, r * width, true, &dec.pp("enter"))?,
            reader,
        })
    }

    /// The latent as the decoder sees it: with noise in training, if there is to be any.
    fn disturbed(&self, z: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        if !pass.training || self.latent_noise == 0.0 {
            return Ok(z.clone());
        }
        let noise = pass.rng.normal_tensor(z.shape().clone(), z.dtype(), z.device())?;
        Ok((z + (noise * self.latent_noise)?)?)
    }
}

impl Encoder for TextVae {
    fn latent_shape(&self) -> LatentShape {
        self.shape
    }

    fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
        if x.dims().get(1) != Some(&self.alphabet.length) || x.rank() != 2 {
            let message = format!("items of shape {:?} instead of [B, {}]", x.dims(), self.alphabet.length);
            return Err(Error::contract("encoder", message));
        }
        let features = fold(&self.encoder.forward(self.embedding.forward(x)?)?, self.compression)?;
        let mu = soft_clamp(&full_precision(&turned(&self.mean.forward(&features)?)?)?, CLAMP)?;
        let log_sigma = soft_clamp(&full_precision(&turned(&self.log_sigma.forward(&features)?)?)?, CLAMP)?;
        Posterior::normal(mu, log_sigma, pass.rng)
    }
}

impl Decoder for TextVae {
    fn decode(&self, z: &Latents, pass: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
        self.shape.check("decoder", &z.prior)?;
        let latent = turned(&self.disturbed(&z.prior, pass)?)?;
        let features = unfold(&self.enter.forward(&latent)?, self.compression)?;
        Ok(match &self.reader {
            Reader::Parallel(stack, vocabulary) => {
                let logits = full_precision(&vocabulary.forward(&stack.forward(features)?)?)?;
                Box::new(Categorical::new(logits, self.alphabet.end))
            }
            Reader::Autoregressive(network) => {
                let hidden = pass.training.then(|| (self.word_dropout, Rng::new(pass.rng.bits())));
                Box::new(Autoregressive::new(network.clone(), features, self.alphabet, hidden))
            }
        })
    }
}

impl Autoencoder for TextVae {
    /// Tokens of each text, its end included.
    fn extent(&self, x: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(counted(x, self.alphabet.end)?.to_dtype(DType::F32)?.sum(D::Minus1)?))
    }
}

impl std::fmt::Debug for TextVae {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextVae").field("latent", &self.shape).field("alphabet", &self.alphabet).finish_non_exhaustive()
    }
}
