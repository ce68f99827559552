//! From a card to files on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::card::{
    Card, Columns, Generator, HubSource, IdxPart, IdxSource, ImageFolderSource, MatSource, NamedFile, ParquetSource,
    SoundSource, Source, Splits, TextSource,
};
use crate::digest::blob_digest;
use crate::folder::has_images;
use crate::sound::{SoundFile, parted, sounds_in, split_by_name};
use crate::text::Unit;
use crate::{DataError, Hub, Result};

/// One part of a data set that is at hand.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Located {
    /// What it consists of.
    pub content: Content,
    /// Whether light and dark change places.
    pub invert: bool,
}

/// What a part consists of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// So many items of a generator.
    Generated(Generator, usize),
    /// idx files, with the checksums that the card knows.
    Idx {
        /// Images.
        images: FoundFile,
        /// Labels.
        labels: Option<FoundFile>,
    },
    /// A matrix of a MATLAB file.
    Mat {
        /// The file.
        file: PathBuf,
        /// Name of the matrix.
        variable: String,
    },
    /// PNG and JPEG files in a folder and the folders in it.
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Those of the other parts: a class has one number in all of them.
        others: Vec<PathBuf>,
    },
    /// Files of sound.
    Sounds {
        /// The folder.
        dir: PathBuf,
        /// The files.
        files: Vec<SoundFile>,
    },
    /// Files of texts in order: plain, JSON lines or parquet, by their extensions.
    Texts {
        /// The files.
        files: Vec<PathBuf>,
        /// What an entry of a plain file is.
        unit: Unit,
        /// The field or column of the text.
        column: String,
    },
    /// Parquet files in order.
    Parquet {
        /// The files.
        files: Vec<PathBuf>,
        /// Names of their columns.
        columns: Columns,
    },
}

/// A file, and the checksum that its decompressed content should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundFile {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 in hexadecimal digits, if the card or the hub's cache tells it.
    pub sha256: Option<String>,
}

impl Content {
    /// All files that a checksum may be known of.
    pub(crate) fn files(&self) -> Vec<FoundFile> {
        match self {
            Self::Generated(..) | Self::Folder { .. } | Self::Sounds { .. } => Vec::new(),
            Self::Mat { file, .. } => vec![FoundFile { path: file.clone(), sha256: None }],
            Self::Idx { images, labels } => [Some(images), labels.as_ref()].into_iter().flatten().cloned().collect(),
            Self::Texts { files, .. } | Self::Parquet { files, .. } => {
                files.iter().map(|path| FoundFile { path: path.clone(), sha256: blob_digest(path) }).collect()
            }
        }
    }

    /// Where it comes from, in a few words.
    pub(crate) fn describe(&self) -> String {
        let folder = |path: &Path| path.parent().unwrap_or(path).display().to_string();
        match self {
            Self::Generated(..) => "made by the program".into(),
            Self::Idx { images, .. } => format!("idx files in {}", folder(&images.path)),
            Self::Mat { file, .. } => format!("MATLAB file {}", file.display()),
            Self::Folder { dir, .. } => format!("images in {}", dir.display()),
            Self::Sounds { dir, .. } => format!("files of sound in {}", dir.display()),
            Self::Texts { files, .. } => {
                format!("texts in {}", files.first().map(|f| folder(f)).unwrap_or_default())
            }
            Self::Parquet { files, .. } => {
                format!("parquet files in {}", files.first().map(|f| folder(f)).unwrap_or_default())
            }
        }
    }
}

