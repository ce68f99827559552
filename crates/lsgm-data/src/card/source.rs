use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::text::Unit;

/// One way to get a data set. A part is what the source itself is divided into, such as `train` and `test`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Source {
    /// Made by the program.
    BuiltIn(BuiltIn),
    /// idx files in a folder, plain or with `.gz` appended.
    Idx(IdxSource),
    /// Matrices in a MATLAB file.
    Mat(MatSource),
    /// Files of sound in a folder.
    Sound(SoundSource),
    /// Texts in a folder: plain, JSON lines or parquet, by their extensions.
    Text(TextSource),
    /// Parquet files in a folder.
    Parquet(ParquetSource),
    /// PNG and JPEG files in a folder.
    ImageFolder(ImageFolderSource),
    /// Parquet files in a repository of the Hugging Face hub, or in its cache on this machine.
    Hub(HubSource),
}

/// Items made by the program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltIn {
    /// What makes them.
    pub generator: Generator,
    /// Number of items in an epoch of each part.
    pub parts: BTreeMap<String, usize>,
}

/// What makes items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Generator {
    /// Digit-like drawings.
    Glyphs,
    /// Chords, chirps and plucked strings.
    Tones,
    /// [`crate::Grammar`].
    Grammar,
}

/// idx files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdxSource {
    /// The folder, from the card's own; the program's cards have none and use `--data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Whether ink is dark on light paper; it is turned to light on dark.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invert: bool,
    /// Files by part.
    pub parts: BTreeMap<String, IdxPart>,
}

/// The idx files of one part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdxPart {
    /// Images, unsigned bytes in three dimensions.
    pub images: NamedFile,
    /// Labels, unsigned bytes in one dimension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<NamedFile>,
}

/// A file and what its content must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedFile {
    /// Name without `.gz`.
    pub file: String,
    /// SHA-256 of the content, after decompression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A MATLAB file, one matrix for each part, one image in each column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatSource {
    /// The folder, from the card's own; the program's cards have none and use `--data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Whether ink is dark on light paper; it is turned to light on dark.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invert: bool,
    /// The file's name.
    pub file: String,
    /// Variables by part.
    pub parts: BTreeMap<String, String>,
}

/// Files of sound: WAV, with the feature `symphonia` also FLAC, OGG Vorbis and MP3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoundSource {
    /// The folder, from the card's own; the program's cards have none and use `--data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Patterns of the files that belong to the set, such as `recordings/*.wav` (paths from the folder) or `*_[0-4].wav`
    /// (names in any folder); all files of sound if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Where the class of a file is found.
    #[serde(default)]
    pub label: LabelRule,
    /// Which of them make a part.
    pub parts: BTreeMap<String, SoundPart>,
}

/// The files of one part: those that obey all of the rules.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoundPart {
    /// Patterns of them; all of the set if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// A text file in the folder that lists them, one path a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// Text files of that form that list what is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// Where the class of a file of sound is found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelRule {
    /// There are no classes.
    None,
    /// The folder that the file is in.
    #[default]
    Folder,
    /// A piece of the file's name.
    Field {
        /// What the name is cut at.
        separator: String,
        /// Which piece, from 0.
        index: usize,
    },
}

/// Texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSource {
    /// The folder, from the card's own; the program's cards have none and use `--data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// What an entry of a plain file is.
    #[serde(default)]
    pub unit: Unit,
    /// The field of JSON lines, or the column of parquet, that holds the text.
    #[serde(default = "text")]
    pub column: String,
    /// Files by part, in order, named without `.gz`. Without any, the folder's `PART*.txt`, `PART*.jsonl` and
    /// `PART*.parquet`.
    #[serde(default)]
    pub parts: BTreeMap<String, Vec<String>>,
}

fn text() -> String {
    "text".into()
}

/// Parquet files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParquetSource {
    /// The folder, from the card's own; the program's cards have none and use `--data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Whether ink is dark on light paper; it is turned to light on dark.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invert: bool,
    /// Names of the columns.
    #[serde(default)]
    pub columns: Columns,
    /// Files by part, in order.
    pub parts: BTreeMap<String, Vec<String>>,
}

