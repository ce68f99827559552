//! Entries of a source as items of equal length.

use std::ops::{ControlFlow, Range};
use std::path::Path;

use candle_core::{Device, Tensor};
use lsgm_core::{Batch, Dataset, Error, Result, Rng, Split, upload};

use crate::config::{Overlong, TextConfig};
use crate::{TextError, Tokenizer};

/// What became of the entries of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Entries that were read.
    pub entries: usize,
    /// Empty ones among the lines or rows, left out.
    pub empty: usize,
    /// Entries that became several items.
    pub split: usize,
    /// Entries that were left out because they are too long.
    pub dropped: usize,
    /// Tokens that stand for something the tokenizer does not know.
    pub unknown: usize,
    /// Entries among the first thousand that the tokenizer gives back otherwise than they stand, such as in lower case.
    pub altered: usize,
    /// Windows line ends, read as `\n`.
    pub carriage_returns: usize,
}

/// Entries that are decoded again, to see whether a tokenizer keeps them.
const DECODED: usize = 1000;

/// One item: a stretch of the tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    start: usize,
    length: usize,
    /// How far it may start later and still lie in its entry.
    slack: usize,
    /// Whether its entry begins with it.
    pub(crate) begins: bool,
    /// Whether its entry ends with it.
    pub(crate) ends: bool,
}

impl Item {
    /// Where its tokens start at a visit.
    fn visit(&self, moves: bool, rng: &mut Rng) -> usize {
        if moves && self.slack > 0 { self.start + rng.below(self.slack + 1) } else { self.start }
    }
}

/// Tokens in front of a stretch that tell where its first character and its first word begin.
const BEFORE: usize = 8;

/// A stretch of an item that lies in one entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) tokens: &'a [u32],
    /// The last tokens of the entry before it: none where it begins the entry.
    pub(crate) before: &'a [u32],
    /// Whether the entry's end belongs to it.
    pub(crate) ends: bool,
}

/// The texts that stand in tokens one after another, each without its end, and whether it has one.
pub(crate) fn texts(tokens: &[u32], end: u32) -> impl Iterator<Item = (&[u32], bool)> {
    tokens.split_inclusive(move |token| *token == end).map(move |text| match text.split_last() {
        Some((last, text)) if *last == end => (text, true),
        _ => (text, false),
    })
}

/// The tokens of a split, cut to items `[L]`.
pub struct Corpus {
    tokens: Vec<u32>,
    entries: Vec<Range<usize>>,
    items: Vec<Item>,
    length: usize,
    end: u32,
    /// Whether long entries are cut at other places at each visit.
    moves: bool,
    counts: Counts,
}

