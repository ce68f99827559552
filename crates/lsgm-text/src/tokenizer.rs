//! Text to tokens and back.

use lsgm_core::Result;
use serde_json::{Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Pipeline};

use crate::TextError;

/// The end-of-text token of fitted tokenizers.
pub(crate) const END: &str = "<|end|>";
/// What stands for a character that is not in a vocabulary of characters.
const UNKNOWN: &str = "<unk>";
/// Names under which other tokenizers have the token that ends a text.
const USUAL_ENDS: [&str; 8] =
    [END, "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>", "[SEP]", "[EOS]"];

/// A tokenizer of the `tokenizers` crate together with the token that ends a text.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    pipeline: Pipeline,
    end: u32,
    unknown: Option<u32>,
    vocabulary: usize,
}

impl Tokenizer {
    /// From the content of a `tokenizer.json`. `end` names the token that ends a text; without it one of the usual names
    /// is looked for. If there is none, one is added.
    ///
    /// # Errors
    /// A file that is no tokenizer, or lacks the token that was named.
    pub fn from_json(json: &[u8], end: Option<&str>, origin: &str) -> Result<Self> {
        let refuse = |message: String| TextError::Tokenizer { origin: origin.to_owned(), message };
        let pipeline = Pipeline::from_bytes(json).map_err(|e| refuse(format!("not a tokenizer.json: {e}")))?;
        Self::new(pipeline, end, origin)
    }

    pub(crate) fn new(mut pipeline: Pipeline, end: Option<&str>, origin: &str) -> Result<Self> {
        let refuse = |message: String| TextError::Tokenizer { origin: origin.to_owned(), message };
        let end = match end {
            Some(name) => pipeline
                .token_to_id(name)
                .ok_or_else(|| refuse(format!("there is no token `{name}`: see `data.tokenizer.end`")))?,
            None => match USUAL_ENDS.iter().find_map(|name| pipeline.token_to_id(name)) {
                Some(id) => id,
                None => {
                    let added = pipeline.add_special_tokens([AddedToken::from(END, true)]);
                    added.map_err(|e| refuse(e.to_string()))?;
                    pipeline.token_to_id(END).ok_or_else(|| refuse("the end of text cannot be added".into()))?
                }
            },
        };
        // What looks like the end of a text in the middle of one is text.
        pipeline.set_encode_special_tokens(true);
        // Items have a length of their own: a file made for another model must not cut or fill what it is given.
        pipeline.with_truncation(None).map_err(|e| refuse(e.to_string()))?;
        pipeline.with_padding(None);
        let unknown = unknown(&pipeline);
        let vocabulary = pipeline.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1);
        Ok(Self { pipeline, end, unknown, vocabulary })
    }

    /// The characters of `characters` and no others.
    ///
    /// # Errors
    /// No character at all.
    pub fn characters(characters: &std::collections::BTreeSet<char>) -> Result<Self> {
        let mut vocabulary = serde_json::Map::new();
        for token in [END.to_owned(), UNKNOWN.to_owned()].into_iter().chain(characters.iter().map(char::to_string)) {
            let id = vocabulary.len();
            vocabulary.insert(token, id.into());
        }
        without_merges(vocabulary, Value::Null, json!({ "type": "Fuse" }), Some(UNKNOWN), "of characters")
    }

    /// The 256 bytes.
    ///
    /// # Errors
    /// None as released: a test builds it.
    pub fn bytes() -> Result<Self> {
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let mut vocabulary = serde_json::Map::from_iter([(END.to_owned(), Value::from(0))]);
        for character in alphabet {
            let id = vocabulary.len();
            vocabulary.insert(character.to_string(), id.into());
        }
        let level =
            json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false });
        without_merges(vocabulary, level.clone(), level, None, "of bytes")
    }

    /// The content of a `tokenizer.json`.
    ///
    /// # Errors
    /// None that is known: the `tokenizers` crate reports one.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let text = self.pipeline.to_string(true);
        let refuse =
            |e: tokenizers::Error| TextError::Tokenizer { origin: "to be stored".into(), message: e.to_string() };
        Ok(text.map_err(refuse)?.into_bytes())
    }

    /// Number of ids, from 0.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The id that ends a text.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// The id that stands for what the tokenizer does not know; none if it knows any text.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// Tell the user how many of the tokens of a text of theirs stand for something else.
    pub(crate) fn warn_of_unknown(&self, text: &str, tokens: &[u32]) {
        let unknown = tokens.iter().filter(|t| Some(**t) == self.unknown).count();
        if unknown > 0 {
            tracing::warn!("`{text}`: {unknown} tokens are unknown to the tokenizer");
        }
    }

    /// Whether `tokens` of `text` stand for another text, though the tokenizer knows all of it: one in lower case, or without
    /// accents. White space around it does not count.
    pub(crate) fn alters(&self, text: &str, tokens: &[u32]) -> bool {
        let known = tokens.iter().all(|t| Some(*t) != self.unknown);
        known && self.decode(tokens).is_ok_and(|found| found.trim() != text.trim())
    }

    /// The tokens of a text, without its end.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.pipeline.encode_fast(text, false);
        Ok(encoding.map_err(|e| given(text, &e))?.get_ids().to_vec())
    }

    /// The text of tokens, up to the first end. Bytes that are not UTF-8 become `�`.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let length = tokens.iter().position(|t| *t == self.end).unwrap_or(tokens.len());
        Ok(self.pipeline.decode(&tokens[..length], false).map_err(|e| given("tokens", &e))?)
    }

    /// The text of an item: [`Tokenizer::decode`], or of one that is packed, and goes on behind an end, each text on a line.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub(crate) fn decode_item(&self, tokens: &[u32], packed: bool) -> Result<String> {
        if !packed {
            return self.decode(tokens);
        }
        let texts = tokens.split(|t| *t == self.end).map(|text| self.decode(text));
        Ok(texts.collect::<Result<Vec<_>>>()?.join("\n"))
    }
}

