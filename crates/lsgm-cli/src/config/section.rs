//! One typed section of a config: reading it from a [`Tree`], writing it back complete.

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::de::{Problem, ProblemKind, from_value};
use super::suggest::{is_close, nearest};
use super::tree::{Tree, fill_defaults};
use crate::{Error, Result};

/// The section `name`: what the user wrote over the defaults of `T`.
pub(crate) fn read<T: Serialize + DeserializeOwned + Default>(tree: &Tree, name: &str) -> Result<T> {
    let defaults = write(name, &T::default())?;
    let mut value = tree.values.get(name).cloned().unwrap_or_else(|| Value::Table(Table::new()));
    if let (Value::Table(values), Value::Table(defaults)) = (&mut value, &defaults) {
        fill_defaults(values, defaults);
    }
    from_value(&value, &[name]).map_err(|problem| explain(&problem, tree, &[(name, defaults)]))
}

/// The value of a section as TOML.
pub(crate) fn write<T: Serialize>(name: &str, value: &T) -> Result<Value> {
    Value::try_from(value).map_err(|e| {
        let message = format!("the section `[{name}]` cannot be written as TOML: {e}");
        Error::Core(lsgm_core::Error::contract("config", message))
    })
}

/// Word a problem: where, which key, what is wrong, what is near. `defaults` are sections in which a misplaced key may
/// belong.
pub(super) fn explain(problem: &Problem, tree: &Tree, defaults: &[(&str, Value)]) -> Error {
    let here = problem.path.join(".");
    let (key, message) = match &problem.kind {
        ProblemKind::UnknownKey { key, known } => {
            let full = join(&here, key);
            let message = format!("unknown key `{full}`{}", suggest_key(&here, key, known, defaults));
            (full, message)
        }
        ProblemKind::WrongType { found, expected } => {
            let message = format!("`{here}` must be {}, found {found}", plain(expected));
            (here, message)
        }
        ProblemKind::UnknownName { name, known } => {
            let message = format!("`{here}` is \"{name}\"{}", suggest_name(name, known));
            (here, message)
        }
        ProblemKind::Missing { key } => (join(&here, key), format!("`{}` must be given", join(&here, key))),
        ProblemKind::Other(message) => {
            let text = format!("`{here}`: {message}");
            (here, text)
        }
    };
    match tree.origins.find(&key) {
        Some(origin) => Error::usage(format!("{origin}: {message}")),
        None => Error::usage(format!("{}: {message}", tree.path.display())),
    }
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// The nearest known key: a sibling of similar spelling, else the same name in another section, else any sibling.
fn suggest_key(parent: &str, key: &str, known: &[String], defaults: &[(&str, Value)]) -> String {
    let sibling = nearest(key, known.iter().map(String::as_str));
    let best = match sibling {
        Some(name) if is_close(key, name) => Some(join(parent, name)),
        // The defaults may be of another kind, which has the key here.
        _ => elsewhere(key, defaults)
            .filter(|found| *found != join(parent, key))
            .or_else(|| sibling.map(|name| join(parent, name))),
    };
    match best {
        None => "; no key is known here".to_owned(),
        Some(best) => format!("; the nearest known key is `{best}` (known here: {})", known.join(", ")),
    }
}

fn suggest_name(name: &str, known: &[String]) -> String {
    match nearest(name, known.iter().map(String::as_str)) {
        Some(best) if is_close(name, best) => format!("; did you mean \"{best}\"? Known are {}", known.join(", ")),
        _ => format!("; it must be one of {}", known.join(", ")),
    }
}

/// The full key of a section that has `key`.
fn elsewhere(key: &str, defaults: &[(&str, Value)]) -> Option<String> {
    defaults.iter().find_map(|(name, value)| find_key(key, name, value.as_table()?))
}

fn find_key(key: &str, parent: &str, table: &Table) -> Option<String> {
    if table.contains_key(key) {
        return Some(join(parent, key));
    }
    table.iter().find_map(|(name, value)| find_key(key, &join(parent, name), value.as_table()?))
}

/// Rust's names of types in plain words.
fn plain(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not negative".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "variant identifier" => "a name".to_owned(),
        other if other.starts_with("struct ") || other.starts_with("internally tagged enum") => "a section".to_owned(),
        other if other.starts_with("nonzero ") || other.starts_with("a nonzero ") => {
            "a whole number above 0".to_owned()
        }
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::path::Path;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "kebab-case")]
    enum Sde {
        Vpsde(Vpsde),
        Geometric(Geometric),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Vpsde {
        beta_start: f64,
        beta_end: f64,
        steps: usize,
    }

    impl Default for Vpsde {
        fn default() -> Self {
            Self { beta_start: 0.1, beta_end: 20.0, steps: 3 }
        }
    }

    #[derive(Debug, PartialEq, Default, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Geometric {
        sigma: f64,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Weighting {
        LlIw,
        UnIw,
    }

    // Without `deny_unknown_fields`, as a user's own type may be.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Stage {
        learning_rate: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        epochs: Option<u32>,
    }

    impl Default for Stage {
        fn default() -> Self {
            Self { learning_rate: 1.0, epochs: None }
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Section {
        seed: u64,
        mixed: bool,
        sizes: Vec<usize>,
        weighting: Weighting,
        sde: Sde,
        first: Stage,
        second: Stage,
    }

    impl Default for Section {
        fn default() -> Self {
            Self {
                seed: 1,
                mixed: true,
                sizes: vec![1, 2],
                weighting: Weighting::LlIw,
                sde: Sde::Vpsde(Vpsde::default()),
                first: Stage::default(),
                second: Stage { learning_rate: 2.0, ..Stage::default() },
            }
        }
    }

    fn read_text(text: &str) -> Result<Section> {
        read(&Tree::parse(text, Path::new("a.toml"))?, "s")
    }

    fn message(text: &str) -> String {
        let message = read_text(text).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    #[test]
    fn what_is_absent_comes_from_the_default_of_the_whole_section() {
        assert_eq!(read_text("").unwrap(), Section::default());
        let s = read_text("[s]\nsizes = [4]\n[s.second]\nepochs = 3\n[s.sde]\nbeta_end = 1\n").unwrap();
        assert_eq!(s.second, Stage { learning_rate: 2.0, epochs: Some(3) });
        assert_eq!(s.sde, Sde::Vpsde(Vpsde { beta_end: 1.0, ..Vpsde::default() }));
        assert_eq!(s.sizes, [4]);
        let s = read_text("[s]\nsde = { kind = 'geometric', sigma = 1 }\nweighting = 'un-iw'\n").unwrap();
        assert_eq!((s.sde, s.weighting), (Sde::Geometric(Geometric { sigma: 1.0 }), Weighting::UnIw));
    }

    #[test]
    fn a_section_is_written_complete_and_read_back() {
        let table = Table::from_iter([("s".to_owned(), write("s", &Section::default()).unwrap())]);
        let text = toml::to_string(&table).unwrap();
        assert!(text.contains("beta_end = 20.0"), "{text}");
        assert_eq!(read_text(&text).unwrap(), Section::default());
    }

    #[test]
    fn unknown_keys_bring_place_and_nearest_key() {
        let m = message("[s]\nsede = 3\n");
        assert!(
            m.starts_with("a.toml:2: unknown key `s.sede`; the nearest known key is `s.seed` (known here: "),
            "{m}"
        );
        let m = message("[s]\nmixed = true\n[s.first]\nlerning_rate = 3\n");
        assert!(
            m.starts_with(
                "a.toml:4: unknown key `s.first.lerning_rate`; the nearest known key is `s.first.learning_rate`"
            ),
            "{m}"
        );
        let m = message("[s]\n[s.sde]\nkind = 'vpsde'\nbeta_strat = 3\n");
        assert!(
            m.starts_with("a.toml:4: unknown key `s.sde.beta_strat`; the nearest known key is `s.sde.beta_start`"),
            "{m}"
        );
        let m = message("[s]\nlearning_rate = 3\n");
        assert!(m.contains("nearest known key is `s.first.learning_rate`"), "{m}");
        let m = message("[s.sde]\nkind = 'geometric'\nbeta_start = 3\n");
        assert!(m.contains("unknown key `s.sde.beta_start`") && m.contains("known here: sigma"), "{m}");
    }

    #[test]
    fn unknown_keys_of_set_are_told_as_the_user_wrote_them() {
        let mut tree = Tree::parse("", Path::new("a.toml")).unwrap();
        tree.set_argument("s.first.epoch=3").unwrap();
        let m = read::<Section>(&tree, "s").unwrap_err().to_string();
        assert!(
            m.starts_with(
                "--set s.first.epoch=3: unknown key `s.first.epoch`; the nearest known key is `s.first.epochs`"
            ),
            "{m}"
        );
    }

    #[test]
    fn wrong_types_bring_place_expectation_and_what_was_found() {
        for (text, expected) in [
            ("[s]\nseed = 'x'\n", "a.toml:2: `s.seed` must be a whole number, not negative, found string \"x\""),
            ("[s]\nseed = -1\n", "a.toml:2: `s.seed` must be a whole number, not negative, found integer `-1`"),
            (
                "[s]\nseed = 1.5\n",
                "a.toml:2: `s.seed` must be a whole number, not negative, found floating point `1.5`",
            ),
            ("[s]\nmixed = 1\n", "a.toml:2: `s.mixed` must be true or false, found integer `1`"),
            ("[s]\nsizes = 3\n", "a.toml:2: `s.sizes` must be a list, found integer `3`"),
            (
                "[s]\nsizes = [1, 'x']\n",
                "a.toml:2: `s.sizes.1` must be a whole number, not negative, found string \"x\"",
            ),
            ("[s]\n\nfirst = 3\n", "a.toml:3: `s.first` must be a section, found integer `3`"),
            ("s = 3\n", "a.toml:1: `s` must be a section, found integer `3`"),
            (
                "[s.first]\nepochs = true\n",
                "a.toml:2: `s.first.epochs` must be a whole number, not negative, found boolean `true`",
            ),
            ("[s.sde]\nbeta_end = 'x'\n", "a.toml:2: `s.sde.beta_end` must be a number, found string \"x\""),
            ("[s.sde]\nkind = 3\n", "a.toml:2: `s.sde.kind` must be a name, found integer `3`"),
            (
                "[s]\nweighting = 'll_iw'\n",
                "a.toml:2: `s.weighting` is \"ll_iw\"; did you mean \"ll-iw\"? Known are ll-iw, un-iw",
            ),
            ("[s.sde]\nkind = 'ddpm'\n", "a.toml:2: `s.sde.kind` is \"ddpm\"; it must be one of vpsde, geometric"),
        ] {
            assert_eq!(message(text), expected);
        }
    }
}
