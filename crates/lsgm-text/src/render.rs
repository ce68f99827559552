//! Items as text a person can read, or as JSON lines.

use lsgm_core::{Arrangement, Artifact, Error, Result};
use serde_json::{Value, json};

/// Texts in an arrangement. In plain text an item is a line; where items have line ends of their own, lines of dashes part
/// them. Pairs and paths are parted by empty lines.
pub(crate) fn plain(texts: &[String], arrangement: Arrangement) -> Artifact {
    let mut page = String::new();
    let many_lines = texts.iter().any(|t| t.contains('\n'));
    let group = match arrangement {
        Arrangement::Samples => 1,
        Arrangement::Pairs => 2,
        Arrangement::Paths(steps) => steps.max(1),
    };
    for (index, group_of) in texts.chunks(group).enumerate() {
        if index > 0 && many_lines {
            page.push_str("----------\n");
        } else if index > 0 && group > 1 {
            page.push('\n');
        }
        for (place, text) in group_of.iter().enumerate() {
            if place > 0 && many_lines {
                page.push_str("---\n");
            }
            page.push_str(text);
            page.push('\n');
        }
    }
    Artifact { suffix: String::new(), extension: "txt", bytes: page.into_bytes() }
}

/// The same as JSON lines: `{"text"}`, `{"original", "reconstruction"}` or `{"path": []}`.
pub(crate) fn json_lines(texts: &[String], arrangement: Arrangement) -> Result<Artifact> {
    let objects: Vec<Value> = match arrangement {
        Arrangement::Samples => texts.iter().map(|text| json!({ "text": text })).collect(),
        Arrangement::Pairs => {
            texts.chunks(2).map(|pair| json!({ "original": pair.first(), "reconstruction": pair.get(1) })).collect()
        }
        Arrangement::Paths(steps) => texts.chunks(steps.max(1)).map(|path| json!({ "path": path })).collect(),
    };
    let mut bytes = Vec::new();
    for object in objects {
        serde_json::to_writer(&mut bytes, &object).map_err(|e| Error::Other(e.into()))?;
        bytes.push(b'\n');
    }
    Ok(Artifact { suffix: String::new(), extension: "jsonl", bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(texts: &[&str], arrangement: Arrangement) -> String {
        let texts: Vec<String> = texts.iter().map(|t| t.to_string()).collect();
        String::from_utf8(plain(&texts, arrangement).bytes).unwrap()
    }

    #[test]
    fn a_page_shows_what_belongs_together() {
        assert_eq!(page(&["a", "b"], Arrangement::Samples), "a\nb\n");
        assert_eq!(page(&["a", "b", "c", "d"], Arrangement::Pairs), "a\nb\n\nc\nd\n");
        assert_eq!(page(&["a\nb", "c"], Arrangement::Samples), "a\nb\n----------\nc\n");
        assert_eq!(page(&["a", "b", "c", "d", "e", "f"], Arrangement::Paths(3)), "a\nb\nc\n\nd\ne\nf\n");
    }

    #[test]
    fn json_lines_hold_any_text() {
        let texts = ["a\n\"".to_owned(), "b".to_owned()];
        let lines = String::from_utf8(json_lines(&texts, Arrangement::Pairs).unwrap().bytes).unwrap();
        let value: Value = serde_json::from_str(lines.trim()).unwrap();
        assert_eq!(value, json!({ "original": "a\n\"", "reconstruction": "b" }));
        assert_eq!(lines.lines().count(), 1);
    }
}
