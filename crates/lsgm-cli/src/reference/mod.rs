//! The reference pages `docs/config.md` and `docs/command-line.md`, made from the types, their doc comments and their
//! defaults, and from the command line's own definition.
//!
//! They exist in tests only: one test for each page tells whether it is current. With `LSGM_WRITE_DOCS=1` it is written:
//!
//! ```sh
//! LSGM_WRITE_DOCS=1 cargo test --release -p lsgm-cli reference
//! ```

mod command_line;
mod config;
mod source;

use std::path::{Path, PathBuf};

/// The root of the workspace.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compare a page with what it should be, or write it.
fn settle(name: &str, page: fn() -> String) {
    let path = workspace().join("docs").join(name);
    if !path.parent().is_some_and(Path::is_dir) {
        eprintln!("skipped: there is no docs folder beside this crate");
        return;
    }
    let text = page();
    if std::env::var_os("LSGM_WRITE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(text.lines()).take_while(|(a, b)| a == b).count() + 1;
    assert!(
        found == text,
        "docs/{name} is not current from line {line} on; `LSGM_WRITE_DOCS=1 cargo test --release -p lsgm-cli reference` writes it"
    );
}

#[test]
fn every_config_key_is_documented() {
    settle("config.md", config::page);
}

#[test]
fn every_command_is_documented() {
    settle("command-line.md", command_line::page);
}
