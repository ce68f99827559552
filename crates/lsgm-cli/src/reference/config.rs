//! `docs/config.md`: keys and doc comments from the sources, defaults from the types.

use std::path::Path;

use lsgm_engine::{EvaluateConfig, SampleConfig, TrainConfig};
use lsgm_prior::PriorConfig;
use toml::{Table, Value};

use super::source::{Body, Field, Sources, Type, Variant};
use super::workspace;
use crate::config::{TOP, Tree, section};
use crate::registry::Registry;

const INTRODUCTION: &str = "# Every config key

<!-- Made from the config types: LSGM_WRITE_DOCS=1 cargo test --release -p lsgm-cli reference -->

A config is a TOML file. What it leaves out has the default given here; `--set KEY=VALUE` on the command line goes before it,
with the full dotted key, such as `train.vae.learning_rate`. A key that is not listed is refused.

Where a section has a `kind`, its other keys are those of that kind.

## At the top

| key | default | meaning |
|---|---|---|
| `modality` | must be given | The kind of data, which the keys of `[data]` and `[autoencoder]` belong to. |
| `data_dir` | none | The folder of the user's data, which goes before what `[data]` names; `--data` sets it. |
";

/// Reads a section from a tree and gives it back complete; nothing where a key without a default is missing.
type Complete<'a> = &'a dyn Fn(&Tree) -> Option<Value>;

/// The sections that every modality has, and the crates of their types.
const COMMON: [(&str, &str, &str); 4] = [
    ("train", "lsgm-engine", "TrainConfig"),
    ("prior", "lsgm-prior", "PriorConfig"),
    ("sample", "lsgm-engine", "SampleConfig"),
    ("evaluate", "lsgm-engine", "EvaluateConfig"),
];

pub(super) fn page() -> String {
    let sources = Sources::read(&workspace().join("crates"));
    let mut page = Page { sources: &sources, text: INTRODUCTION.to_owned() };
    for (name, krate, of) in COMMON {
        let complete = |tree: &Tree| match name {
            "train" => write::<TrainConfig>(tree, name),
            "prior" => write::<PriorConfig>(tree, name),
            "sample" => write::<SampleConfig>(tree, name),
            _ => write::<EvaluateConfig>(tree, name),
        };
        page.section(&Place::new(name, krate, &complete), of, 2);
    }
    let registry = Registry::default();
    for name in registry.names() {
        let kind = registry.get(name).unwrap();
        let types = sources.modalities.get(name).unwrap_or_else(|| panic!("no `impl Modality` says NAME = \"{name}\""));
        page.heading(2, &format!("`modality = \"{name}\"`"), &plain(&types.docs));
        for (section, of) in [("data", &types.data), ("autoencoder", &types.model)] {
            let complete = |tree: &Tree| kind.read(tree).ok()?.to_toml().unwrap().remove(section);
            page.section(&Place::new(section, &types.krate, &complete), of, 3);
        }
    }
    page.text
}

fn write<T: serde::Serialize + serde::de::DeserializeOwned + Default>(tree: &Tree, name: &str) -> Option<Value> {
    Some(section::write(name, &section::read::<T>(tree, name).ok()?).unwrap())
}

/// A section of a config, with the kinds that were chosen on the way to it.
#[derive(Clone)]
struct Place<'a> {
    /// Full dotted key.
    key: String,
    /// The crate that its type is written in.
    krate: String,
    /// `key = "kind"` for every kind that is not the default.
    kinds: Vec<(String, String)>,
    complete: Complete<'a>,
}

impl<'a> Place<'a> {
    fn new(key: &str, krate: &str, complete: Complete<'a>) -> Self {
        Self { key: key.to_owned(), krate: krate.to_owned(), kinds: Vec::new(), complete }
    }

    fn below(&self, name: &str) -> Self {
        Self { key: format!("{}.{name}", self.key), ..self.clone() }
    }

    fn with_kind(&self, tag: &str, kind: &str) -> Self {
        let mut place = self.clone();
        place.kinds.push((format!("{}.{tag}", self.key), kind.to_owned()));
        place
    }

    /// The defaults of the section, those of a section that may be left out as they are when it is given; nothing where a
    /// key must be given.
    fn defaults(&self) -> Option<Table> {
        self.read(true).or_else(|| self.read(false))
    }

    fn read(&self, given: bool) -> Option<Table> {
        let mut tree = Tree::parse("", Path::new("defaults")).unwrap();
        for (key, kind) in &self.kinds {
            tree.set(key, Value::String(kind.clone()), "").unwrap();
        }
        let below = format!("{}.", self.key);
        if given && !self.kinds.iter().any(|(key, _)| key.starts_with(&below)) {
            tree.set(&self.key, Value::Table(Table::new()), "").unwrap();
        }
        let mut value = (self.complete)(&tree)?;
        for name in self.key.split('.').skip(1) {
            value = value.get(name).cloned().unwrap_or(Value::Table(Table::new()));
        }
        Some(value.as_table().cloned().unwrap_or_default())
    }
}

struct Page<'a> {
    sources: &'a Sources,
    text: String,
}