/// PNG and JPEG files in a folder and the folders in it. A part is a folder of its name; part `all` is everything, in an
/// order that is random but always the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageFolderSource {
    /// The folder, from the card's own; the program's cards have none and use `--data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Whether ink is dark on light paper; it is turned to light on dark.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub invert: bool,
}

impl ImageFolderSource {
    /// The part that is the whole folder.
    pub const WHOLE: &str = "all";
}

/// A repository of the hub.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubSource {
    /// `owner/name`.
    pub repo: String,
    /// Whether ink is dark on light paper; it is turned to light on dark.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invert: bool,
    /// Names of the columns.
    #[serde(default)]
    pub columns: Columns,
    /// Where the files lie, in order of preference. The same set often has two: that of its owner, and the hub's own
    /// conversion under the revision `refs/convert/parquet`.
    pub layouts: Vec<HubLayout>,
}

/// Files of one revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubLayout {
    /// Branch, tag or commit.
    #[serde(default = "main")]
    pub revision: String,
    /// Files by part, in order.
    pub parts: BTreeMap<String, Vec<String>>,
}

fn main() -> String {
    "main".into()
}

/// Names of the columns of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// Encoded images: bytes, or the hub's struct with a child `bytes`.
    pub image: String,
    /// Whole numbers; an empty name for none. A table without the column has no labels.
    pub label: String,
    /// Encoded sound: bytes, or the hub's struct with a child `bytes`.
    pub audio: String,
    /// Texts.
    pub text: String,
}

impl Default for Columns {
    fn default() -> Self {
        Self { image: "image".into(), label: "label".into(), audio: "audio".into(), text: text() }
    }
}

impl Source {
    /// The kind as written in cards.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BuiltIn(_) => "built-in",
            Self::Idx(_) => "idx",
            Self::Mat(_) => "mat",
            Self::Sound(_) => "sound",
            Self::Text(_) => "text",
            Self::Parquet(_) => "parquet",
            Self::ImageFolder(_) => "image-folder",
            Self::Hub(_) => "hub",
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::BuiltIn(_) | Self::ImageFolder(_) => Ok(()),
            Self::Idx(source) => {
                let parts = source.parts.values();
                let mut files = parts.flat_map(|p| [Some(&p.images), p.labels.as_ref()]).flatten();
                files.try_for_each(|f| stays_inside(&f.file))
            }
            Self::Mat(source) => stays_inside(&source.file),
            Self::Sound(source) => {
                let lists = source.parts.values().flat_map(|p| p.list.iter().chain(&p.except));
                let mut names = lists.chain(&source.files).chain(source.parts.values().flat_map(|p| &p.files));
                names.try_for_each(|n| stays_inside(n))
            }
            Self::Text(source) => source.parts.values().flatten().try_for_each(|f| stays_inside(f)),
            Self::Parquet(source) => source.parts.values().flatten().try_for_each(|f| stays_inside(f)),
            Self::Hub(source) => {
                if source.repo.split('/').filter(|s| !s.is_empty() && !s.starts_with('.')).count() != 2 {
                    return Err(format!("`repo` is `{}` instead of `owner/name`", source.repo));
                }
                let layouts = || source.layouts.iter();
                layouts().try_for_each(|l| stays_inside(&l.revision))?;
                layouts().flat_map(|l| l.parts.values().flatten()).try_for_each(|f| stays_inside(f))
            }
        }
    }
}

/// A card may come from anywhere: its files stay below the folder that the user or the cache gives.
fn stays_inside(file: &str) -> Result<(), String> {
    let mut components = Path::new(file).components();
    if !file.is_empty() && components.all(|c| matches!(c, Component::Normal(_))) {
        return Ok(());
    }
    Err(format!("file `{file}` leaves its folder: write a relative path without `..`"))
}
