//! The tokenizer that a config asks for.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lsgm_core::{Error, Result, Split};
use lsgm_data::Hub;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Pipeline};

use crate::config::{Given, TextConfig, TokenizerConfig};
use crate::tokenizer::END;
use crate::{TextError, Tokenizer};

/// Bytes of the training split that subwords are fitted to, from its start.
const ENOUGH: usize = 1 << 26;

/// Read, or fit to the training split, the tokenizer of a config.
pub(crate) fn tokenizer(config: &TextConfig, dir: Option<&Path>) -> Result<Tokenizer> {
    match &config.tokenizer {
        TokenizerConfig::Characters(_) => Tokenizer::characters(&characters(config, dir)?),
        TokenizerConfig::Bytes(_) => Tokenizer::bytes(),
        TokenizerConfig::Bpe(fitted) => {
            let trainer = BpeTrainer::builder()
                .show_progress(false)
                .vocab_size(fitted.vocabulary)
                .special_tokens(vec![AddedToken::from(END, true)])
                .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
                .build();
            fit(Pipeline::new(BPE::default()), trainer.into(), "of kind `bpe`", &start(config, dir)?)
        }
        TokenizerConfig::Unigram(fitted) => {
            let trainer = UnigramTrainer::builder()
                .show_progress(false)
                .vocab_size(u32::try_from(fitted.vocabulary).unwrap_or(u32::MAX))
                .special_tokens(vec![AddedToken::from(END, true)])
                .unk_token(Some("<unk>".into()))
                .initial_alphabet(ByteLevel::alphabet())
                .build()
                .map_err(|e| refuse("of kind `unigram`", e))?;
            fit(Pipeline::new(Unigram::default()), trainer.into(), "of kind `unigram`", &start(config, dir)?)
        }
        TokenizerConfig::File(given) => from_file(Path::new(&given.from), given),
        TokenizerConfig::Hub(given) => from_file(&cached(given)?, given),
    }
}

/// Every character of the training split.
fn characters(config: &TextConfig, dir: Option<&Path>) -> Result<BTreeSet<char>> {
    let mut characters = BTreeSet::new();
    config.texts(Split::Train, dir)?.visit(&mut |piece| {
        characters.extend(piece.text.chars());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(characters)
}

/// The start of the training split, in pieces.
fn start(config: &TextConfig, dir: Option<&Path>) -> Result<Vec<String>> {
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    config.texts(Split::Train, dir)?.visit(&mut |piece| {
        bytes += piece.text.len();
        pieces.push(piece.text.to_owned());
        Ok(if bytes < ENOUGH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(pieces)
}

fn fit(mut pipeline: Pipeline, mut trainer: TrainerWrapper, origin: &str, pieces: &[String]) -> Result<Tokenizer> {
    pipeline
        .with_pre_tokenizer(Some(ByteLevel::new(false, false, true)))
        .with_decoder(Some(ByteLevel::new(false, false, true)));
    pipeline.train(&mut trainer, pieces.iter()).map_err(|e| refuse(origin, e))?;
    Tokenizer::new(pipeline, None, origin)
}

fn refuse(origin: &str, error: impl std::fmt::Display) -> TextError {
    TextError::Tokenizer {
        origin: origin.to_owned(),
        message: format!("cannot be fitted to the training split: {error}"),
    }
}

fn from_file(path: &Path, given: &Given) -> Result<Tokenizer> {
    let json = std::fs::read(path).map_err(|e| Error::input(path, format!("the tokenizer cannot be read: {e}")))?;
    Tokenizer::from_json(&json, given.end.as_deref(), &path.display().to_string())
}

fn cached(given: &Given) -> Result<PathBuf> {
    let hub = Hub::from_env();
    hub.cached_model(&given.from, "main", "tokenizer.json").ok_or_else(|| {
        let message = format!(
            "tokenizer.json of `{}` is not in the cache {}: `hf download {} tokenizer.json` brings it there",
            given.from,
            hub.cache().display(),
            given.from
        );
        Error::config("data.tokenizer.from", message)
    })
}
