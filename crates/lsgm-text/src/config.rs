use std::path::{Path, PathBuf};

use lsgm_core::{Error, Result, Split};
use lsgm_data::card::Share;
use lsgm_data::{Card, Hub, Shares, TextRequest, Texts, Unit, open_texts};
use serde::{Deserialize, Serialize};

/// Section `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextConfig {
    /// Name of a data set card, or the path of one of your own (`*.toml`). `texts` is any text in the folder of `--data`.
    pub set: String,
    /// A folder that holds the set's files; `--data` goes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// What an entry of a plain file is, `line` or `document`, in place of the card's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// Field of JSON lines or column of parquet that holds the text, in place of the card's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Share or number of the entries (characters of documents) of part `train` that is kept for validation, in place of
    /// the card's splits; needs `test` too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val: Option<Share>,
    /// The same for testing, from the very end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Share>,
    /// Tokens of an item, the end of its text included.
    pub length: usize,
    /// What is done with an entry of more tokens.
    pub overlong: Overlong,
    /// Join all entries, each with its end, to one stream, and cut that into items without padding. All tokens of an item
    /// count then, those after an end too.
    pub packed: bool,
    /// Train on the first so many entries (characters of documents) only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Seed of generated sets.
    pub seed: u64,
    /// How text is cut to tokens.
    pub tokenizer: TokenizerConfig,
}

/// What is done with an entry that does not fit an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlong {
    /// It becomes several items, which do not overlap; in training they start anywhere in the entry.
    #[default]
    Split,
    /// It is left out, and counted in a warning.
    Drop,
    /// It is an error.
    Refuse,
}

/// How text is cut to tokens. Whatever is fitted is fitted to the training split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TokenizerConfig {
    /// The characters of the training split; others are unknown.
    Characters(Fixed),
    /// Bytes of UTF-8: any text, 256 tokens.
    Bytes(Fixed),
    /// Byte-pair encoding over bytes: any text.
    Bpe(Fitted),
    /// A unigram language model over bytes (Kudo 2018): any text.
    Unigram(Fitted),
    /// A `tokenizer.json`.
    File(Given),
    /// `tokenizer.json` of a model repository in the Hugging Face cache.
    Hub(Given),
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self::Characters(Fixed {})
    }
}

/// A tokenizer that has nothing to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixed {}

/// A tokenizer to be fitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fitted {
    /// Number of tokens, the 256 bytes and the end of text included.
    pub vocabulary: usize,
}

impl Default for Fitted {
    fn default() -> Self {
        Self { vocabulary: 2000 }
    }
}

/// A tokenizer that is there already.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Given {
    /// Path of the file, or `owner/name` on the hub.
    pub from: String,
    /// The token that ends a text; one of the usual names by default, or a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            set: "grammar".into(),
            dir: None,
            unit: None,
            column: None,
            val: None,
            test: None,
            length: 32,
            overlong: Overlong::Split,
            packed: false,
            limit: None,
            seed: 0,
            tokenizer: TokenizerConfig::default(),
        }
    }
}

impl TextConfig {
    /// Check every key without touching data.
    ///
    /// # Errors
    /// [`Error::Config`] with the full key.
    pub fn validate(&self) -> Result<()> {
        if !(2..=1 << 16).contains(&self.length) {
            return Err(Error::config("data.length", format!("{} is not between 2 and 65536", self.length)));
        }
        if self.limit == Some(0) {
            return Err(Error::config("data.limit", "0 entries cannot be trained on: leave the key out for all"));
        }
        for (key, share) in [("data.val", self.val), ("data.test", self.test)] {
            if matches!(share, Some(Share::Fraction(f)) if !(f > 0.0 && f < 1.0)) {
                return Err(Error::config(key, "a fraction lies between 0 and 1; write a whole number for a number"));
            }
        }
        if self.val.is_some() != self.test.is_some() {
            let key = if self.val.is_some() { "data.test" } else { "data.val" };
            return Err(Error::config(key, "`data.val` and `data.test` are given together"));
        }
        match &self.tokenizer {
            TokenizerConfig::Bpe(f) | TokenizerConfig::Unigram(f) if !(258..=1 << 20).contains(&f.vocabulary) => {
                let message =
                    format!("{} is not between 258 (the bytes, the end and one more) and 1048576", f.vocabulary);
                return Err(Error::config("data.tokenizer.vocabulary", message));
            }
            TokenizerConfig::File(g) | TokenizerConfig::Hub(g) if g.from.is_empty() => {
                return Err(Error::config("data.tokenizer.from", "name the file, or the repository as `owner/name`"));
            }
            _ => {}
        }
        if !self.set.ends_with(".toml") {
            Card::find(&self.set).map_err(|e| Error::config("data.set", e.to_string()))?;
        }
        Ok(())
    }

