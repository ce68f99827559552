//! Comma-separated values (RFC 4180).

use std::path::Path;

use crate::{DataError, Result, TextTable};

/// Read a whole file; the first record holds the names of the columns.
pub(crate) fn read_csv(path: &Path) -> Result<TextTable> {
    let bytes = std::fs::read(path).map_err(|e| DataError::io(path, e))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        DataError::corrupt(path, format!("line {line}"), "the file is not UTF-8 text")
    })?;
    let fault = |line: usize, message: String| DataError::corrupt(path, format!("line {line}"), message);
    let mut records = Records { rest: text.trim_start_matches('\u{feff}'), line: 1 };
    let names = match records.next() {
        Some(record) => record.map_err(|(line, message)| fault(line, message.to_owned()))?.1,
        None => return Err(fault(1, "the file is empty: the first line must name the columns".into())),
    };
    let mut columns = vec![Vec::new(); names.len()];
    for record in records {
        let (line, fields) = record.map_err(|(line, message)| fault(line, message.to_owned()))?;
        if fields.len() != names.len() {
            return Err(fault(line, format!("{} values for {} columns", fields.len(), names.len())));
        }
        columns.iter_mut().zip(fields).for_each(|(column, field)| column.push(field));
    }
    Ok(TextTable { names, columns })
}

/// The file that [`read_csv`] reads to `table`.
pub(crate) fn write_csv(table: &TextTable) -> String {
    let mut text = record(table.names.iter());
    for row in 0..table.rows() {
        text.push_str(&record(table.columns.iter().map(|column| &column[row])));
    }
    text
}

fn record<'a>(fields: impl Iterator<Item = &'a String>) -> String {
    let quoted = |field: &String| match field.is_empty() || field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.clone(),
    };
    fields.map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

/// Records one after another, each with the line it starts at. Empty lines are no records.
struct Records<'a> {
    rest: &'a str,
    line: usize,
}

impl Iterator for Records<'_> {
    type Item = Result<(usize, Vec<String>), (usize, &'static str)>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(rest) = self.rest.strip_prefix('\n').or_else(|| self.rest.strip_prefix("\r\n")) {
            (self.rest, self.line) = (rest, self.line + 1);
        }
        if self.rest.is_empty() {
            return None;
        }
        let first = self.line;
        let mut fields = Vec::new();
        loop {
            match self.field() {
                Ok(field) => fields.push(field),
                Err(message) => {
                    let line = self.line;
                    self.rest = "";
                    return Some(Err((line, message)));
                }
            }
            match self.rest.strip_prefix(',') {
                Some(rest) => self.rest = rest,
                None => break,
            }
        }
        if let Some(rest) = self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n')) {
            (self.rest, self.line) = (rest, self.line + 1);
        }
        Some(Ok((first, fields)))
    }
}

impl Records<'_> {
    /// The next field, up to a comma or the end of its line.
    fn field(&mut self) -> Result<String, &'static str> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
            let (field, rest) = self.rest.split_at(end);
            // The return of a line's end stays for the record.
            let field = if rest.starts_with('\n') { field.strip_suffix('\r').unwrap_or(field) } else { field };
            if field.contains('"') {
                return Err("a quote inside a value: put the whole value in quotes, and double those inside");
            }
            self.rest = &self.rest[field.len()..];
            return Ok(field.to_owned());
        };
        self.rest = quoted;
        let mut field = String::new();
        loop {
            let end = self.rest.find('"').ok_or("a quoted value has no end")?;
            let (part, rest) = self.rest.split_at(end);
            field.push_str(part);
            self.line += part.matches('\n').count();
            self.rest = &rest[1..];
            match self.rest.strip_prefix('"') {
                Some(rest) => {
                    field.push('"');
                    self.rest = rest;
                }
                None if self.rest.is_empty() || self.rest.starts_with([',', '\n', '\r']) => return Ok(field),
                None => return Err("text after the closing quote of a value"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TextTable> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        read_csv(&path)
    }

    #[test]
    fn quotes_line_ends_and_missing_values() {
        let table = read("\u{feff}a,b\r\n1,\"x, \"\"y\"\"\nz\"\r\n\n,\r\n3,w").unwrap();
        assert_eq!(table.names, ["a", "b"]);
        assert_eq!(table.columns, [["1", "", "3"], ["x, \"y\"\nz", "", "w"]]);
        assert_eq!(read("a\n").unwrap().rows(), 0);
        assert_eq!(read(&table.to_csv()).unwrap(), table);
    }

    #[test]
    fn faults_are_told_with_their_line() {
        for (text, line, part) in [
            ("", 1, "empty"),
            ("a,b\n1,2\n3\n", 3, "1 values for 2 columns"),
            ("a\n\"x\ny\"\n\"z\n", 4, "no end"),
            ("a\nx\"y\n", 2, "quote inside"),
            ("a\n\"x\"y\n", 2, "after the closing quote"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(&format!("line {line}:")) && message.contains(part), "{text:?}: {message}");
        }
    }
}
