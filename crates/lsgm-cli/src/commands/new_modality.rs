//! `lsgm new-modality NAME DIR`: a crate that compiles and trains, to be filled with a kind of data of one's own.

use std::fs;
use std::path::{Path, PathBuf};

use toml::Value;

use crate::args::NewModality;
use crate::output::Output;
use crate::registry::Registry;
use crate::{Error, Result, terminal};

const MANIFEST: &str = include_str!("../skeleton/Cargo.toml.in");
const MAIN: &str = include_str!("../skeleton/main.rs.in");
const MODALITY: &str = include_str!("../skeleton/modality.rs.in");
const CONFIG: &str = include_str!("../skeleton/config.toml.in");
const IGNORED: &str = "/target\n/runs\n";

pub(super) fn run(args: &NewModality, registry: &Registry) -> Result<()> {
    let name = &args.name;
    let type_name = check_name(name, registry)?;
    let sources = args.lsgm.as_deref().map(sources).transpose()?;
    let dependency = match &sources {
        Some(path) => format!("{{ path = {} }}", quoted(path)?),
        None => format!("\"{}\"", env!("CARGO_PKG_VERSION")),
    };
    let fill = |template: &str| {
        let text = template.replace("{{name}}", name).replace("{{type}}", &type_name);
        text.replace("{{dependency}}", &dependency).into_bytes()
    };
    let mut files = vec![
        ("Cargo.toml".to_owned(), fill(MANIFEST)),
        (".gitignore".to_owned(), IGNORED.into()),
        (format!("{name}.toml"), fill(CONFIG)),
        ("src/main.rs".to_owned(), fill(MAIN)),
        ("src/modality.rs".to_owned(), fill(MODALITY)),
    ];
    if let Some(path) = &sources {
        files.extend(shared_build(path)?);
    }
    write(&args.dir, &files)?;
    let dir = args.dir.display();
    terminal::print(&format!(
        "{dir}: a modality `{name}` that trains as it is; src/modality.rs is what you change\n\
         \n    cd {dir}\n    cargo run --release -- train {name}.toml\n    \
         cargo run --release -- sample runs/{name} --count 16 --out samples.txt\n"
    ))
}

/// The name of the type, `PianoRoll` for `piano-roll`.
fn check_name(name: &str, registry: &Registry) -> Result<String> {
    let refuse = |message: String| Err(Error::usage(format!("{name}: {message}")));
    let words: Vec<&str> = name.split('-').collect();
    let is_word = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if !words.iter().all(is_word) {
        return refuse("a name is made of small letters, digits and hyphens, such as piano-roll".to_owned());
    }
    if registry.names().any(|known| known == name) {
        return refuse("this modality exists already: choose another name".to_owned());
    }
    let type_name: String = words.iter().map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect();
    let taken = [MODALITY, MAIN].iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_'));
    if taken.into_iter().any(|identifier| identifier == type_name) {
        return refuse(format!("the skeleton uses `{type_name}` for something else: choose another name"));
    }
    Ok(type_name)
}

/// The folder of the lsgm sources, absolute.
fn sources(dir: &Path) -> Result<PathBuf> {
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
    let package = manifest.parse::<toml::Table>().ok().and_then(|t| t.get("package")?.get("name").cloned());
    if package != Some(Value::String("lsgm".to_owned())) {
        return Err(Error::usage(format!("--lsgm {}: holds no Cargo.toml of lsgm", dir.display())));
    }
    dir.canonicalize().map_err(|e| lsgm_core::Error::io(dir, e).into())
}

/// The versions of dependencies that lsgm is tested with, and its target folder: what is built there is not built again.
fn shared_build(lsgm: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let target = quoted(&lsgm.join("target"))?;
    let config = format!(
        "# Share what lsgm has built. Delete this file for a target folder of your own.\n[build]\ntarget-dir = {target}\n"
    );
    let mut files = vec![(".cargo/config.toml".to_owned(), config.into_bytes())];
    files.extend(fs::read(lsgm.join("Cargo.lock")).ok().map(|lock| ("Cargo.lock".to_owned(), lock)));
    Ok(files)
}

/// A path as a TOML string.
fn quoted(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) => Ok(Value::String(text.to_owned()).to_string()),
        None => Err(Error::usage(format!("{}: the name is not UTF-8, which a manifest cannot hold", path.display()))),
    }
}

fn write(dir: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |e| Error::from(lsgm_core::Error::io(path, e))
    };
    if dir.exists() && fs::read_dir(dir).map_err(failed(dir))?.next().is_some() {
        return Err(Error::usage(format!("{}: is not empty: name a new folder", dir.display())));
    }
    for (name, bytes) in files {
        let path = dir.join(name);
        let folder = path.parent().unwrap_or(dir);
        fs::create_dir_all(folder).map_err(failed(folder))?;
        Output::prepare(&path)?.write(bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_types_or_are_refused() {
        let registry = Registry::default();
        assert_eq!(check_name("piano-roll", &registry).unwrap(), "PianoRoll");
        assert_eq!(check_name("dna2", &registry).unwrap(), "Dna2");
        for (name, part) in [
            ("Genes", "small letters"),
            ("", "small letters"),
            ("a--b", "small letters"),
            ("2d", "small letters"),
            ("../x", "small letters"),
            ("binary", "exists already"),
            ("data", "uses `Data`"),
            ("self", "uses `Self`"),
            ("tensor", "choose another"),
        ] {
            let refused = check_name(name, &registry).map_err(|e| e.to_string());
            assert!(refused.as_ref().is_err_and(|m| m.contains(part)), "{name}: {refused:?}");
        }
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        let dir = tempfile::tempdir().unwrap();
        let args = NewModality { name: "piano-roll".into(), dir: dir.path().join("new"), lsgm: None };
        run(&args, &Registry::default()).unwrap();
        for file in ["Cargo.toml", "src/main.rs", "src/modality.rs", "piano-roll.toml"] {
            let text = fs::read_to_string(args.dir.join(file)).unwrap();
            assert!(!text.contains("{{") && !text.contains("}}"), "{file}: {text}");
        }
        let message = run(&args, &Registry::default()).unwrap_err().to_string();
        assert!(message.contains("is not empty"), "{message}");
    }
}
