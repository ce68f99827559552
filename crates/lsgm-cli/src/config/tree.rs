//! A config before it has types: values, and where each was written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::{Error, Result};

/// The key that chooses between variants of a section; the other keys of the section belong to that variant.
const TAG: &str = "kind";

/// Keys of a section of which one alone may be given: one from the command line replaces the one from the file.
const ALTERNATIVES: [&str; 3] = ["steps", "epochs", "time_budget"];

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In a file, at this line (from 1).
    File(PathBuf, usize),
    /// On the command line, such as `--set train.seed=1`.
    Argument(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Argument(argument) => f.write_str(argument),
        }
    }
}

/// Where keys were written, by full dotted key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Where `key`, or the innermost section around it, was written; `None` for a default.
    pub(crate) fn find(&self, key: &str) -> Option<&Origin> {
        let mut key = key;
        loop {
            if let Some(origin) = self.0.get(key) {
                return Some(origin);
            }
            key = key.rsplit_once('.')?.0;
        }
    }

    /// Forget the keys below `section`.
    fn forget_below(&mut self, section: &str) {
        self.0.retain(|key, _| !key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')));
    }

    /// Take out of `table`, which is `section`, all that does not come from the command line.
    fn keep_arguments(&mut self, table: &mut Table, section: &str) {
        table.retain(|name, value| {
            let key = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
            if matches!(self.0.get(&key), Some(Origin::Argument(_))) {
                return true;
            }
            self.0.remove(&key);
            let Value::Table(inner) = value else { return false };
            self.keep_arguments(inner, &key);
            !inner.is_empty()
        });
    }
}

/// Values from a file and from the command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    /// The file.
    pub(crate) path: PathBuf,
    pub(crate) values: Table,
    pub(crate) origins: Origins,
}

impl Tree {
    /// Read a config file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|e| Error::unreadable(path, &e))?;
        let text = String::from_utf8(text).map_err(|e| {
            let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
            Error::usage(format!("{}:{line}: the file is not UTF-8 text", path.display()))
        })?;
        Self::parse(&text, path)
    }

    /// Parse the text of the file `path`.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self> {
        let lines = Lines::new(text);
        let syntax = |e: toml::de::Error| {
            let line = e.span().map_or(1, |s| lines.at(s.start));
            Error::usage(format!("{}:{line}: not valid TOML: {}", path.display(), one_line(e.message())))
        };
        let values = text.parse::<Table>().map_err(syntax)?;
        let spans = DeTable::parse(text).map_err(syntax)?;
        let mut origins = Origins::default();
        note_lines(spans.get_ref(), "", &mut |key, offset| {
            origins.0.insert(key, Origin::File(path.to_owned(), lines.at(offset)));
        });
        Ok(Self { path: path.to_owned(), values, origins })
    }

    /// Values that no config file holds; they come from the file `path`.
    pub(crate) fn of(values: Table, path: &Path) -> Self {
        Self { path: path.to_owned(), values, origins: Origins::default() }
    }

    /// Apply one `key=value` of `--set`. The value is TOML; what is not, is taken as a string if it is a bare word.
    pub(crate) fn set_argument(&mut self, argument: &str) -> Result<()> {
        let label = format!("--set {argument}");
        let Some((key, value)) = argument.split_once('=') else {
            return Err(Error::usage(format!("{label}: write it as key=value, such as --set train.batch_size=64")));
        };
        let value = parse_value(value.trim()).map_err(|message| Error::usage(format!("{label}: {message}")))?;
        self.set(key.trim(), value, &label)
    }

    /// Set `key` (dotted) to `value`; `label` is how the user wrote it.
    pub(crate) fn set(&mut self, key: &str, value: Value, label: &str) -> Result<()> {
        let parts: Vec<&str> = key.split('.').collect();
        if parts.iter().any(|p| p.is_empty() || !p.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')) {
            return Err(Error::usage(format!("{label}: `{key}` is not a key: write names joined by dots")));
        }
        let Some((last, sections)) = parts.split_last() else { return Ok(()) };
        let mut table = &mut self.values;
        for (depth, part) in sections.iter().enumerate() {
            let entry = table.entry((*part).to_owned()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = entry else {
                let section = parts[..=depth].join(".");
                return Err(Error::usage(format!("{label}: `{section}` is a value, not a section")));
            };
            table = inner;
        }
        if *last == TAG && table.get(TAG).is_some_and(|old| *old != value) {
            // The other keys belong to the variant that was replaced, but for those that were given with the new one.
            self.origins.keep_arguments(table, &sections.join("."));
        }
        if ALTERNATIVES.contains(last) {
            table.retain(|name: &str, _| !ALTERNATIVES.contains(&name));
        }
        let replaced = table.insert((*last).to_owned(), value);
        if matches!(replaced, Some(Value::Table(_))) {
            self.origins.forget_below(key);
        }
        self.origins.0.insert(key.to_owned(), Origin::Argument(label.to_owned()));
        Ok(())
    }
}

/// Put each of `defaults` where `values` has nothing. A section of another variant keeps its own defaults.
pub(super) fn fill_defaults(values: &mut Table, defaults: &Table) {
    if !same_variant(values, defaults) {
        return;
    }
    for (key, default) in defaults {
        match (values.get_mut(key), default) {
            (None, _) => {
                values.insert(key.clone(), default.clone());
            }
            (Some(Value::Table(section)), Value::Table(defaults)) => fill_defaults(section, defaults),
            _ => {}
        }
    }
}