impl Corpus {
    /// Read and tokenize a split. `dir` is the user's `--data`.
    ///
    /// What was left out or read otherwise than it stands is told in one warning.
    ///
    /// # Errors
    /// What the source is refused for; an entry that is too long where that is refused; a split of which nothing is left.
    pub fn open(config: &TextConfig, tokenizer: &Tokenizer, split: Split, dir: Option<&Path>) -> Result<Self> {
        let texts = config.texts(split, dir)?;
        let mut reading = Reading::new(config, tokenizer);
        let (mut refused, mut decoded, mut altered) = (None, 0, 0);
        let tally = texts.visit(&mut |piece| {
            let tokens = match tokenizer.encode(piece.text) {
                Ok(tokens) => tokens,
                Err(e) => {
                    refused = Some(e);
                    return Ok(ControlFlow::Break(()));
                }
            };
            if piece.begins && piece.ends && decoded < DECODED {
                decoded += 1;
                altered += usize::from(tokenizer.alters(piece.text, &tokens));
            }
            reading.take(tokens, piece.begins, piece.ends);
            Ok(if reading.is_refused() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if let Some(error) = refused {
            return Err(error);
        }
        let (origin, split_name) = (texts.origin().to_owned(), split.name());
        if reading.is_refused() {
            let (entry, length) = (reading.counts.entries + 1, config.length);
            return Err(TextError::Overlong { origin, entry, split: split_name, length, most: length - 1 }.into());
        }
        reading.counts.altered = altered;
        reading.counts.empty = tally.empty;
        reading.counts.carriage_returns = tally.carriage_returns;
        let corpus = reading.finish(split == Split::Train);
        if corpus.items.is_empty() {
            let reason = match config.packed {
                true => format!("its {} tokens do not fill an item of {}", corpus.tokens.len(), config.length),
                false => format!("all {} entries are longer than {} tokens", corpus.counts.entries, config.length - 1),
            };
            return Err(TextError::Nothing { origin, split: split_name, reason }.into());
        }
        corpus.warn(split, &origin);
        Ok(corpus)
    }

    fn warn(&self, split: Split, origin: &str) {
        let c = &self.counts;
        let told = [
            (c.empty, "empty entries were left out"),
            (c.split, "entries are longer than an item and were split"),
            (c.dropped, "entries are longer than an item and were left out"),
            (c.unknown, "tokens are unknown to the tokenizer: the likelihood does not tell what they stood for"),
            (
                c.altered,
                "of the first thousand come back from the tokenizer otherwise than they stand: the likelihood is of what comes \
                 back",
            ),
            (c.carriage_returns, "Windows line ends were read as plain ones"),
        ];
        let told: Vec<String> = told.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        // A document is expected to be split.
        if !told.is_empty() && (c.entries > 1 || c.unknown + c.carriage_returns > 0) {
            tracing::warn!("{split} split, {origin}: {} entries; {}", c.entries, told.join("; "));
        }
    }

    /// What became of the entries.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The tokens of each entry, without its end.
    pub fn entries(&self) -> impl Iterator<Item = &[u32]> {
        self.entries.iter().filter_map(|range| self.tokens.get(range.clone()))
    }

    /// The tokens of an item without its end, and the item.
    pub(crate) fn item(&self, index: usize) -> Result<(&[u32], Item)> {
        let item = self.items.get(index).copied();
        let found = item.and_then(|i| Some((self.tokens.get(i.start..i.start + i.length)?, i)));
        found.ok_or_else(|| Error::contract("corpus", format!("item {index} of {}", self.items.len())))
    }

    /// The stretches of an item: several where entries are packed.
    pub(crate) fn pieces(&self, index: usize) -> Result<Vec<Piece<'_>>> {
        let (tokens, item) = self.item(index)?;
        let past = &self.tokens[item.start.saturating_sub(BEFORE.min(self.length))..item.start];
        let of_entry = past.rsplit(|token| *token == self.end).next().unwrap_or_default();
        let before = if item.begins { &[] } else { of_entry };
        if item.ends {
            return Ok(vec![Piece { tokens, before, ends: true }]);
        }
        let before = std::iter::once(before).chain(std::iter::repeat(&[][..]));
        let texts = texts(tokens, self.end).zip(before);
        Ok(texts.map(|((tokens, ends), before)| Piece { tokens, before, ends }).collect())
    }
}

impl Dataset for Corpus {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn resident(&self, device: &Device, limit: usize) -> Result<Option<Box<dyn Dataset>>> {
        if 2 * 4 * self.tokens.len() > limit || u32::try_from(self.tokens.len()).is_err() {
            return Ok(None);
        }
        let tokens = Tensor::new(self.tokens.as_slice(), device)?;
        let items = self.items.clone();
        Ok(Some(Box::new(ResidentCorpus { tokens, items, length: self.length, end: self.end, moves: self.moves })))
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Batch> {
        let mut x = Vec::with_capacity(indices.len() * self.length);
        for &index in indices {
            let (_, item) = self.item(index)?;
            let start = item.visit(self.moves, rng);
            let tokens = &self.tokens[start..start + item.length];
            x.extend_from_slice(tokens);
            x.resize(x.len() + self.length - tokens.len(), self.end);
        }
        Ok(Batch { x: Tensor::from_vec(x, (indices.len(), self.length), &Device::Cpu)?, labels: None })
    }
}

impl std::fmt::Debug for Corpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} items of {} tokens from {} entries", self.items.len(), self.length, self.counts.entries)
    }
}

/// The tokens of a split in the memory of a device.
struct ResidentCorpus {
    tokens: Tensor,
    items: Vec<Item>,
    length: usize,
    end: u32,
    moves: bool,
}

