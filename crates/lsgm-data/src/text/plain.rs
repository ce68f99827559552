//! Plain text, gzip or not, as lines or as one document.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::ops::ControlFlow;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::sink::{PIECE, Sink, Unit, cut};
use crate::{DataError, Result};

/// The bytes of a file, decompressed where it is gzip by its first bytes.
pub(super) fn reader(path: &Path) -> Result<Box<dyn BufRead>> {
    let mut file = File::open(path).map_err(|e| DataError::io(path, e))?;
    let mut magic = [0; 2];
    let read = file.read(&mut magic).map_err(|e| DataError::io(path, e))?;
    let whole = BufReader::with_capacity(PIECE, std::io::Cursor::new(magic).take(read as u64).chain(file));
    match magic {
        [0x1f, 0x8b] => Ok(Box::new(BufReader::with_capacity(PIECE, MultiGzDecoder::new(whole)))),
        _ => Ok(Box::new(whole)),
    }
}

/// Hand the entries of a file to `sink`.
pub(super) fn read_plain(path: &Path, unit: Unit, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
    let mut stretches = Stretches { path, pending: Vec::new(), line: 1, offset: 0 };
    let mut reader = reader(path)?;
    loop {
        let bytes = match reader.fill_buf() {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(stretches.unreadable(e)),
        };
        if bytes.is_empty() {
            return stretches.finish(unit, sink);
        }
        // A line's end is looked for before anything is copied, so that `pending` stays short.
        let (taken, ended) = match bytes.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (bytes.len(), false),
        };
        stretches.pending.extend_from_slice(&bytes[..taken]);
        reader.consume(taken);
        if stretches.take(unit, ended, sink)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}

/// Bytes that were read and not handed on yet.
struct Stretches<'a> {
    path: &'a Path,
    pending: Vec<u8>,
    /// Number of the line at the start of `pending`, from 1.
    line: usize,
    /// Bytes of the file before `pending`.
    offset: u64,
}

impl Stretches<'_> {
    /// After more bytes have come: hand on a line that ended, or whatever is too long to be kept.
    fn take(&mut self, unit: Unit, ended: bool, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
        let mut flow = ControlFlow::Continue(());
        while self.pending.len() > PIECE && flow.is_continue() {
            let at = cut(&self.pending, PIECE);
            flow = self.hand_on(at, false, sink)?;
        }
        if flow.is_break() || !ended {
            return Ok(flow);
        }
        match unit {
            Unit::Line => self.line(sink),
            // Short lines of a document are collected to pieces.
            Unit::Document if self.pending.len() > PIECE / 2 => self.hand_on(self.pending.len(), false, sink),
            Unit::Document => Ok(flow),
        }
    }

    /// A line that ended, without its end.
    fn line(&mut self, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
        let end = if self.pending.ends_with(b"\r\n") { 2 } else { 1 };
        sink.tally.carriage_returns += end - 1;
        let flow = self.hand_on(self.pending.len() - end, true, sink)?;
        self.pending.clear();
        self.offset += end as u64;
        self.line += 1;
        Ok(flow)
    }

    /// The end of the file.
    fn finish(&mut self, unit: Unit, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
        if unit == Unit::Line && self.pending.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        self.hand_on(self.pending.len(), true, sink)
    }

    fn hand_on(&mut self, length: usize, ends: bool, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
        let text = std::str::from_utf8(&self.pending[..length]).map_err(|e| self.not_utf8(e.valid_up_to()))?;
        let lines = text.matches('\n').count();
        let text = if self.offset == 0 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
        let windows = text.matches("\r\n").count();
        sink.tally.carriage_returns += windows;
        let flow = match windows {
            0 => sink.piece(text, ends)?,
            _ => sink.piece(&text.replace("\r\n", "\n"), ends)?,
        };
        self.pending.drain(..length);
        self.offset += length as u64;
        self.line += lines;
        Ok(flow)
    }

    fn not_utf8(&self, valid: usize) -> DataError {
        let line = self.line + self.pending[..valid].iter().filter(|b| **b == b'\n').count();
        let (byte, value) = (self.offset + valid as u64, self.pending.get(valid).copied().unwrap_or_default());
        DataError::Text {
            path: self.path.to_owned(),
            place: format!("line {line}, byte {byte}"),
            message: format!("0x{value:02x} is not UTF-8; convert the file, for example with `iconv -t utf-8`"),
        }
    }

    fn unreadable(&self, error: std::io::Error) -> DataError {
        match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                DataError::corrupt(self.path, format!("line {}", self.line), format!("damaged gzip: {error}"))
            }
            _ => DataError::io(self.path, error),
        }
    }
}