impl Page<'_> {
    fn heading(&mut self, level: usize, title: &str, docs: &str) {
        self.text.push_str(&format!("\n{} {title}\n", "#".repeat(level)));
        if !docs.is_empty() {
            self.text.push_str(&format!("\n{docs}\n"));
        }
    }

    fn section(&mut self, place: &Place<'_>, of: &str, level: usize) {
        let (krate, found) = self.sources.find(&place.krate, of).unwrap_or_else(|| panic!("`{of}` was not found"));
        let place = Place { krate: krate.to_owned(), ..place.clone() };
        self.heading(level, &format!("`[{}]`", place.key), &title(&found.docs));
        match &found.body {
            Body::Struct(fields) => self.keys(&place, fields, place.defaults(), level),
            Body::Enum(tag, variants) => {
                let tag = tag.as_deref().unwrap_or("kind");
                let default = place.defaults().and_then(|defaults| defaults.get(tag).map(shown));
                let default =
                    default.map_or("There is no default kind".to_owned(), |kind| format!("The default kind is {kind}"));
                self.text.push_str(&format!("\n{default}.\n"));
                for variant in variants {
                    self.variant(&place, tag, variant, level + 1);
                }
            }
        }
    }

    fn variant(&mut self, place: &Place<'_>, tag: &str, variant: &Variant, level: usize) {
        let place = place.with_kind(tag, &variant.name);
        let title = format!("`[{}]` with `{tag} = \"{}\"`", place.key, variant.name);
        self.heading(level, &title, &plain(&variant.docs));
        let mut defaults = place.defaults();
        defaults.iter_mut().for_each(|defaults| drop(defaults.remove(tag)));
        let fields = match variant.of.as_deref().map(|of| (of, self.sources.find(&place.krate, of))) {
            None => variant.fields.clone(),
            Some((_, Some((_, Type { body: Body::Struct(fields), .. })))) => fields.clone(),
            Some((of, _)) => panic!("`{of}` was not found"),
        };
        self.keys(&place, &fields, defaults, level);
    }

    /// A table of keys, then the sections among them.
    fn keys(&mut self, place: &Place<'_>, fields: &[Field], defaults: Option<Table>, level: usize) {
        let complete = defaults.is_some();
        let defaults = defaults.unwrap_or_default();
        let fields = self.flat(place, fields);
        for key in defaults.keys() {
            assert!(fields.iter().any(|f| f.name == *key), "`{}.{key}` was not found in the sources", place.key);
        }
        let (sections, values): (Vec<&Field>, Vec<&Field>) = fields.iter().partition(|f| self.is_section(place, f));
        if !values.is_empty() {
            self.text.push_str("\n| key | default | meaning |\n|---|---|---|\n");
        }
        for field in values {
            assert!(!field.docs.is_empty(), "`{}.{}` has no doc comment", place.key, field.name);
            let absent = if complete || field.of.starts_with("Option<") { "none" } else { "must be given" };
            let default = defaults.get(&field.name).map_or(absent.to_owned(), shown);
            let meaning = (plain(&field.docs) + &self.choices(place, field)).replace('|', "\\|");
            self.text.push_str(&format!("| `{}` | {default} | {meaning} |\n", field.name));
        }
        for field in sections {
            self.section(&place.below(&field.name), inner(&field.of), level + 1);
        }
    }

    /// Fields, those of flattened sections among them.
    fn flat(&self, place: &Place<'_>, fields: &[Field]) -> Vec<Field> {
        let each = |field: &Field| match (field.flatten, self.sources.find(&place.krate, inner(&field.of))) {
            (true, Some((_, Type { body: Body::Struct(fields), .. }))) => self.flat(place, fields),
            _ => vec![field.clone()],
        };
        fields.iter().flat_map(each).collect()
    }

    fn is_section(&self, place: &Place<'_>, field: &Field) -> bool {
        match self.sources.find(&place.krate, inner(&field.of)).map(|(_, found)| &found.body) {
            Some(Body::Struct(_)) => !field.of.starts_with("Vec<"),
            Some(Body::Enum(tag, _)) => tag.is_some(),
            None => false,
        }
    }

    /// The names that a value may have, each with its meaning.
    fn choices(&self, place: &Place<'_>, field: &Field) -> String {
        let Some((_, Type { body: Body::Enum(None, variants), .. })) =
            self.sources.find(&place.krate, inner(&field.of))
        else {
            return String::new();
        };
        let choice = |v: &Variant| {
            let docs = plain(&v.docs);
            format!("<br>`{}`: {}", v.name, docs.split("\n\n").next().unwrap_or_default())
        };
        variants.iter().map(choice).collect()
    }
}

/// The type inside `Option` and `Vec`.
fn inner(of: &str) -> &str {
    match of.split_once('<') {
        Some(("Option" | "Vec" | "Box", rest)) => inner(rest.strip_suffix('>').unwrap_or(rest)),
        _ => of,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Table(table) if table.is_empty() => "none".to_owned(),
        other => format!("`{other}`"),
    }
}

/// What a section is, without its name, which the title says.
fn title(docs: &str) -> String {
    let text = plain(docs);
    let rest = text
        .strip_prefix("Section `[")
        .and_then(|t| Some(t.split_once("]`")?.1.trim_start_matches([':', '.', ',']).trim()));
    match rest.map(|rest| (rest, rest.chars().next())) {
        Some((rest, Some(first))) => first.to_uppercase().chain(rest.chars().skip(1)).collect(),
        Some(_) => String::new(),
        None => text,
    }
}

/// Doc comments without examples and without links between items.
fn plain(docs: &str) -> String {
    let text = docs.split("```").next().unwrap_or_default();
    let text = text.replace("[`crate::", "[`").replace("[`", "`").replace("`]", "`");
    let text = text.trim().replace('\n', " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn no_section_is_left_out() {
    let known: Vec<&str> = COMMON.iter().map(|(name, ..)| *name).collect();
    let expected = ["modality", "data_dir", "data", "autoencoder"];
    assert!(TOP.iter().all(|key| known.contains(key) || expected.contains(key)), "{TOP:?}");
}