impl Dataset for ResidentCorpus {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Batch> {
        let device = self.tokens.device();
        let (mut starts, mut lengths) = (Vec::with_capacity(indices.len()), Vec::with_capacity(indices.len()));
        for &index in indices {
            let missing = || Error::contract("corpus", format!("item {index} of {}", self.items.len()));
            let item = self.items.get(index).ok_or_else(missing)?;
            starts.push(item.visit(self.moves, rng) as u32);
            lengths.push(item.length as u32);
        }
        let column = |values: Vec<u32>| upload(&Tensor::from_vec(values, (indices.len(), 1), &Device::Cpu)?, device);
        let places = Tensor::arange(0u32, self.length as u32, device)?.unsqueeze(0)?;
        let inside = places.broadcast_lt(&column(lengths)?)?;
        // Beyond the end of an item any token will do.
        let last = Tensor::full(self.tokens.elem_count() as u32 - 1, inside.shape(), device)?;
        let places = places.broadcast_add(&column(starts)?)?.minimum(&last)?;
        let tokens = self.tokens.index_select(&places.flatten_all()?, 0)?.reshape(inside.shape())?;
        let ends = Tensor::full(self.end, inside.shape(), device)?;
        Ok(Batch { x: inside.where_cond(&tokens, &ends)?, labels: None })
    }
}

/// A corpus that is being read.
struct Reading {
    length: usize,
    overlong: Overlong,
    packed: bool,
    end: u32,
    unknown: Option<u32>,
    tokens: Vec<u32>,
    entries: Vec<Range<usize>>,
    items: Vec<Item>,
    /// Where the open entry starts.
    start: usize,
    too_long: bool,
    counts: Counts,
}

impl Reading {
    fn new(config: &TextConfig, tokenizer: &Tokenizer) -> Self {
        Self {
            length: config.length,
            overlong: config.overlong,
            packed: config.packed,
            end: tokenizer.end(),
            unknown: tokenizer.unknown(),
            tokens: Vec::new(),
            entries: Vec::new(),
            items: Vec::new(),
            start: 0,
            too_long: false,
            counts: Counts::default(),
        }
    }

    fn is_refused(&self) -> bool {
        self.too_long && self.overlong == Overlong::Refuse
    }

    fn take(&mut self, tokens: Vec<u32>, begins: bool, ends: bool) {
        if begins {
            (self.start, self.too_long) = (self.tokens.len(), false);
        }
        // Nothing more is kept of an entry that will not be used.
        if !self.too_long {
            self.tokens.extend(tokens);
        }
        let whole = self.packed || self.overlong == Overlong::Split;
        self.too_long |= !whole && self.tokens.len() - self.start >= self.length;
        if ends && !self.is_refused() {
            self.close();
        }
    }

    fn close(&mut self) {
        self.counts.entries += 1;
        if self.too_long {
            self.counts.dropped += 1;
            self.tokens.truncate(self.start);
            return;
        }
        let entry = self.start..self.tokens.len();
        let unknown = self.unknown;
        self.counts.unknown += self.tokens[entry.clone()].iter().filter(|t| Some(**t) == unknown).count();
        if self.packed {
            self.tokens.push(self.end);
        } else {
            self.cut(&entry);
        }
        self.entries.push(entry);
    }

    /// Full items as long as more than one is left, then one that ends.
    fn cut(&mut self, entry: &Range<usize>) {
        let mut start = entry.start;
        while entry.end - start >= self.length {
            let slack = (entry.end - start - self.length).min(self.length - 1);
            let begins = start == entry.start;
            self.items.push(Item { start, length: self.length, slack, begins, ends: false });
            start += self.length;
        }
        self.counts.split += usize::from(start > entry.start);
        if start < entry.end || start == entry.start {
            let begins = start == entry.start;
            self.items.push(Item { start, length: entry.end - start, slack: 0, begins, ends: true });
        }
    }

    fn finish(mut self, moves: bool) -> Corpus {
        if self.packed {
            let full = self.tokens.len() / self.length;
            let last = self.tokens.len() % self.length;
            for i in 0..full {
                let slack = if i + 1 < full { self.length - 1 } else { last };
                let start = i * self.length;
                let begins = start == 0 || self.tokens.get(start - 1) == Some(&self.end);
                self.items.push(Item { start, length: self.length, slack, begins, ends: false });
            }
        }
        Corpus {
            tokens: self.tokens,
            entries: self.entries,
            items: self.items,
            length: self.length,
            end: self.end,
            moves,
            counts: self.counts,
        }
    }
}