/// The files of a part: those in `dir` if it is given, else those of the first source of the card that is at hand.
/// Nothing is downloaded.
///
/// # Errors
/// [`DataError::NotAtHand`] that lists what was looked for; shards that are not complete.
pub(crate) fn locate(card: &Card, part: &str, dir: Option<&Path>, hub: &Hub) -> Result<Located> {
    let mut tried = Vec::new();
    if let Some(dir) = dir {
        return in_folder(card, part, dir, &mut tried)?.ok_or_else(|| not_at_hand(card, &tried, "--data"));
    }
    for source in &card.sources {
        let found = match source {
            Source::BuiltIn(source) => source.parts.get(part).map(|n| plain(Content::Generated(source.generator, *n))),
            Source::Idx(source) => {
                base(card, source.dir.as_deref()).and_then(|dir| idx_in(source, part, &dir, &mut tried))
            }
            Source::Mat(source) => {
                base(card, source.dir.as_deref()).and_then(|dir| mat_in(source, part, &dir, &mut tried))
            }
            Source::Sound(source) => match base(card, source.dir.as_deref()) {
                Some(dir) => sounds_of(source, part, &dir, &mut tried)?,
                None => None,
            },
            Source::Text(source) => match base(card, source.dir.as_deref()) {
                Some(dir) => texts_in(source, part, &dir, &mut tried)?,
                None => None,
            },
            Source::Parquet(source) => {
                base(card, source.dir.as_deref()).and_then(|dir| parquet_in(source, part, &dir, &mut tried))
            }
            Source::ImageFolder(source) => {
                base(card, source.dir.as_deref()).and_then(|dir| images_in(source, part, &dir, &mut tried))
            }
            Source::Hub(source) => in_cache(source, part, hub, &mut tried),
        };
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(not_at_hand(card, &tried, "fetch"))
}

/// The rules by which splits are made of parts: the card's, unless it names no file of `dir` (which takes the place of a
/// generator, for example), or images lie in a folder that is divided in another way than the card says.
pub(crate) fn splits(card: &Card, dir: Option<&Path>) -> Splits {
    if let Some(folder) = image_folder(card, dir) {
        return folder_splits(card, &folder);
    }
    let names_no_file = |source: &Source| match source {
        Source::BuiltIn(_) => true,
        Source::Parquet(source) => source.parts.is_empty(),
        _ => false,
    };
    let Some(dir) = dir.filter(|_| card.sources.iter().all(names_no_file)) else {
        return card.splits.clone();
    };
    match in_folder(card, "val", dir, &mut Vec::new()) {
        Ok(Some(_)) => Splits::parts(),
        _ => Splits::default(),
    }
}

/// The folder of images that a card reads, if it has one and no source before it is at hand.
fn image_folder(card: &Card, dir: Option<&Path>) -> Option<PathBuf> {
    let source = card.sources.iter().find_map(|source| match source {
        Source::ImageFolder(source) => Some(source),
        _ => None,
    })?;
    let folder = dir.map(Path::to_owned).or_else(|| base(card, source.dir.as_deref()))?;
    has_images(&folder).then_some(folder)
}

fn folder_splits(card: &Card, folder: &Path) -> Splits {
    let divided = part_folder(folder, "train").is_some();
    let whole = card.splits.train.part == ImageFolderSource::WHOLE;
    match (divided, whole) {
        (true, true) => Splits::folders(part_folder(folder, "val").is_some(), part_folder(folder, "test").is_some()),
        (false, false) => Splits::shares(0.1, 0.1),
        _ => card.splits.clone(),
    }
}

/// The folder of a part within a folder of images; the folder itself for the part that is the whole.
fn part_folder(dir: &Path, part: &str) -> Option<PathBuf> {
    if part == ImageFolderSource::WHOLE {
        return Some(dir.to_owned());
    }
    names_of(part).iter().map(|name| dir.join(name)).find(|dir| dir.is_dir())
}

fn images_in(source: &ImageFolderSource, part: &str, dir: &Path, tried: &mut Vec<String>) -> Option<Located> {
    let whole = part == ImageFolderSource::WHOLE;
    tried.push(format!("PNG or JPEG files in {}", if whole { dir.to_owned() } else { dir.join(part) }.display()));
    let folder = part_folder(dir, part).filter(|dir| has_images(dir))?;
    let others = match whole {
        true => Vec::new(),
        false => PARTS.iter().filter(|other| **other != part).filter_map(|other| part_folder(dir, other)).collect(),
    };
    Some(Located { content: Content::Folder { dir: folder, others }, invert: source.invert })
}

/// Parts that a folder may be divided into.
pub(crate) const PARTS: [&str; 3] = ["train", "val", "test"];

/// The usual names of a part.
pub(crate) fn names_of(part: &str) -> Vec<&str> {
    if part == "val" { vec!["val", "validation", "valid", "dev"] } else { vec![part] }
}

fn plain(content: Content) -> Located {
    Located { content, invert: false }
}

fn base(card: &Card, dir: Option<&Path>) -> Option<PathBuf> {
    Some(card.folder()?.join(dir.unwrap_or(Path::new(""))))
}

fn not_at_hand(card: &Card, tried: &[String], way: &str) -> DataError {
    let has_hub = card.sources.iter().any(|s| matches!(s, Source::Hub(_)));
    let advice = match way {
        "--data" => "the folder given by `--data` or `data.dir` must hold one of these",
        _ if has_hub => "`lsgm data fetch` downloads it; or pass `--data DIR` with the files in it",
        _ => "pass `--data DIR` with the files in it",
    };
    let tried = tried.iter().map(|t| format!("  {t}")).collect::<Vec<_>>().join("\n");
    DataError::NotAtHand { set: card.name.clone(), tried, advice: advice.into() }
}

/// What a user's folder holds of a part: by the card's file names, by the usual idx names, or as `PART*.parquet`.
fn in_folder(card: &Card, part: &str, dir: &Path, tried: &mut Vec<String>) -> Result<Option<Located>> {
    if !dir.is_dir() {
        return Err(DataError::Missing {
            path: dir.to_owned(),
            what: "data folder".into(),
            advice: "check `--data` and `data.dir`".into(),
        });
    }
    for source in &card.sources {
        let found = match source {
            Source::BuiltIn(_) => None,
            Source::Idx(source) => idx_in(source, part, dir, tried),
            Source::Mat(source) => mat_in(source, part, dir, tried),
            Source::Sound(source) => sounds_of(source, part, dir, tried)?,
            Source::Text(source) => texts_in(source, part, dir, tried)?,
            Source::Parquet(source) => parquet_in(source, part, dir, tried),
            Source::ImageFolder(source) => images_in(source, part, dir, tried),
            Source::Hub(source) => hub_in(source, part, dir, tried),
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    if card.is_for("audio")
        && let Some(found) = any_sounds(part, dir, tried)?
    {
        return Ok(Some(found));
    }
    if card.is_for("text") {
        return texts_in(&usual_texts(card), part, dir, tried);
    }
    if !card.sources.iter().any(|s| matches!(s, Source::Idx(_)))
        && let Some(found) = idx_in(&usual_idx(), part, dir, tried)
    {
        return Ok(Some(found));
    }
    tried.push(format!("{part}*.parquet or {part}/*.parquet in {}", dir.display()));
    let (columns, invert) = table_options(card);
    let files = shards(dir, part, &["parquet"])?;
    Ok((!files.is_empty()).then_some(Located { content: Content::Parquet { files, columns }, invert }))
}

/// Texts of any names, with the columns that the card's table has.
fn usual_texts(card: &Card) -> TextSource {
    TextSource { dir: None, unit: Unit::Line, column: table_options(card).0.text, parts: BTreeMap::new() }
}

/// Files of the names that the source gives, or of the usual ones.
fn texts_in(source: &TextSource, part: &str, dir: &Path, tried: &mut Vec<String>) -> Result<Option<Located>> {
    let at = dir.display();
    let files = match source.parts.get(part) {
        Some(names) => {
            tried.push(format!("{} (plain or .gz) in {at}", names.join(", ")));
            let find = |name: &String| [name.clone(), format!("{name}.gz")].map(|n| dir.join(n));
            let found = names.iter().map(|n| find(n).into_iter().find(|p| p.is_file()));
            found.collect::<Option<Vec<_>>>().unwrap_or_default()
        }
        None if source.parts.is_empty() => {
            tried.push(format!("{part}*.txt, {part}*.jsonl (plain or .gz) or {part}*.parquet in {at}"));
            shards(dir, part, &["txt", "jsonl", "parquet"])?
        }
        None => return Ok(None),
    };
    let content = Content::Texts { files, unit: source.unit, column: source.column.clone() };
    Ok(Some(plain(content)).filter(|found| !found.content.files().is_empty()))
}

/// The names that MNIST made usual.
fn usual_idx() -> IdxSource {
    let part = |stem: &str| IdxPart {
        images: NamedFile { file: format!("{stem}-images-idx3-ubyte"), sha256: None },
        labels: Some(NamedFile { file: format!("{stem}-labels-idx1-ubyte"), sha256: None }),
    };
    let parts = BTreeMap::from([("train".into(), part("train")), ("test".into(), part("t10k"))]);
    IdxSource { dir: None, invert: false, parts }
}

fn idx_in(source: &IdxSource, part: &str, dir: &Path, tried: &mut Vec<String>) -> Option<Located> {
    let part = source.parts.get(part)?;
    tried.push(format!("{} (plain or .gz) in {}", part.images.file, dir.display()));
    let images = idx_file(&part.images, dir)?;
    let labels = part.labels.as_ref().and_then(|l| idx_file(l, dir));
    Some(Located { content: Content::Idx { images, labels }, invert: source.invert })
}

/// The file, plain or compressed, beside the folder's other files or in `raw/`; `-idx3` may be written `.idx3`.
fn idx_file(file: &NamedFile, dir: &Path) -> Option<FoundFile> {
    let names = [file.file.clone(), file.file.replace("-idx", ".idx")];
    let names = names.iter().flat_map(|n| [n.clone(), format!("{n}.gz")]);
    let mut paths = names.flat_map(|n| [dir.join(&n), dir.join("raw").join(&n)]);
    Some(FoundFile { path: paths.find(|p| p.is_file())?, sha256: file.sha256.clone() })
}

fn mat_in(source: &MatSource, part: &str, dir: &Path, tried: &mut Vec<String>) -> Option<Located> {
    let variable = source.parts.get(part)?.clone();
    tried.push(format!("{} in {}", source.file, dir.display()));
    let file = Some(dir.join(&source.file)).filter(|p| p.is_file())?;
    Some(Located { content: Content::Mat { file, variable }, invert: source.invert })
}

fn sounds_of(source: &SoundSource, part: &str, dir: &Path, tried: &mut Vec<String>) -> Result<Option<Located>> {
    tried.push(format!("files of sound of part `{part}` in {}", dir.display()));
    Ok(some_sounds(sounds_in(source, part, dir)?, dir))
}

/// A folder of sound that no card describes: with lists or folders for its parts, or all in one.
fn any_sounds(part: &str, dir: &Path, tried: &mut Vec<String>) -> Result<Option<Located>> {
    tried.push(format!("{part}.txt, {part}/ or files of sound in {}", dir.display()));
    let files = parted(part, dir)?;
    if !files.is_empty() || !parted("train", dir)?.is_empty() || !shards(dir, part, &["parquet"])?.is_empty() {
        return Ok(some_sounds(files, dir));
    }
    Ok(some_sounds(split_by_name(part, dir)?, dir))
}

fn some_sounds(files: Vec<SoundFile>, dir: &Path) -> Option<Located> {
    (!files.is_empty()).then(|| plain(Content::Sounds { dir: dir.to_owned(), files }))
}

fn parquet_in(source: &ParquetSource, part: &str, dir: &Path, tried: &mut Vec<String>) -> Option<Located> {
    let names = source.parts.get(part)?;
    tried.push(format!("{} in {}", names.join(", "), dir.display()));
    let files = names.iter().map(|n| Some(dir.join(n)).filter(|p| p.is_file())).collect::<Option<Vec<_>>>()?;
    Some(Located { content: Content::Parquet { files, columns: source.columns.clone() }, invert: source.invert })
}

/// The files of a repository that someone copied: with their folders, without the first of them, or without any if the
/// bare name still tells the part.
fn hub_in(source: &HubSource, part: &str, dir: &Path, tried: &mut Vec<String>) -> Option<Located> {
    let find = |name: &String| {
        let (_, without_first) = name.split_once('/').unwrap_or(("", name));
        let bare = name.rsplit('/').next().filter(|bare| bare.contains(part)).unwrap_or(name);
        [name.as_str(), without_first, bare].into_iter().map(|n| dir.join(n)).find(|p| p.is_file())
    };
    for layout in &source.layouts {
        let Some(names) = layout.parts.get(part) else { continue };
        tried.push(format!("{} in {}", names.join(", "), dir.display()));
        if let Some(files) = names.iter().map(find).collect::<Option<Vec<_>>>() {
            let content = Content::Parquet { files, columns: source.columns.clone() };
            return Some(Located { content, invert: source.invert });
        }
    }
    None
}

fn in_cache(source: &HubSource, part: &str, hub: &Hub, tried: &mut Vec<String>) -> Option<Located> {
    for layout in &source.layouts {
        let Some(names) = layout.parts.get(part) else { continue };
        let files = names.iter().map(|n| hub.cached(&source.repo, &layout.revision, n));
        if let Some(files) = files.collect::<Option<Vec<_>>>() {
            let content = Content::Parquet { files, columns: source.columns.clone() };
            return Some(Located { content, invert: source.invert });
        }
        let cache = hub.cache().display();
        tried.push(format!("{} of {}@{} in the cache {cache}", names.join(", "), source.repo, layout.revision));
    }
    None
}

fn table_options(card: &Card) -> (Columns, bool) {
    let of = |source: &Source| match source {
        Source::Parquet(s) => Some((s.columns.clone(), s.invert)),
        Source::Hub(s) => Some((s.columns.clone(), s.invert)),
        Source::BuiltIn(_)
        | Source::Idx(_)
        | Source::Mat(_)
        | Source::Sound(_)
        | Source::Text(_)
        | Source::ImageFolder(_) => None,
    };
    card.sources.iter().find_map(of).unwrap_or_default()
}

/// Files of a part in a folder that have one of the extensions, in the order of their names:
/// `train-00000-of-00002.parquet`, `train/0000.parquet`, `train.txt.gz`.
fn shards(dir: &Path, part: &str, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    for name in names_of(part) {
        let belongs = |stem: &str| stem.strip_prefix(name).is_some_and(|r| !r.starts_with(|c: char| c.is_alphabetic()));
        for extension in extensions {
            let mut files = files_of(dir, extension, belongs)?;
            if files.is_empty() && dir.join(name).is_dir() {
                files = files_of(&dir.join(name), extension, |_| true)?;
            }
            if !files.is_empty() {
                return complete(files);
            }
        }
    }
    Ok(Vec::new())
}

fn files_of(dir: &Path, extension: &str, belongs: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| DataError::io(dir, e))? {
        let path = entry.map_err(|e| DataError::io(dir, e))?.path();
        let name = path.file_name().and_then(|s| s.to_str()).unwrap_or_default();
        let name = name.strip_suffix(".gz").unwrap_or(name);
        if name.rsplit_once('.').is_some_and(|(stem, e)| e == extension && belongs(stem)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Refuse shards `NAME-00000-of-00004` of which one is missing.
fn complete(files: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let count = |file: &PathBuf| file.file_stem()?.to_str()?.rsplit_once("-of-")?.1.parse::<usize>().ok();
    let announced = files.iter().filter_map(count).max();
    match (announced, files.first()) {
        (Some(n), Some(first)) if n != files.len() => Err(DataError::Missing {
            path: first.clone(),
            what: format!("{n} shards announced by the file's name, but {} of them", files.len()),
            advice: "copy all shards into the folder, and shards of one set only".into(),
        }),
        _ => Ok(files),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user whose cache is `home`, without network.
    fn offline(home: &Path) -> Hub {
        Hub::from_variables(|name| match name {
            "HF_HOME" => Some(home.display().to_string()),
            "HF_HUB_OFFLINE" => Some("1".into()),
            _ => None,
        })
    }

    #[test]
    fn a_part_in_the_cache_is_its_parquet_file_in_both_layouts() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for (revision, test) in
            [("main", "mnist/test-00000-of-00001.parquet"), ("refs/convert/parquet", "mnist/test/0000.parquet")]
        {
            let home = tempfile::tempdir().unwrap();
            let repo = home.path().join("hub/datasets--ylecun--mnist");
            let (reference, file) = (repo.join("refs").join(revision), repo.join("snapshots").join(commit).join(test));
            for (path, text) in [(reference, commit), (file, "")] {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            let content = locate(&Card::find("mnist").unwrap(), "test", None, &offline(home.path())).unwrap().content;
            assert!(matches!(content, Content::Parquet { .. }), "{revision}");
            assert_eq!(content.files().len(), 1, "{revision}");
        }
    }

    #[test]
    fn the_hubs_own_cache_is_read_as_parquet() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/hf-home");
        if !home.exists() {
            eprintln!("skipped: {} is absent", home.display());
            return;
        }
        let content = locate(&Card::find("mnist").unwrap(), "train", None, &offline(&home)).unwrap().content;
        assert!(matches!(content, Content::Parquet { .. }));
    }
}
