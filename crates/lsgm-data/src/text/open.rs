//! From a card and a split to the texts in it.

use std::ops::{ControlFlow, Range};
use std::path::Path;

use lsgm_core::Split;

use super::grammar::Grammar;
use super::json::read_json;
use super::plain::read_plain;
use super::sink::{Piece, Sink, Tally, Unit};
use super::table::read_table;
use crate::card::{Card, Generator, Share};
use crate::locate::{Content, locate, splits};
use crate::{DataError, Hub, Result};

/// Which texts are wanted.
#[derive(Debug, Clone, Copy)]
pub struct TextRequest<'a> {
    /// The data set.
    pub card: &'a Card,
    /// The split.
    pub split: Split,
    /// A folder that goes before the card's sources.
    pub dir: Option<&'a Path>,
    /// Where cached files are.
    pub hub: &'a Hub,
    /// What an entry of a plain file is; the card's word if there is none.
    pub unit: Option<Unit>,
    /// The field or column of the text; the card's if there is none.
    pub column: Option<&'a str>,
    /// Shares of the end of part `train` for validation and testing, in place of the card's rules.
    pub shares: Option<Shares>,
    /// The seed of generators.
    pub seed: u64,
    /// At most so many entries (characters of documents), from the first on.
    pub limit: Option<usize>,
}

/// How much of the end of part `train` is kept for validation, and after that for testing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// For validation.
    pub val: Share,
    /// For testing.
    pub test: Share,
}

impl Shares {
    /// The items of a split; those of two splits never overlap.
    fn range(self, split: Split, total: usize) -> Range<usize> {
        let test = total - self.test.of(total);
        let val = test.saturating_sub(self.val.of(total));
        match split {
            Split::Train => 0..val,
            Split::Val => val..test,
            Split::Test => test..total,
        }
    }
}

/// The texts of a split. They are read at each [`Texts::visit`], in pieces.
#[derive(Debug, Clone)]
pub struct Texts {
    source: Source,
    unit: Unit,
    range: Range<usize>,
    origin: String,
}

#[derive(Debug, Clone)]
enum Source {
    Grammar(Box<Grammar>),
    Files(Vec<std::path::PathBuf>, String),
}

/// Find the texts of a split. Nothing is downloaded.
///
/// # Errors
/// Data that are not at hand or damaged, or a split without a single entry.
pub fn open_texts(request: &TextRequest<'_>) -> Result<Texts> {
    let rules = splits(request.card, request.dir);
    let rule = rules.rule(request.split);
    let part = request.shares.map_or(rule.part.as_str(), |_| "train");
    let located = locate(request.card, part, request.dir, request.hub)?;
    let mut texts = Texts::new(request, &located.content)?;
    let range = match request.shares {
        Some(shares) => shares.range(request.split, texts.total()?),
        None if rule.is_whole() => 0..usize::MAX,
        None => rule.range(texts.total()?),
    };
    let end = request.limit.map_or(range.end, |limit| range.end.min(range.start.saturating_add(limit)));
    texts.range = range.start..end;
    let mut found = false;
    texts.visit(&mut |_| {
        found = true;
        Ok(ControlFlow::Break(()))
    })?;
    if found {
        return Ok(texts);
    }
    Err(DataError::Empty {
        origin: texts.origin,
        set: request.card.name.clone(),
        split: request.split.name(),
        advice: "give more text, or another rule in `splits` of the card".into(),
    })
}

impl Texts {
    fn new(request: &TextRequest<'_>, content: &Content) -> Result<Self> {
        let column = |own: &str| request.column.unwrap_or(own).to_owned();
        let (source, unit) = match content {
            Content::Generated(Generator::Grammar, items) => {
                (Source::Grammar(Box::new(Grammar::new(request.seed, request.split, *items))), Unit::Line)
            }
            Content::Texts { files, unit, column: own } => (Source::Files(files.clone(), column(own)), *unit),
            Content::Parquet { files, columns } => (Source::Files(files.clone(), column(&columns.text)), Unit::Line),
            _ => {
                let message = format!("the set is for {}, not for text", request.card.modality.join(", "));
                return Err(DataError::Card { origin: format!("data set card {}", request.card.name), message });
            }
        };
        let unit = request.unit.unwrap_or(unit);
        Ok(Self { source, unit, range: 0..usize::MAX, origin: content.describe() })
    }

    /// The number of entries, or of characters in documents, of the whole part: reads all of it.
    fn total(&self) -> Result<usize> {
        let mut ignore = |_: Piece<'_>| Ok(ControlFlow::Continue(()));
        let mut sink = Sink::new(self.unit, 0..usize::MAX, &mut ignore);
        self.read(&mut sink)?;
        Ok(sink.position())
    }

    /// What an entry is.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// Where they come from, in a few words.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Walk over all entries, piece by piece, until there is none left or `visit` breaks off.
    ///
    /// # Errors
    /// What the files are refused for, with file, line and byte; what `visit` returns.
    pub fn visit(&self, visit: &mut dyn FnMut(Piece<'_>) -> Result<ControlFlow<()>>) -> Result<Tally> {
        let mut forward = |piece: Piece<'_>| visit(piece);
        let mut sink = Sink::new(self.unit, self.range.clone(), &mut forward);
        self.read(&mut sink)?;
        Ok(sink.tally)
    }

    fn read(&self, sink: &mut Sink<'_>) -> Result<()> {
        match &self.source {
            Source::Grammar(grammar) => {
                for index in 0..grammar.len() {
                    if sink.entry(&grammar.sentence(index))?.is_break() {
                        break;
                    }
                }
            }
            Source::Files(files, column) => {
                for path in files {
                    if read_file(path, column, self.unit, sink)?.is_break() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The format goes by the extension, `.gz` apart.
fn read_file(path: &Path, column: &str, unit: Unit, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit('.').next() {
        Some("parquet") => read_table(path, column, sink),
        Some("jsonl" | "ndjson" | "json") => read_json(path, column, sink),
        _ => read_plain(path, unit, sink),
    }
}
