//! Cards: what a data set is, where it comes from, and how it is split.

mod source;
mod split;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::suggest::with_nearest_key;
use crate::{DataError, ImageSize, Result, nearest};
pub use source::{
    BuiltIn, Columns, Generator, HubLayout, HubSource, IdxPart, IdxSource, ImageFolderSource, LabelRule, MatSource,
    NamedFile, ParquetSource, SoundPart, SoundSource, Source, TextSource,
};
pub use split::{Share, SplitRule, Splits};

/// The cards that belong to the program.
const BUILT_IN: [(&str, &str); 16] = [
    ("glyphs", include_str!("../../datasets/glyphs.toml")),
    ("mnist", include_str!("../../datasets/mnist.toml")),
    ("fashion-mnist", include_str!("../../datasets/fashion-mnist.toml")),
    ("omniglot", include_str!("../../datasets/omniglot.toml")),
    ("cifar10", include_str!("../../datasets/cifar10.toml")),
    ("celeba-hq", include_str!("../../datasets/celeba-hq.toml")),
    ("ffhq", include_str!("../../datasets/ffhq.toml")),
    ("tones", include_str!("../../datasets/tones.toml")),
    ("fsdd", include_str!("../../datasets/fsdd.toml")),
    ("sc09", include_str!("../../datasets/sc09.toml")),
    ("grammar", include_str!("../../datasets/grammar.toml")),
    ("texts", include_str!("../../datasets/texts.toml")),
    ("multi30k", include_str!("../../datasets/multi30k.toml")),
    ("tiny-shakespeare", include_str!("../../datasets/tiny-shakespeare.toml")),
    ("text8", include_str!("../../datasets/text8.toml")),
    ("wikitext-2", include_str!("../../datasets/wikitext-2.toml")),
];

/// A data set card, as in `datasets/*.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Name in `data.set` and on the command line.
    pub name: String,
    /// One line for a person.
    pub title: String,
    /// The modalities that can use it.
    pub modality: Vec<String>,
    /// A few more words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Under which terms the data may be used.
    pub licence: String,
    /// Where it is documented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    /// What to cite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub citation: Option<String>,
    /// Size of images, if it consists of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSize>,
    /// What the splits consist of.
    #[serde(default)]
    pub splits: Splits,
    /// Where to take it from, in order of preference.
    pub sources: Vec<Source>,
    /// Where the card was read from.
    #[serde(skip)]
    pub origin: Origin,
}

/// Where a card was read from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// It belongs to the program.
    #[default]
    Program,
    /// A file of the user's.
    File(PathBuf),
}

impl Card {
    /// All cards of the program.
    ///
    /// # Errors
    /// None as released: a test reads them all.
    pub fn built_in() -> Result<Vec<Self>> {
        BUILT_IN.iter().map(|(name, text)| Self::parse(text, Origin::Program, name)).collect()
    }

