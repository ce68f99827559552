//! Config types as they stand in the sources: names, doc comments, serde attributes.
//!
//! This reads what rustfmt writes, line by line, and no more of Rust than a config type needs. [`super::config`] holds
//! the result against the keys that the types themselves have, so that nothing is missed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A type that a config is read to.
#[derive(Debug, Clone)]
pub(super) struct Type {
    pub(super) docs: String,
    pub(super) body: Body,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    /// Keys of a section.
    Struct(Vec<Field>),
    /// Variants, and the key that chooses between them where there is one.
    Enum(Option<String>, Vec<Variant>),
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) docs: String,
    /// As it is written, such as `Option<u64>`.
    pub(super) of: String,
    /// Its keys stand beside those of the section around it.
    pub(super) flatten: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) docs: String,
    /// The type with the variant's keys.
    pub(super) of: Option<String>,
    /// Keys that are written in the variant itself.
    pub(super) fields: Vec<Field>,
}

/// The sections of a modality, as types.
#[derive(Debug, Clone, Default)]
pub(super) struct ModalityTypes {
    /// The crate it is written in.
    pub(super) krate: String,
    pub(super) docs: String,
    pub(super) data: String,
    pub(super) model: String,
}

/// Everything found in the crates of the workspace.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// By crate and name.
    types: BTreeMap<(String, String), Type>,
    /// By the name that a config chooses them by.
    pub(super) modalities: BTreeMap<String, ModalityTypes>,
}

impl Sources {
    /// Read every source file of every crate in `crates`.
    pub(super) fn read(crates: &Path) -> Self {
        let mut sources = Self::default();
        let mut folders: Vec<_> = fs::read_dir(crates).unwrap().map(|e| e.unwrap().path()).collect();
        folders.sort();
        for folder in folders {
            let krate = folder.file_name().unwrap().to_string_lossy().into_owned();
            sources.read_folder(&krate, &folder.join("src"));
        }
        sources
    }

    fn read_folder(&mut self, krate: &str, folder: &Path) {
        let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                self.read_folder(krate, &path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                self.read_text(krate, &fs::read_to_string(&path).unwrap());
            }
        }
    }

    fn read_text(&mut self, krate: &str, text: &str) {
        let mut docs = BTreeMap::new();
        let mut lines = Lines::new(text, 0);
        while let Some(item) = lines.item() {
            let Some((kind, name)) = declared(&item.line) else { continue };
            if kind == "impl" {
                let body = lines.block();
                let value = |key: &str| {
                    let line = body.lines().find_map(|l| l.trim().strip_prefix(key))?;
                    Some(line.trim_start_matches([' ', '=']).trim_end_matches(';').trim_matches('"').to_owned())
                };
                if let (Some(tag), Some(data), Some(model)) =
                    (value("const NAME: &'static str"), value("type Data"), value("type Model"))
                {
                    let docs = docs.get(&name).cloned().unwrap_or_default();
                    self.modalities.insert(tag, ModalityTypes { krate: krate.to_owned(), docs, data, model });
                }
                continue;
            }
            docs.insert(name.clone(), item.docs.clone());
            if is_section(&item) {
                let body = if item.line.ends_with('}') { String::new() } else { lines.block() };
                let body = match kind {
                    "struct" => Body::Struct(fields(&body, 4)),
                    _ => Body::Enum(attribute(&item.attributes, "tag"), variants(&body, &item.attributes)),
                };
                self.types.insert((krate.to_owned(), name), Type { docs: item.docs, body });
            }
        }
    }

    /// The type `name` as `krate` sees it: of the crate that its path begins with, else its own, else the only one of that
    /// name.
    pub(super) fn find(&self, krate: &str, name: &str) -> Option<(&str, &Type)> {
        let (krate, name) = match name.rsplit_once("::") {
            Some((path, name)) if path.starts_with("lsgm_") => {
                (path.split("::").next().unwrap_or(path).replace('_', "-"), name)
            }
            Some((_, name)) => (krate.to_owned(), name),
            None => (krate.to_owned(), name),
        };
        if let Some(((krate, _), found)) = self.types.get_key_value(&(krate.clone(), name.to_owned())) {
            return Some((krate, found));
        }
        let mut named = self.types.iter().filter(|((_, n), _)| n == name);
        match (named.next(), named.next()) {
            (Some(((krate, _), found)), None) => Some((krate, found)),
            (Some(_), Some(_)) => panic!("several types are called {name}, and {krate} has none of its own"),
            _ => None,
        }
    }
}

/// Whether a config is read to this type key by key; other types are values to the reader.
fn is_section(item: &Item) -> bool {
    let as_value = ["untagged", "transparent", "try_from", "from"].iter().any(|word| has_word(&item.attributes, word));
    has_word(&item.attributes, "Deserialize") && item.line.ends_with(['{', '}']) && !as_value
}

/// What a line at the outermost level declares: `struct`, `enum`, or `impl` of a modality, and its name.
fn declared(line: &str) -> Option<(&'static str, String)> {
    let line = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
    for (start, kind) in [("struct ", "struct"), ("enum ", "enum"), ("impl Modality for ", "impl")] {
        if let Some(rest) = line.strip_prefix(start) {
            let name = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            return Some((kind, name));
        }
    }
    None
}

fn fields(body: &str, indent: usize) -> Vec<Field> {
    let mut lines = Lines::new(body, indent);
    let mut found = Vec::new();
    while let Some(item) = lines.item() {
        let line =
            item.line.strip_prefix("pub(crate) ").or_else(|| item.line.strip_prefix("pub ")).unwrap_or(&item.line);
        let Some((name, of)) = line.split_once(": ") else { continue };
        if has_word(&item.attributes, "skip") {
            continue;
        }
        let name = attribute(&item.attributes, "rename").unwrap_or_else(|| name.trim_start_matches("r#").to_owned());
        let of = of.trim_end_matches(',').to_owned();
        found.push(Field { name, docs: item.docs, of, flatten: has_word(&item.attributes, "flatten") });
    }
    found
}

