//! Figures of texts: units of the bound, n-gram models, reconstructions, samples.

use std::f64::consts::LN_2;

use candle_core::{Device, Tensor};
use lsgm_core::{Dataset, Measure, Result};
use lsgm_data::Grammar;

use crate::categorical::counted;
use crate::corpus::{Piece, texts};
use crate::ngram::NgramModel;
use crate::statistics::Ngrams;
use crate::statistics::{covered, distinct, repetition};
use crate::{Corpus, Tokenizer};

/// Tokens of the training split that n-gram models and sets of n-grams are made from, from its start.
const ENOUGH: usize = 20_000_000;
/// Names of n-gram models by order.
const ORDERS: [&str; 4] = ["unigram", "bigram", "trigram", "fourgram"];

/// What the items of a split consist of. The end of a text counts as a token, as a character (its line end) and as a word.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Amounts {
    pub(crate) tokens: usize,
    pub(crate) characters: usize,
    pub(crate) words: usize,
}

impl Amounts {
    /// Of the first `items` items.
    pub(crate) fn of(corpus: &Corpus, tokenizer: &Tokenizer, items: usize) -> Result<Self> {
        let mut amounts = Self::default();
        for index in 0..items.min(corpus.len()) {
            for piece in corpus.pieces(index)? {
                amounts.add(&piece, tokenizer)?;
            }
        }
        Ok(amounts)
    }

    /// Characters and words count where they begin: those that a cut divides belong to what stands before it.
    fn add(&mut self, piece: &Piece<'_>, tokenizer: &Tokenizer) -> Result<()> {
        let before = tokenizer.decode(piece.before)?;
        let text = tokenizer.decode(&[piece.before, piece.tokens].concat())?;
        let end = usize::from(piece.ends);
        let more = |count: fn(&str) -> usize| count(&text).saturating_sub(count(&before)) + end;
        self.tokens += piece.tokens.len() + end;
        self.characters += more(|text| text.chars().count());
        self.words += more(|text| text.split_whitespace().count());
        Ok(())
    }
}

/// A bound of `nelbo` nats for each of `items` items in the units of text.
pub(crate) fn bound(nelbo: f64, stderr: f64, items: usize, amounts: &Amounts) -> Vec<Measure> {
    let per = |amount: usize| items as f64 / amount.max(1) as f64;
    let bits = |name: &str, unit, amount, meaning: &str| {
        let scale = per(amount) / LN_2;
        Measure::new(name, nelbo * scale, unit, meaning).with_stderr(stderr * scale)
    };
    let perplexity = |name: &str, amount, meaning: &str| {
        let value = (nelbo * per(amount)).exp();
        Measure::new(name, value, "", meaning).with_stderr(value * stderr * per(amount))
    };
    vec![
        bits("bits_per_char", "bits/char", amounts.characters, "nelbo of all items over their characters"),
        bits("bits_per_token", "bits/token", amounts.tokens, "nelbo of all items over their tokens"),
        Measure::new("nats_per_token", nelbo * per(amounts.tokens), "nats", "the same in nats")
            .with_stderr(stderr * per(amounts.tokens)),
        perplexity("perplexity_token", amounts.tokens, "exp of the nats for each token; at most this"),
        perplexity("perplexity_word", amounts.words, "exp of the nats for each word between white space"),
    ]
}

/// An n-gram model of a corpus.
pub(crate) fn ngram_model(corpus: &Corpus, tokenizer: &Tokenizer, order: usize) -> NgramModel {
    NgramModel::fit(order, tokenizer.vocabulary(), enough(corpus), Some(tokenizer.end()))
}

/// The first entries of a corpus, [`ENOUGH`] tokens of them.
fn enough(corpus: &Corpus) -> impl Iterator<Item = &[u32]> {
    let mut left = ENOUGH;
    corpus.entries().take_while(move |entry| {
        let take = left > 0;
        left = left.saturating_sub(entry.len());
        take
    })
}

/// Nats of the first `items` items of a corpus under an n-gram model, in all.
fn nats(model: &NgramModel, corpus: &Corpus, items: usize) -> Result<f64> {
    let mut total = 0.0;
    for index in 0..items.min(corpus.len()) {
        for piece in corpus.pieces(index)? {
            total -= model.log_prob_of(piece.tokens, piece.before.is_empty(), piece.ends);
        }
    }
    Ok(total)
}

/// N-gram models of orders 1 to 4, fitted to `train`, on the first `items` items of `held_out`.
pub(crate) fn baselines(
    train: &Corpus,
    held_out: &Corpus,
    items: usize,
    tokenizer: &Tokenizer,
) -> Result<Vec<Measure>> {
    let amounts = Amounts::of(held_out, tokenizer, items)?;
    let mut measures = Vec::new();
    for (index, name) in ORDERS.iter().enumerate() {
        let nats = nats(&ngram_model(train, tokenizer, index + 1), held_out, items)?;
        let per_token = nats / amounts.tokens.max(1) as f64;
        let meaning = format!(
            "{}-gram model of tokens, modified Kneser-Ney; {per_token:.3} nats for each token, perplexity {:.1}",
            index + 1,
            per_token.exp()
        );
        let bits = nats / LN_2 / amounts.characters.max(1) as f64;
        measures.push(Measure::new(format!("{name}_bits_per_char"), bits, "bits/char", meaning));
    }
    Ok(measures)
}

