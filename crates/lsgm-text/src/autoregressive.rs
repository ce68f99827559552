use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{D, Device, Tensor};
use lsgm_core::{Error, Init, Likelihood, Params, Result, Rng, upload};
use lsgm_nn::{Embedding, Linear, full_precision, ops};

use crate::autoencoder::Alphabet;
use crate::blocks::Stack;
use crate::categorical::{counted, draw, until_end, weighted_sum};
use crate::config::TransformerConfig;

/// The network of the autoregressive decoder: logits of each token given the features of the latent and the tokens
/// before it.
#[derive(Debug)]
pub(crate) struct NextToken {
    /// One row more than tokens: what a hidden token looks like.
    embedding: Embedding,
    stack: Stack,
    vocabulary: Linear,
    hidden: u32,
}

impl NextToken {
    pub(crate) fn new(config: &TransformerConfig, vocabulary: usize, length: usize, params: &Params) -> Result<Self> {
        let (width, before) = (config.channels, params.pp("before"));
        Ok(Self {
            embedding: Embedding::new_with(vocabulary + 1, width, Init::Normal(0.5), &before)?,
            stack: Stack::new(config, config.decoder_blocks, length, true, params)?,
            vocabulary: Linear::new(width, vocabulary, true, &params.pp("vocabulary"))?,
            hidden: vocabulary as u32,
        })
    }

    /// Logits `[B, N, V]` of the first `N` tokens, `before` `[B, N]` being the tokens one place earlier.
    fn logits(&self, features: &Tensor, before: &Tensor) -> Result<Tensor> {
        let features = features.narrow(1, 0, before.dim(1)?)?.contiguous()?;
        let x = self.stack.forward((self.embedding.forward(before)? + features)?)?;
        full_precision(&self.vocabulary.forward(&x)?)
    }
}

/// Tokens one after another. Log-probabilities take one pass, draws one for each token.
pub(crate) struct Autoregressive {
    network: Arc<NextToken>,
    features: Tensor,
    alphabet: Alphabet,
    /// Share of hidden tokens in training, and what chooses them.
    hidden: Option<(f64, Mutex<Rng>)>,
}

impl Autoregressive {
    pub(crate) fn new(
        network: Arc<NextToken>,
        features: Tensor,
        alphabet: Alphabet,
        hidden: Option<(f64, Rng)>,
    ) -> Self {
        let hidden = hidden.map(|(share, rng)| (share, Mutex::new(rng)));
        Self { network, features, alphabet, hidden }
    }

    /// The tokens one place earlier, the end of the text before in the first place, some of them hidden in training.
    fn before(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, length) = x.dims2()?;
        let end = Tensor::full(self.alphabet.end_token, (batch, 1), x.device())?;
        let before = Tensor::cat(&[&end, x], 1)?.narrow(1, 0, length)?.contiguous()?;
        let Some((share, rng)) = &self.hidden else { return Ok(before) };
        let mut rng = rng.lock().unwrap_or_else(PoisonError::into_inner);
        let hide: Vec<u8> = (0..batch * length).map(|_| u8::from(rng.uniform() < *share)).collect();
        let hide = upload(&Tensor::from_vec(hide, (batch, length), &Device::Cpu)?, x.device())?;
        Ok(hide.where_cond(&Tensor::full(self.network.hidden, (batch, length), x.device())?, &before)?)
    }

    fn log_probs(&self, x: &Tensor) -> Result<Tensor> {
        ops::categorical_log_prob(&self.network.logits(&self.features, &self.before(x)?)?, x)
    }

    fn generate(&self, mut choose: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let (batch, device) = (self.features.dim(0)?, self.features.device());
        let mut tokens = Tensor::full(self.alphabet.end_token, (batch, 1), device)?;
        for position in 0..self.alphabet.length {
            let logits = self.network.logits(&self.features, &tokens)?.narrow(1, position, 1)?.contiguous()?;
            tokens = Tensor::cat(&[&tokens, &choose(&logits)?], 1)?;
        }
        until_end(&tokens.narrow(1, 1, self.alphabet.length)?.contiguous()?, self.alphabet.end)
    }
}

impl Likelihood for Autoregressive {
    fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
        weighted_sum(&self.log_probs(x)?, &counted(x, self.alphabet.end)?)
    }

    fn log_prob_known(&self, _x: &Tensor, _known: &Tensor) -> Result<Tensor> {
        let message = "an autoregressive decoder has no likelihood of a part of a text: infill wants `parallel`";
        Err(Error::config("autoencoder.decoder", message))
    }

    fn sample(&self, temperature: f64, rng: &mut Rng) -> Result<Tensor> {
        if temperature <= 0.0 {
            return self.mean();
        }
        self.generate(|logits| draw(logits, temperature, rng))
    }

    /// The most likely token each time, which need not be the most likely text.
    fn mean(&self) -> Result<Tensor> {
        self.generate(|logits| Ok(logits.argmax(D::Minus1)?))
    }
}