fn same_variant(section: &Table, defaults: &Table) -> bool {
    section.get(TAG).is_none_or(|kind| Some(kind) == defaults.get(TAG))
}

fn parse_value(text: &str) -> Result<Value, String> {
    if let Some(value) = format!("value = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("value")) {
        return Ok(value);
    }
    if text.starts_with(['"', '\'', '[', '{']) || text.contains(['\n', '\r']) {
        return Err(format!("`{text}` is not a TOML value"));
    }
    Ok(Value::String(text.to_owned()))
}

/// Call `note` with every key and the byte offset at which it is written.
fn note_lines(table: &DeTable<'_>, parent: &str, note: &mut impl FnMut(String, usize)) {
    for (name, value) in table {
        let key = if parent.is_empty() { name.get_ref().to_string() } else { format!("{parent}.{}", name.get_ref()) };
        if let DeValue::Table(inner) = value.get_ref() {
            note_lines(inner, &key, note);
        }
        note(key, name.span().start);
    }
}

/// Line numbers of byte offsets.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i).collect())
    }

    fn at(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|&newline| newline < offset)
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Tree {
        Tree::parse(text, Path::new("a.toml")).unwrap()
    }

    #[test]
    fn keys_know_their_lines() {
        let t = tree("modality = 'binary'\n\n[train]\nseed = 1\nvae.steps = 2\n[prior.sde]\nkind = 'vpsde'\n");
        let line = |key: &str| t.origins.find(key).unwrap().to_string();
        assert_eq!(line("modality"), "a.toml:1");
        assert_eq!(line("train"), "a.toml:3");
        assert_eq!(line("train.vae.steps"), "a.toml:5");
        assert_eq!(line("prior.sde.kind"), "a.toml:7");
        assert_eq!(line("prior.sde.beta_end"), "a.toml:6", "an absent key is told by its section");
        assert!(t.origins.find("sample.steps").is_none());
    }

    #[test]
    fn set_takes_toml_values_and_bare_words() {
        let mut t = tree("[train]\nseed = 1\n");
        for argument in
            ["train.seed=7", "train.vae.lr=1e-2", "data.set=mnist", "data.path=/tmp/a b", "a.b=[1, 2]", "a.c=\"x=y\""]
        {
            t.set_argument(argument).unwrap();
        }
        let expected =
            "[train]\nseed = 7\nvae.lr = 0.01\n[data]\nset = 'mnist'\npath = '/tmp/a b'\n[a]\nb = [1, 2]\nc = 'x=y'";
        assert_eq!(t.values, expected.parse::<Table>().unwrap());
        assert_eq!(t.origins.find("train.seed").unwrap().to_string(), "--set train.seed=7");
    }

    #[test]
    fn set_refuses_what_it_cannot_place() {
        let mut t = tree("[train]\nseed = 1\n");
        for (argument, part) in [
            ("train.seed", "key=value"),
            ("train..seed=1", "not a key"),
            ("=1", "not a key"),
            ("train.seed.x=1", "`train.seed` is a value, not a section"),
            ("train.seed=[1,", "not a TOML value"),
        ] {
            let message = t.set_argument(argument).unwrap_err().to_string();
            assert!(message.contains(part), "{argument}: {message}");
        }
    }

    #[test]
    fn another_variant_drops_the_keys_of_the_first() {
        let mut t = tree("[prior.sde]\nkind = 'vpsde'\nbeta_end = 20.0\n");
        t.set_argument("prior.sde.kind=geometric").unwrap();
        assert_eq!(t.values, "prior.sde.kind = 'geometric'".parse::<Table>().unwrap());
        let mut either_way = tree("[prior.network]\nkind = 'mixture'\ncomponents = 9\ntransformer.blocks = 2\n");
        for argument in ["prior.network.channels=64", "prior.network.kind=unet"] {
            either_way.set_argument(argument).unwrap();
        }
        let expected = "[prior.network]\nkind = 'unet'\nchannels = 64".parse::<Table>().unwrap();
        assert_eq!(either_way.values, expected);
        let defaults = "[prior.sde]\nkind = 'vpsde'\nbeta_start = 0.1\n[prior]\nmixed = true".parse().unwrap();
        fill_defaults(&mut t.values, &defaults);
        assert_eq!(t.values, "[prior]\nmixed = true\nsde.kind = 'geometric'".parse::<Table>().unwrap());
    }

    #[test]
    fn one_length_replaces_another() {
        let mut t = tree("[train.vae]\nsteps = 10\nlearning_rate = 1.0\n");
        t.set_argument("train.vae.time_budget=10m").unwrap();
        assert_eq!(t.values, "[train.vae]\ntime_budget = '10m'\nlearning_rate = 1.0".parse::<Table>().unwrap());
    }

    #[test]
    fn syntax_errors_name_file_and_line() {
        let message = Tree::parse("a = 1\nb = = 2\n", Path::new("x.toml")).unwrap_err().to_string();
        assert!(message.starts_with("x.toml:2: not valid TOML: "), "{message}");
        assert!(!message.contains('\n'));
    }
}
