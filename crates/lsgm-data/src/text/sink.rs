//! Where all readers deliver: entries are counted, cut to a range, and handed on in pieces.

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};

use serde::{Deserialize, Serialize};

use crate::Result;

/// Most bytes of a [`Piece`].
pub const PIECE: usize = 1 << 16;

/// What an entry of a plain text file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Each line, without its line end. Empty lines are left out. Shares of a split count lines.
    #[default]
    Line,
    /// The whole file, line ends included. Shares of a split count characters.
    Document,
}

/// A stretch of an entry, at most [`PIECE`] bytes, cut before white space where there is some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The text.
    pub text: &'a str,
    /// Whether the entry begins here.
    pub begins: bool,
    /// Whether the entry ends here.
    pub ends: bool,
}

/// What a walk met on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// Entries that are not empty.
    pub entries: usize,
    /// Characters (Unicode scalar values) in them.
    pub characters: usize,
    /// Lines or rows without a character, which are left out.
    pub empty: usize,
    /// Windows line ends (`\r\n`), which are read as `\n`.
    pub carriage_returns: usize,
}

/// What a walk hands its pieces to.
pub(super) type Visit<'a> = dyn FnMut(Piece<'_>) -> Result<ControlFlow<()>> + 'a;

/// Takes the entries of all files one after another and hands on those in `range`.
pub(super) struct Sink<'a> {
    unit: Unit,
    /// In entries, or in characters for documents.
    range: Range<usize>,
    visit: &'a mut Visit<'a>,
    /// Entries, or characters for documents, that have gone by.
    at: usize,
    /// Whether the entry that is open has shown a character.
    open: bool,
    /// Whether a piece of it was handed on.
    begun: bool,
    pub(super) tally: Tally,
}

impl<'a> Sink<'a> {
    pub(super) fn new(unit: Unit, range: Range<usize>, visit: &'a mut Visit<'a>) -> Self {
        Self { unit, range, visit, at: 0, open: false, begun: false, tally: Tally::default() }
    }

    /// Entries, or characters for documents, that have gone by.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// A whole entry.
    pub(super) fn entry(&mut self, text: &str) -> Result<ControlFlow<()>> {
        let plain = match text.contains("\r\n") {
            true => Cow::Owned(text.replace("\r\n", "\n")),
            false => Cow::Borrowed(text),
        };
        self.tally.carriage_returns += text.len() - plain.len();
        let mut text = plain.as_ref();
        while text.len() > PIECE {
            let (piece, rest) = text.split_at(cut(text.as_bytes(), PIECE));
            if self.piece(piece, false)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            text = rest;
        }
        self.piece(text, true)
    }

    /// A stretch of the entry that is open; `ends` closes it.
    pub(super) fn piece(&mut self, text: &str, ends: bool) -> Result<ControlFlow<()>> {
        if self.at >= self.range.end {
            return Ok(ControlFlow::Break(()));
        }
        self.open |= !text.is_empty();
        if !self.open {
            self.tally.empty += usize::from(ends);
            return Ok(ControlFlow::Continue(()));
        }
        let flow = match self.unit {
            Unit::Line => self.line(text, ends)?,
            Unit::Document => self.characters(text, ends)?,
        };
        if ends {
            (self.open, self.begun) = (false, false);
        }
        Ok(flow)
    }

    fn line(&mut self, text: &str, ends: bool) -> Result<ControlFlow<()>> {
        let wanted = self.at >= self.range.start;
        self.at += usize::from(ends);
        if wanted { self.hand_on(text, ends) } else { Ok(ControlFlow::Continue(())) }
    }

    /// The characters of the piece that lie in the range; the range's end ends the entry too.
    fn characters(&mut self, text: &str, ends: bool) -> Result<ControlFlow<()>> {
        let count = text.chars().count();
        let first = self.range.start.clamp(self.at, self.at + count) - self.at;
        let last = self.range.end.clamp(self.at, self.at + count) - self.at;
        let full = self.at + count >= self.range.end;
        self.at += count;
        let byte = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
        let inside = &text[byte(first)..byte(last)];
        if inside.is_empty() && !(ends && self.begun) {
            return Ok(ControlFlow::Continue(()));
        }
        let flow = self.hand_on(inside, ends || full)?;
        Ok(if full { ControlFlow::Break(()) } else { flow })
    }

    fn hand_on(&mut self, text: &str, ends: bool) -> Result<ControlFlow<()>> {
        self.tally.characters += text.chars().count();
        self.tally.entries += usize::from(ends);
        let begins = !std::mem::replace(&mut self.begun, true);
        (self.visit)(Piece { text, begins, ends })
    }
}

/// The largest cut at or below `limit` that parts no character: before white space if there is some in the last
/// kilobyte, so that no word is parted either. `bytes` are longer than `limit` and UTF-8 up to their last character.
pub(super) fn cut(bytes: &[u8], limit: usize) -> usize {
    let near = limit.saturating_sub(1024).max(1);
    // A Windows line end is one end.
    let is_space = |at: &usize| bytes[*at].is_ascii_whitespace() && bytes[at - 1..=*at] != *b"\r\n";
    if let Some(at) = (near..limit).rev().find(is_space) {
        return at;
    }
    let is_start = |at: &usize| (bytes[*at] as i8) >= -0x40;
    (1..=limit).rev().find(is_start).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(unit: Unit, range: Range<usize>, entries: &[&str]) -> (Vec<(String, bool, bool)>, Tally) {
        let mut seen = Vec::new();
        let mut visit = |p: Piece<'_>| {
            seen.push((p.text.to_owned(), p.begins, p.ends));
            Ok(ControlFlow::Continue(()))
        };
        let mut sink = Sink::new(unit, range, &mut visit);
        for entry in entries {
            if sink.entry(entry).unwrap().is_break() {
                break;
            }
        }
        let tally = sink.tally;
        (seen, tally)
    }

    #[test]
    fn ranges_of_lines_leave_empty_ones_out_of_the_count() {
        let (seen, tally) = walk(Unit::Line, 1..3, &["a", "", "b", "c", "d"]);
        assert_eq!(seen, [("b".to_owned(), true, true), ("c".to_owned(), true, true)]);
        assert_eq!((tally.entries, tally.characters, tally.empty), (2, 2, 1));
    }

    #[test]
    fn ranges_of_characters_cut_documents_and_never_overlap() {
        let documents = ["ábcde", "fgh"];
        let text = |range| walk(Unit::Document, range, &documents).0;
        assert_eq!(text(0..4), [("ábcd".to_owned(), true, true)]);
        assert_eq!(text(4..6), [("e".to_owned(), true, true), ("f".to_owned(), true, true)]);
        assert_eq!(text(6..9), [("gh".to_owned(), true, true)]);
    }

    #[test]
    fn long_entries_come_in_pieces_that_join_again() {
        for text in ["word ".repeat(40_000), "ö".repeat(70_000), "x".repeat(PIECE)] {
            let (seen, tally) = walk(Unit::Line, 0..9, &[&text]);
            assert_eq!(seen.iter().map(|s| s.0.as_str()).collect::<String>(), text);
            assert!(seen.iter().all(|s| s.0.len() <= PIECE && !s.0.is_empty()));
            assert!(seen.iter().enumerate().all(|(i, s)| (s.1, s.2) == (i == 0, i + 1 == seen.len())));
            assert_eq!(tally.entries, 1);
        }
    }
}
