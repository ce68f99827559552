//! JSON lines: one object for each line, with the text in a named field.

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;

use super::plain::read_plain;
use super::sink::{Piece, Sink, Unit};
use crate::{DataError, Result};

/// Longest line of JSON that is taken into memory.
const LONGEST: usize = 1 << 26;

/// Hand the field `column` of each line to `sink`.
pub(super) fn read_json(path: &Path, column: &str, sink: &mut Sink<'_>) -> Result<ControlFlow<()>> {
    let (mut line, mut number) = (String::new(), 0);
    let mut visit = |piece: Piece<'_>| {
        line.push_str(piece.text);
        if line.len() > LONGEST {
            let message = format!("longer than {} MiB: an object for each line is expected", LONGEST >> 20);
            return Err(refuse(path, number + 1, message));
        }
        if !piece.ends {
            return Ok(ControlFlow::Continue(()));
        }
        number += 1;
        let flow = sink.entry(&field(path, number, &line, column)?)?;
        line.clear();
        Ok(flow)
    };
    let mut lines = Sink::new(Unit::Line, 0..usize::MAX, &mut visit);
    let flow = read_plain(path, Unit::Line, &mut lines)?;
    let met = lines.tally;
    sink.tally.empty += met.empty;
    sink.tally.carriage_returns += met.carriage_returns;
    Ok(flow)
}

fn field(path: &Path, number: usize, line: &str, column: &str) -> Result<String> {
    let value: Value = serde_json::from_str(line).map_err(|e| refuse(path, number, format!("not JSON: {e}")))?;
    let Value::Object(mut fields) = value else {
        return Err(refuse(path, number, "not an object with a field for the text".into()));
    };
    match fields.remove(column) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(refuse(path, number, format!("field `{column}` is {other} instead of a text"))),
        None => {
            let names: Vec<_> = fields.keys().map(String::as_str).collect();
            let message = format!("no field `{column}`; there are: {}; name it in `data.column`", names.join(", "));
            Err(refuse(path, number, message))
        }
    }
}

/// Lines are counted without the empty ones, as a person counts entries.
fn refuse(path: &Path, number: usize, message: String) -> DataError {
    DataError::Text { path: path.to_owned(), place: format!("entry {number}"), message }
}
