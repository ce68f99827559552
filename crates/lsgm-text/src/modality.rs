use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use lsgm_core::{
    Arrangement, Artifact, Assets, Autoencoder, Dataset, Error, Measure, Modality, Params, Result, Split, Template,
    Yardstick,
};
use sha2::{Digest, Sha256};

use crate::autoencoder::{Alphabet, TextVae};
use crate::config::{ModelConfig, TextConfig, TokenizerConfig};
use crate::measures::{self, Amounts, Reference};
use crate::{Corpus, TextError, Tokenizer, fit, render, template};

/// The tokenizer among a run's assets, and its checksum.
const TOKENIZER: &str = "tokenizer.json";
const CHECKSUM: &str = "tokenizer.sha256";

/// Text: `modality = "text"`.
pub struct Text {
    data: TextConfig,
    model: ModelConfig,
    tokenizer: Tokenizer,
    /// Splits that were read.
    corpora: Mutex<BTreeMap<Place, Arc<Corpus>>>,
}

/// A split's name and the folder of the data.
type Place = (&'static str, Option<PathBuf>);

impl Text {
    /// The tokenizer of the run.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// A split, read once.
    ///
    /// # Errors
    /// As [`Corpus::open`].
    pub fn corpus(&self, split: Split, dir: Option<&Path>) -> Result<Arc<Corpus>> {
        let mut corpora = self.corpora.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (split.name(), dir.map(Path::to_owned));
        if let Some(corpus) = corpora.get(&place) {
            return Ok(corpus.clone());
        }
        let corpus = Arc::new(Corpus::open(&self.data, &self.tokenizer, split, dir)?);
        corpora.insert(place, corpus.clone());
        Ok(corpus)
    }

    /// The test split, or validation where there is none.
    fn held_out(&self, dir: Option<&Path>) -> Result<Arc<Corpus>> {
        match self.corpus(Split::Test, dir) {
            Err(e) if e.is_input() => self.corpus(Split::Val, dir),
            found => found,
        }
    }

    /// The training split, if it is at hand: a model is evaluated where its training data are not, too.
    fn train(&self, dir: Option<&Path>) -> Result<Option<Arc<Corpus>>> {
        match self.corpus(Split::Train, dir) {
            Err(e) if e.is_input() => {
                tracing::warn!("nothing is compared with the training split: {e}");
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// The token behind which nothing counts.
    fn end(&self) -> Option<u32> {
        (!self.data.packed).then(|| self.tokenizer.end())
    }

    fn texts(&self, items: &Tensor) -> Result<Vec<String>> {
        let rows = items.to_dtype(DType::U32)?.to_device(&Device::Cpu)?.to_vec2::<u32>()?;
        rows.iter().map(|row| self.tokenizer.decode_item(row, self.data.packed)).collect()
    }
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The tokenizer of a run, if it is still the one that the run began with.
fn stored_tokenizer(data: &TextConfig, assets: &Assets) -> Result<Tokenizer> {
    let Some(json) = assets.get(TOKENIZER) else {
        return Err(Error::config("data.tokenizer", format!("the run has no `assets/{TOKENIZER}`: train it anew")));
    };
    if let Some(expected) = assets.get(CHECKSUM) {
        let found = checksum(json);
        if String::from_utf8_lossy(expected).trim() != found {
            let message = "it is not the tokenizer that this model was trained with, whose SHA-256 lies beside it: \
                           put that one back";
            let path = Path::new("assets").join(TOKENIZER);
            return Err(TextError::Replaced { path, message: message.into() }.into());
        }
    }
    let end = match &data.tokenizer {
        TokenizerConfig::File(given) | TokenizerConfig::Hub(given) => given.end.as_deref(),
        _ => None,
    };
    Tokenizer::from_json(json, end, TOKENIZER)
}

impl Modality for Text {
    const NAME: &'static str = "text";
    type Data = TextConfig;
    type Model = ModelConfig;

    fn prepare(data: &TextConfig, dir: Option<&Path>) -> Result<Assets> {
        data.validate()?;
        let json = fit::tokenizer(data, dir)?.to_json()?;
        let checksum = checksum(&json).into_bytes();
        Ok(Assets::from([(TOKENIZER.to_owned(), json), (CHECKSUM.to_owned(), checksum)]))
    }

    fn new(data: &TextConfig, model: &ModelConfig, assets: &Assets) -> Result<Self> {
        data.validate()?;
        match model {
            ModelConfig::Transformer(transformer) => transformer.validate(data.length)?,
        }
        let tokenizer = stored_tokenizer(data, assets)?;
        Ok(Self { data: data.clone(), model: model.clone(), tokenizer, corpora: Mutex::default() })
    }

    fn dataset(&self, split: Split, dir: Option<&Path>) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(Shared(self.corpus(split, dir)?)))
    }

    fn build(&self, params: &Params) -> Result<Box<dyn Autoencoder>> {
        let alphabet = Alphabet {
            vocabulary: self.tokenizer.vocabulary(),
            length: self.data.length,
            end: self.end(),
            end_token: self.tokenizer.end(),
        };
        Ok(match &self.model {
            ModelConfig::Transformer(config) => Box::new(TextVae::new(config, alphabet, params)?),
        })
    }

    fn data_dim(&self) -> usize {
        self.data.length
    }

    fn render(&self, items: &Tensor, arrangement: Arrangement) -> Result<Vec<Artifact>> {
        Ok(vec![render::plain(&self.texts(items)?, arrangement)])
    }

    fn render_as(&self, extension: &str, items: &Tensor, arrangement: Arrangement) -> Result<Vec<Artifact>> {
        match extension {
            "jsonl" => Ok(vec![render::json_lines(&self.texts(items)?, arrangement)?]),
            _ => self.render(items, arrangement),
        }
    }

    fn read_items(&self, entries: &[String]) -> Result<Tensor> {
        let (length, end) = (self.data.length, self.tokenizer.end());
        let mut rows = Vec::with_capacity(entries.len());
        for text in entries {
            let mut tokens = self.tokenizer.encode(text)?;
            self.tokenizer.warn_of_unknown(text, &tokens);
            if tokens.len() >= length {
                let message = format!("{} tokens and an end do not fit an item of {length}: shorten it", tokens.len());
                return Err(TextError::Given { text: text.clone(), message }.into());
            }
            tokens.resize(length, end);
            rows.extend(tokens);
        }
        Ok(Tensor::from_vec(rows, (entries.len(), length), &Device::Cpu)?)
    }

    fn read_template(&self, template: &str) -> Result<Template> {
        template::read(template, &self.tokenizer, self.data.length, !self.data.packed)
    }

    fn measure_samples(&self, samples: &Tensor, yardstick: &mut Yardstick<'_>) -> Result<Vec<Measure>> {
        let dir = yardstick.data_dir;
        let (train, held_out) = (self.train(dir)?, self.held_out(dir)?);
        let is_grammar = self.data.set == "grammar" && dir.is_none() && self.data.dir.is_none();
        let reference = Reference {
            train: train.as_deref(),
            held_out: &held_out,
            tokenizer: &self.tokenizer,
            packed: self.data.packed,
            is_grammar,
        };
        measures::samples(samples, &reference)
    }

    fn measure_reconstructions(
        &self,
        originals: &Tensor,
        reconstructions: &Tensor,
        _: &mut Yardstick<'_>,
    ) -> Result<Vec<Measure>> {
        measures::reconstructions(originals, reconstructions, self.end())
    }

    fn measure_nelbo(
        &self,
        nelbo: f64,
        stderr: f64,
        items: usize,
        split: Split,
        yardstick: &mut Yardstick<'_>,
    ) -> Result<Vec<Measure>> {
        let corpus = self.corpus(split, yardstick.data_dir)?;
        let amounts = Amounts::of(&corpus, &self.tokenizer, items)?;
        Ok(measures::bound(nelbo, stderr, items.min(corpus.len()), &amounts))
    }

    fn measure_baselines(&self, items: usize, split: Split, yardstick: &mut Yardstick<'_>) -> Result<Vec<Measure>> {
        let Some(train) = self.train(yardstick.data_dir)? else { return Ok(Vec::new()) };
        measures::baselines(&train, &*self.corpus(split, yardstick.data_dir)?, items, &self.tokenizer)
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("data", &self.data).field("model", &self.model).finish_non_exhaustive()
    }
}

/// A corpus that is kept for measures, as a data set.
struct Shared(Arc<Corpus>);

impl Dataset for Shared {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn batch(&self, indices: &[usize], rng: &mut lsgm_core::Rng) -> Result<lsgm_core::Batch> {
        self.0.batch(indices, rng)
    }

    fn resident(&self, device: &candle_core::Device, limit: usize) -> Result<Option<Box<dyn Dataset>>> {
        self.0.resident(device, limit)
    }
}