fn given(text: &str, error: &tokenizers::Error) -> TextError {
    let text = text.chars().take(40).collect();
    TextError::Given { text, message: format!("the tokenizer refuses it: {error}") }
}

/// The id for what is not in the vocabulary, if the model has one and can come to need it.
fn unknown(pipeline: &Pipeline) -> Option<u32> {
    let name = match pipeline.get_model() {
        ModelWrapper::BPE(model) => model.get_unk_token().clone()?,
        ModelWrapper::WordLevel(model) => model.unk_token.clone(),
        ModelWrapper::WordPiece(model) => model.unk_token.clone(),
        // Its number is no public field.
        model @ ModelWrapper::Unigram(_) => {
            return u32::try_from(serde_json::to_value(model).ok()?.get("unk_id")?.as_u64()?).ok();
        }
    };
    pipeline.token_to_id(&name)
}

/// A BPE model that merges nothing: each symbol is a token.
fn without_merges(
    vocabulary: serde_json::Map<String, Value>,
    pre_tokenizer: Value,
    decoder: Value,
    unknown: Option<&str>,
    origin: &str,
) -> Result<Tokenizer> {
    let end = json!({
        "id": 0, "content": END, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true
    });
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []
    });
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [end], "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model
    });
    Tokenizer::from_json(json.to_string().as_bytes(), None, origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unknown_token_of_a_unigram_model_may_have_any_name() {
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": { "type": "Unigram", "unk_id": 1, "vocab": [["</s>", 0.0], ["[UNK]", -9.0], ["a", -1.0]] }
        });
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes(), Some("</s>"), "given").unwrap();
        assert_eq!(tokenizer.unknown(), Some(1));
        assert_eq!(tokenizer.encode("axa").unwrap(), [2, 1, 2]);
    }

    #[test]
    fn characters_keep_what_they_know_and_count_the_rest() {
        let tokenizer = Tokenizer::characters(&"abc é\n".chars().collect()).unwrap();
        let ids = tokenizer.encode("cab\nébx").unwrap();
        assert_eq!((ids.len(), tokenizer.vocabulary(), tokenizer.end()), (7, 8, 0));
        assert_eq!(ids.iter().filter(|id| Some(**id) == tokenizer.unknown()).count(), 1);
        assert_eq!(tokenizer.decode(&ids[..6]).unwrap(), "cab\néb");
        let again = Tokenizer::from_json(&tokenizer.to_json().unwrap(), None, "again").unwrap();
        assert_eq!(again.encode("cab\nébx").unwrap(), ids);
    }

    #[test]
    fn bytes_keep_any_text_and_decode_any_tokens() {
        let tokenizer = Tokenizer::bytes().unwrap();
        assert_eq!((tokenizer.vocabulary(), tokenizer.unknown()), (257, None));
        for text in ["", " a  b ", "naïve 🦀\n\t", "<|end|>", "x<|end|>y"] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(ids.len(), text.len());
            assert!(!ids.contains(&tokenizer.end()));
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
        let cut = &tokenizer.encode("🦀").unwrap()[..2];
        assert!(tokenizer.decode(cut).unwrap().contains('\u{fffd}'));
        assert_eq!(tokenizer.decode(&[tokenizer.end(), 5]).unwrap(), "");
    }

    #[test]
    fn a_file_for_another_model_neither_cuts_nor_fills_texts() {
        let mut json: Value = serde_json::from_slice(&Tokenizer::bytes().unwrap().to_json().unwrap()).unwrap();
        json["truncation"] = json!({ "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 });
        json["padding"] = json!({
            "strategy": { "Fixed": 8 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 5,
            "pad_type_id": 0, "pad_token": "a"
        });
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes(), None, "t.json").unwrap();
        for text in ["a", "abcdefghijkl"] {
            assert_eq!(tokenizer.encode(text).unwrap().len(), text.len());
        }
    }

    #[test]
    fn what_is_no_tokenizer_is_refused() {
        let error = Tokenizer::from_json(b"{}", None, "t.json").unwrap_err().to_string();
        assert!(error.contains("t.json") && error.contains("not a tokenizer.json"), "{error}");
        let json = Tokenizer::bytes().unwrap().to_json().unwrap();
        let error = Tokenizer::from_json(&json, Some("</s>"), "t.json").unwrap_err().to_string();
        assert!(error.contains("no token `</s>`") && error.contains("data.tokenizer.end"), "{error}");
    }
}