    /// The card of this name, or in this file if it ends in `.toml`.
    ///
    /// # Errors
    /// [`DataError::UnknownSet`] with the nearest known name; a file that is missing or not a card.
    pub fn find(name: &str) -> Result<Self> {
        if name.ends_with(".toml") {
            return Self::read(Path::new(name));
        }
        match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((name, text)) => Self::parse(text, Origin::Program, name),
            None => Err(DataError::UnknownSet {
                name: name.to_owned(),
                nearest: nearest(name, BUILT_IN.map(|(known, _)| known)).map(str::to_owned),
                known: BUILT_IN.map(|(known, _)| known).join(", "),
            }),
        }
    }

    /// Read a card of the user's. Relative folders in it start at the folder of the card.
    ///
    /// # Errors
    /// A missing file; a line that is not TOML; an unknown key, with the nearest known one; a rule that makes no sense.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => DataError::corrupt(path, "card", "not UTF-8 text"),
            _ => DataError::io(path, e),
        })?;
        Self::parse(&text, Origin::File(path.to_owned()), &path.display().to_string())
    }

    fn parse(text: &str, origin: Origin, name: &str) -> Result<Self> {
        let refuse = |message: String| DataError::Card { origin: format!("data set card {name}"), message };
        let mut card: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|span| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count());
            let line = line.map(|l| format!("line {l}: ")).unwrap_or_default();
            refuse(format!("{line}{}", with_nearest_key(e.message())))
        })?;
        card.origin = origin;
        card.check().map_err(refuse)?;
        Ok(card)
    }

    fn check(&self) -> Result<(), String> {
        if self.sources.is_empty() {
            return Err("`sources` is empty: name at least one".into());
        }
        if let Some(size) = self.image.filter(|s| !matches!(s.channels, 1 | 3) || s.bytes() == 0) {
            return Err(format!("`image` is {size}: 1 or 3 channels and at least one pixel are possible"));
        }
        self.splits.check()?;
        self.sources.iter().try_for_each(Source::check)
    }

    /// Whether the set is for a modality.
    pub(crate) fn is_for(&self, modality: &str) -> bool {
        self.modality.iter().any(|m| m == modality)
    }

    /// The folder that relative paths of the card start at; none for the program's own cards.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.origin {
            Origin::Program => None,
            Origin::File(path) => Some(path.parent().unwrap_or(Path::new(""))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsgm_core::Split;

    #[test]
    fn the_cards_of_the_program_are_sound() {
        let cards = Card::built_in().unwrap();
        for (card, (name, _)) in cards.iter().zip(BUILT_IN) {
            assert_eq!(card.name, name);
            assert_eq!(Card::find(name).unwrap(), *card);
            let others = card.is_for("audio") || card.is_for("text");
            assert!(others || card.image.is_some_and(|size| size.bytes() > 0), "{name}");
            assert!(Split::ALL.iter().all(|s| card.splits.rule(*s).items != Some(0)), "{name}");
            let again: Card = toml::from_str(&toml::to_string(card).unwrap()).unwrap();
            assert_eq!(again, *card);
        }
    }

    #[test]
    fn no_card_is_forgotten() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
        let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = files.filter_map(|f| Some(f.strip_suffix(".toml")?.to_owned())).collect();
        let mut known: Vec<_> = BUILT_IN.iter().map(|(n, _)| n.to_string()).collect();
        names.sort();
        known.sort();
        assert_eq!(names, known);
    }

    #[test]
    fn unknown_names_and_keys_bring_the_nearest_known_one() {
        let error = Card::find("minst").unwrap_err().to_string();
        assert!(error.contains("did you mean `mnist`?"), "{error}");
        let error = parse(&MINIMAL.replace("title", "titel")).unwrap_err();
        assert!(error.contains("line 2: unknown field `titel`") && error.contains("did you mean `title`?"), "{error}");
        let error = parse(&MINIMAL.replace("generator", "genrator")).unwrap_err();
        assert!(error.contains("did you mean `generator`?"), "{error}");
        let error = parse(&MINIMAL.replace("built-in", "buildin")).unwrap_err();
        assert!(error.contains("did you mean `built-in`?"), "{error}");
    }

    const MINIMAL: &str = r#"name = "x"
title = "X"
modality = ["binary"]
licence = "none"
[[sources]]
kind = "built-in"
generator = "glyphs"
parts = { train = 3 }
"#;

    fn parse(text: &str) -> Result<Card, String> {
        Card::parse(text, Origin::Program, "x").map_err(|e| e.to_string())
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        assert!(parse(MINIMAL).is_ok());
        for (from, to, reason) in [
            ("[[sources]]", "image = { channels = 2, height = 1, width = 1 }\n[[sources]]", "1 or 3 channels"),
            ("[[sources]]", "[splits.val]\npart = \"train\"\nlast = 1.5\n[[sources]]", "between 0 and 1"),
            ("[[sources]]", "[splits.val]\npart = \"train\"\nlast = 0.5\ndrop_last = 0.5\n[[sources]]", "below 1"),
            ("title = \"X\"", "title = ", "line 2"),
        ] {
            let error = parse(&MINIMAL.replace(from, to)).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        let hub =
            "[[sources]]\nkind = \"hub\"\nrepo = \"a/b\"\n[[sources.layouts]]\nparts = { train = [\"../../x\"] }\n";
        assert!(parse(&format!("{MINIMAL}{hub}")).unwrap_err().contains("leaves its folder"));
    }
}