/// How much of the originals comes back.
pub(crate) fn reconstructions(originals: &Tensor, decoded: &Tensor, end: Option<u32>) -> Result<Vec<Measure>> {
    let weights = counted(originals, end)?.to_vec2::<u8>()?;
    let rows = |x: &Tensor| -> Result<Vec<Vec<u32>>> { Ok(x.to_device(&Device::Cpu)?.to_vec2::<u32>()?) };
    let (originals, decoded) = (rows(originals)?, rows(decoded)?);
    let (mut tokens, mut right, mut whole) = (0usize, 0usize, 0usize);
    for ((x, y), weights) in originals.iter().zip(&decoded).zip(&weights) {
        let of_item = x.iter().zip(y).zip(weights).filter(|(_, w)| **w > 0);
        let (all, equal) = of_item.fold((0, 0), |(all, equal), ((a, b), _)| (all + 1, equal + usize::from(a == b)));
        tokens += all;
        right += equal;
        whole += usize::from(all == equal);
    }
    Ok(vec![
        share("token_accuracy", right, tokens, "tokens that come back, ends of texts included"),
        share("exact_texts", whole, originals.len(), "texts that come back whole"),
    ])
}

fn share(name: &str, part: usize, all: usize, meaning: impl Into<String>) -> Measure {
    let p = part as f64 / all.max(1) as f64;
    Measure::new(name, p, "share", meaning).with_stderr((p * (1.0 - p) / all.max(1) as f64).sqrt())
}

/// What samples are measured against.
pub(crate) struct Reference<'a> {
    /// The training split, where it is at hand.
    pub(crate) train: Option<&'a Corpus>,
    pub(crate) held_out: &'a Corpus,
    pub(crate) tokenizer: &'a Tokenizer,
    /// Whether items go on behind an end.
    pub(crate) packed: bool,
    pub(crate) is_grammar: bool,
}

/// Statistics of samples, each beside that of equally many held-out items.
pub(crate) fn samples(x: &Tensor, reference: &Reference<'_>) -> Result<Vec<Measure>> {
    let rows = x.to_device(&Device::Cpu)?.to_vec2::<u32>()?;
    let text = |tokens: &[u32]| reference.tokenizer.decode_item(tokens, reference.packed);
    let texts = rows.iter().map(|row| text(row)).collect::<Result<Vec<_>>>()?;
    let mut held_out = Vec::new();
    for index in 0..reference.held_out.len().min(texts.len()) {
        held_out.push(text(reference.held_out.item(index)?.0)?);
    }
    let mut measures = Vec::new();
    if reference.is_grammar {
        let right = texts.iter().filter(|t| Grammar::accepts(t)).count();
        measures.push(share("grammatical", right, texts.len(), "samples that the grammar accepts"));
    }
    if let Some(train) = reference.train {
        measures.extend(fluency(&rows, train, reference)?);
    }
    for n in [1, 2, 4] {
        let meaning = format!("different runs of {n} words over all; held-out {:.3}", distinct(&held_out, n));
        measures.push(Measure::new(format!("distinct_{n}"), distinct(&texts, n), "share", meaning));
    }
    let meaning = format!("pairs of words that a sample has twice; held-out {:.3}", repetition(&held_out, 2));
    measures.push(Measure::new("repetition", repetition(&texts, 2), "share", meaning));
    if let Some(train) = reference.train {
        measures.extend(copies(&texts, &held_out, train, reference.tokenizer)?);
    }
    Ok(measures)
}

/// Log-perplexity of samples and of the held-out split under one n-gram model.
fn fluency(rows: &[Vec<u32>], train: &Corpus, reference: &Reference<'_>) -> Result<Vec<Measure>> {
    let (model, end) = (ngram_model(train, reference.tokenizer, ORDERS.len()), reference.tokenizer.end());
    let (mut total, mut tokens) = (0.0, 0usize);
    for row in rows {
        // What a packed sample starts with is the rest of a text, and so is a window of a document, which has no end.
        let mut begins = !reference.packed && row.contains(&end);
        for (text, ends) in texts(row, end).take(if reference.packed { usize::MAX } else { 1 }) {
            total -= model.log_prob_of(text, begins, ends);
            tokens += text.len() + usize::from(ends);
            begins = true;
        }
    }
    let held_out = nats(&model, reference.held_out, usize::MAX)?;
    let amounts = Amounts::of(reference.held_out, reference.tokenizer, usize::MAX)?;
    let meaning = "nats for each token under a 4-gram model of the training split";
    Ok(vec![
        Measure::new("sample_log_perplexity", total / tokens.max(1) as f64, "nats", meaning),
        Measure::new(
            "heldout_log_perplexity",
            held_out / amounts.tokens.max(1) as f64,
            "nats",
            "the same of held-out text",
        ),
    ])
}

/// How much of the samples stands in the training split.
fn copies(texts: &[String], held_out: &[String], train: &Corpus, tokenizer: &Tokenizer) -> Result<Vec<Measure>> {
    let entries = enough(train).map(|entry| tokenizer.decode(entry)).collect::<Result<Vec<_>>>()?;
    let one = |name: &str, n: usize, meaning: &str| {
        let known = Ngrams::of(&entries, n);
        let ((p, of), (other, _)) = (covered(&known, texts), covered(&known, held_out));
        share(name, (p * of as f64).round() as usize, of, format!("{meaning}; held-out {other:.3}"))
    };
    Ok(vec![
        one("copied_4", 4, "samples all of whose runs of 4 words stand in the training split"),
        one("copied_8", 8, "the same for runs of 8 words, among samples that have one"),
        one("copied_whole", 0, "samples that are an entry of the training split"),
    ])
}