fn variants(body: &str, attributes: &str) -> Vec<Variant> {
    let case = attribute(attributes, "rename_all").unwrap_or_default();
    let mut lines = Lines::new(body, 4);
    let mut found = Vec::new();
    while let Some(item) = lines.item() {
        let name: String = item.line.chars().take_while(|c| c.is_alphanumeric()).collect();
        if !name.starts_with(|c: char| c.is_ascii_uppercase()) {
            continue;
        }
        let of = item.line.split_once('(').map(|(_, of)| of.trim_end_matches([',', ')']).to_owned());
        let fields = if item.line.ends_with('{') { fields(&lines.block(), 8) } else { Vec::new() };
        let name = attribute(&item.attributes, "rename").unwrap_or_else(|| renamed(&name, &case));
        found.push(Variant { name, docs: item.docs, of, fields });
    }
    found
}

/// The value of a serde attribute, such as `kind` of `tag = "kind"`.
fn attribute(attributes: &str, key: &str) -> Option<String> {
    let start = attributes.match_indices(&format!("{key} = \"")).find(|(at, _)| {
        // `rename` is the end of no other key, but `tag` and others might be.
        !attributes[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
    })?;
    let value = &attributes[start.0 + key.len() + 4..];
    Some(value[..value.find('"')?].to_owned())
}

fn has_word(attributes: &str, word: &str) -> bool {
    attributes.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == word)
}

/// A variant's name in the case that serde writes it in.
fn renamed(name: &str, case: &str) -> String {
    let separator = match case {
        "kebab-case" => "-",
        "snake_case" => "_",
        "lowercase" => "",
        _ => return name.to_owned(),
    };
    let mut text = String::new();
    for (i, c) in name.char_indices() {
        if c.is_ascii_uppercase() && i > 0 {
            text.push_str(separator);
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// A line with the doc comment and the attributes above it.
struct Item {
    docs: String,
    attributes: String,
    line: String,
}

/// The lines of a block at one depth of indentation.
struct Lines<'a> {
    lines: std::iter::Peekable<std::str::Lines<'a>>,
    indent: String,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str, indent: usize) -> Self {
        Self { lines: text.lines().peekable(), indent: " ".repeat(indent) }
    }

    /// The next line that is no comment and no attribute.
    fn item(&mut self) -> Option<Item> {
        let mut item = Item { docs: String::new(), attributes: String::new(), line: String::new() };
        while let Some(line) = self.lines.next() {
            let inner = line.strip_prefix(&self.indent).filter(|l| !l.starts_with([' ', '}']) && !l.is_empty());
            let Some(inner) = inner else { continue };
            if let Some(text) = inner.strip_prefix("///") {
                item.docs.push_str(if item.docs.is_empty() { text.trim_start() } else { text });
                if text.is_empty() {
                    item.docs.push('\n');
                }
            } else if inner.starts_with("#[") {
                item.attributes.push_str(inner);
                while !self.balanced(&item.attributes) {
                    item.attributes.push_str(self.lines.next()?.trim());
                }
            } else if !inner.starts_with("//") {
                item.line = inner.to_owned();
                return Some(item);
            }
        }
        None
    }

    fn balanced(&self, attributes: &str) -> bool {
        attributes.matches('[').count() == attributes.matches(']').count()
    }

    /// The lines up to the brace that closes the block of the last item.
    fn block(&mut self) -> String {
        let end = format!("{}}}", self.indent);
        let mut text = String::new();
        for line in self.lines.by_ref() {
            if line.starts_with(&end) {
                break;
            }
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

#[test]
fn a_type_is_read_with_docs_and_attributes() {
    let text = r#"
/// Which one.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Choice {
    /// The first,
    /// of two.
    FirstOne(First),
    #[serde(rename = "2nd")]
    Second {
        /// How much.
        much: f64,
    },
}

#[derive(
    Deserialize
)]
struct First {
    /// Steps.
    #[serde(
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) steps: Option<u64>,
    #[serde(skip)]
    hidden: u8,
}

/// Mine.
pub struct Mine;

impl Modality for Mine {
    const NAME: &'static str = "mine";
    type Data = crate::First;
    type Model = Choice;
}
"#;
    let mut sources = Sources::default();
    sources.read_text("a", text);
    let (_, choice) = sources.find("a", "Choice").unwrap();
    let Body::Enum(tag, variants) = &choice.body else { panic!("{choice:?}") };
    assert_eq!((tag.as_deref(), choice.docs.as_str()), (Some("kind"), "Which one."));
    assert_eq!((variants[0].name.as_str(), variants[0].of.as_deref()), ("first-one", Some("First")));
    assert_eq!(variants[0].docs, "The first, of two.");
    assert_eq!((variants[1].name.as_str(), variants[1].fields[0].name.as_str()), ("2nd", "much"));
    let (_, first) = sources.find("b", "crate::First").unwrap();
    let Body::Struct(fields) = &first.body else { panic!("{first:?}") };
    assert_eq!(fields.len(), 1);
    assert_eq!((fields[0].name.as_str(), fields[0].of.as_str()), ("steps", "Option<u64>"));
    let mine = &sources.modalities["mine"];
    assert_eq!((mine.docs.as_str(), mine.data.as_str(), mine.model.as_str()), ("Mine.", "crate::First", "Choice"));
}