    /// The texts of a split. `dir` is the user's `--data`. Nothing is downloaded.
    ///
    /// # Errors
    /// As [`TextConfig::validate`] and [`open_texts`].
    pub fn texts(&self, split: Split, dir: Option<&Path>) -> Result<Texts> {
        self.validate()?;
        let card = Card::find(&self.set)?;
        Ok(open_texts(&TextRequest {
            card: &card,
            split,
            dir: dir.or(self.dir.as_deref()),
            hub: &Hub::from_env(),
            unit: self.unit,
            column: self.column.as_deref(),
            shares: self.val.zip(self.test).map(|(val, test)| Shares { val, test }),
            seed: self.seed,
            limit: self.limit.filter(|_| split == Split::Train),
        })?)
    }
}

/// Section `[autoencoder]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ModelConfig {
    /// A transformer encoder and decoder.
    Transformer(TransformerConfig),
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self::Transformer(TransformerConfig::default())
    }
}

/// `kind = "transformer"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformerConfig {
    /// Width of a token.
    pub channels: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the feed-forward layers as a multiple of `channels`.
    pub expansion: usize,
    /// How attention knows about positions.
    pub positions: Positions,
    /// Blocks of the encoder.
    pub encoder_blocks: usize,
    /// Blocks of the decoder.
    pub decoder_blocks: usize,
    /// Channels of the latent.
    pub latent_channels: usize,
    /// Tokens for each position of the latent: 1, 2, 4 or 8.
    pub compression: usize,
    /// How tokens are decoded.
    pub decoder: DecoderKind,
    /// Share of the tokens before it that are hidden from the autoregressive decoder in training (Bowman et al. 2016).
    pub word_dropout: f64,
    /// Standard deviation of noise that is added to the decoder's latents in training, so that latents near each other mean
    /// the same.
    pub latent_noise: f64,
}

/// How attention knows about positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// Rotary embeddings of queries and keys.
    #[default]
    Rotary,
    /// A learned vector for each position.
    Learned,
}

/// How tokens are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecoderKind {
    /// All tokens at once, independent given the latent: the latent carries everything.
    #[default]
    Parallel,
    /// Each token given those before it; may leave the latent unused.
    Autoregressive,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            channels: 128,
            heads: 4,
            expansion: 4,
            positions: Positions::Rotary,
            encoder_blocks: 2,
            decoder_blocks: 2,
            latent_channels: 8,
            compression: 1,
            decoder: DecoderKind::Parallel,
            word_dropout: 0.3,
            latent_noise: 0.0,
        }
    }
}

impl TransformerConfig {
    /// Check every value for items of `length` tokens.
    ///
    /// # Errors
    /// [`Error::Config`] with the key.
    pub fn validate(&self, length: usize) -> Result<()> {
        let refuse = |key: &str, message: String| Err(Error::config(format!("autoencoder.{key}"), message));
        for (key, value) in [
            ("channels", self.channels),
            ("heads", self.heads),
            ("expansion", self.expansion),
            ("latent_channels", self.latent_channels),
        ] {
            if value == 0 {
                return refuse(key, "must be positive".into());
            }
        }
        if !self.channels.is_multiple_of(2 * self.heads) {
            let message =
                format!("{} channels cannot be split into {} heads of an even width", self.channels, self.heads);
            return refuse("heads", message);
        }
        if ![1, 2, 4, 8].contains(&self.compression) {
            return refuse("compression", format!("{} is not 1, 2, 4 or 8", self.compression));
        }
        if !length.is_multiple_of(self.compression) {
            let message = format!("{} does not divide the {length} tokens of `data.length`", self.compression);
            return refuse("compression", message);
        }
        if !(0.0..1.0).contains(&self.word_dropout) {
            return refuse("word_dropout", format!("{} must be at least 0 and below 1", self.word_dropout));
        }
        if !(self.latent_noise >= 0.0 && self.latent_noise.is_finite()) {
            return refuse("latent_noise", format!("{} is negative or not a number", self.latent_noise));
        }
        Ok(())
    }
}
