//! Which files of a folder belong to a part of a set, and what their labels are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::card::{LabelRule, SoundPart, SoundSource};
use crate::locate::{PARTS, names_of};
use crate::{DataError, Result};

/// Extensions of the files that are taken for sound.
const EXTENSIONS: [&str; 6] = ["wav", "wave", "flac", "ogg", "oga", "mp3"];

/// Folders below the first that are looked into.
const DEPTH: usize = 12;

/// A file and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SoundFile {
    /// Where it is.
    pub path: PathBuf,
    /// The place of its class among the names of all classes of the set in alphabetical order.
    pub label: Option<u32>,
}

/// The files of a part by the rules of a card; nothing if no file of the folder obeys them.
///
/// # Errors
/// A folder or a list of files that cannot be read, or a list with a file that is not there.
pub(crate) fn sounds_in(source: &SoundSource, part: &str, dir: &Path) -> Result<Vec<SoundFile>> {
    let Some(rule) = source.parts.get(part) else { return Ok(Vec::new()) };
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let walked = walk(dir)?;
    let lists = Lists { dir, walked: &walked };
    let all: Vec<String> =
        walked.iter().filter(|f| source.files.is_empty() || matches_any(&source.files, f)).cloned().collect();
    let classes = classes(&source.label, &all);
    let chosen = choose(rule, &all, &lists)?;
    Ok(scattered(chosen).into_iter().map(|f| labelled(dir, &f, &source.label, &classes)).collect())
}

/// The files of a part in a folder that no card describes: those that `PART.txt` lists, else those in the folder
/// `PART`; their classes are their folders, where there are several.
///
/// # Errors
/// As [`sounds_in`].
pub(crate) fn parted(part: &str, dir: &Path) -> Result<Vec<SoundFile>> {
    let Some((root, files)) = files_of(part, dir)? else { return Ok(Vec::new()) };
    // A class has one number in all parts, whichever of them know it.
    let mut all = files.clone();
    for other in PARTS.into_iter().filter(|other| *other != part) {
        all.extend(files_of(other, dir)?.map(|(_, files)| files).unwrap_or_default());
    }
    let classes = classes(&LabelRule::Folder, &all);
    Ok(scattered(files).into_iter().map(|f| labelled(&root, &f, &LabelRule::Folder, &classes)).collect())
}

/// The files of a part that has a list or a folder, and where their paths start.
fn files_of(part: &str, dir: &Path) -> Result<Option<(PathBuf, Vec<String>)>> {
    for name in names_of(part) {
        let (list, folder) = (dir.join(format!("{name}.txt")), dir.join(name));
        if list.is_file() {
            return Ok(Some((dir.to_owned(), listed(&list, dir)?)));
        }
        if folder.is_dir() {
            let files = walk(&folder)?;
            return Ok(Some((folder, files)));
        }
    }
    Ok(None)
}

/// All files of a folder that has no parts, in an order that their names alone decide: the first tenth for testing, the
/// second for validation, the rest for training.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn split_by_name(part: &str, dir: &Path) -> Result<Vec<SoundFile>> {
    let files = walk(dir)?;
    let classes = classes(&LabelRule::Folder, &files);
    let files = scattered(files);
    let tenth = (files.len() as f64 / 10.0).round() as usize;
    let range = match part {
        "test" => 0..tenth,
        "val" => tenth..2 * tenth,
        "train" => 2 * tenth..files.len(),
        _ => 0..0,
    };
    Ok(files[range].iter().map(|f| labelled(dir, f, &LabelRule::Folder, &classes)).collect())
}

/// Lists of files in a folder.
struct Lists<'a> {
    dir: &'a Path,
    /// All files of sound in the folder, in order.
    walked: &'a [String],
}

impl Lists<'_> {
    /// The files of several lists. One that is in the folder but not among its files of sound is refused: it would be left
    /// out, or left in, without a word.
    fn read(&self, names: &[String]) -> Result<BTreeSet<String>> {
        let mut files = BTreeSet::new();
        for name in names {
            let list = self.dir.join(name);
            for file in listed(&list, self.dir)? {
                if self.walked.binary_search(&file).is_err() {
                    let message = format!("`{file}` is no file of sound in the folder of the list");
                    return Err(DataError::corrupt(&list, "list of files", message));
                }
                files.insert(file);
            }
        }
        Ok(files)
    }
}

fn choose(rule: &SoundPart, all: &[String], lists: &Lists<'_>) -> Result<Vec<String>> {
    let (only, except) = (lists.read(rule.list.as_slice())?, lists.read(&rule.except)?);
    let wanted = |f: &&String| {
        (rule.files.is_empty() || matches_any(&rule.files, f))
            && (rule.list.is_none() || only.contains(*f))
            && !except.contains(*f)
    };
    Ok(all.iter().filter(wanted).cloned().collect())
}

/// The paths in a text file, one a line, relative to `dir`.
fn listed(list: &Path, dir: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(list).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => DataError::corrupt(list, "list of files", "not UTF-8 text"),
        _ => DataError::io(list, e),
    })?;
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())).filter(|(_, line)| !line.is_empty());
    lines
        .map(|(number, line)| match dir.join(line).is_file() {
            true => Ok(plain_path(line)),
            false => Err(DataError::Missing {
                path: dir.join(line),
                what: format!("file of line {number} of {}", list.display()),
                advice: "paths in a list start at its folder".into(),
            }),
        })
        .collect()
}

/// With `/`, and without the `./` that `find` writes.
fn plain_path(path: &str) -> String {
    path.replace('\\', "/").split('/').filter(|part| *part != ".").collect::<Vec<_>>().join("/")
}

/// All files of sound below a folder, by their paths from there with `/`, in alphabetical order.
fn walk(dir: &Path) -> Result<Vec<String>> {
    fn visit(dir: &Path, prefix: &str, depth: usize, files: &mut Vec<String>) -> Result<()> {
        for entry in std::fs::read_dir(dir).map_err(|e| DataError::io(dir, e))? {
            let entry = entry.map_err(|e| DataError::io(dir, e))?;
            // A name that is not Unicode cannot be written in a card or a list.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = entry.path();
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if depth > 0 && !name.starts_with('.') {
                    visit(&path, &format!("{prefix}{name}/"), depth - 1, files)?;
                }
            } else if EXTENSIONS.contains(&extension.as_str()) && !name.starts_with('.') && path.is_file() {
                files.push(format!("{prefix}{name}"));
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    visit(dir, "", DEPTH, &mut files)?;
    files.sort();
    Ok(files)
}

/// In the order of a hash of their names: the first items of a part are then of all classes.
fn scattered(mut files: Vec<String>) -> Vec<String> {
    let hash = |name: &str| {
        name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
    };
    // The multiplication mixes upwards: the high bits of the hash tell names apart that differ at the end.
    files.sort_by_cached_key(|name| (hash(name).rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15), name.clone()));
    files
}

fn class<'a>(rule: &LabelRule, file: &'a str) -> Option<&'a str> {
    match rule {
        LabelRule::None => None,
        LabelRule::Folder => file.rsplit_once('/').map(|(folder, _)| folder),
        LabelRule::Field { separator, index } => {
            let name = file.rsplit('/').next().unwrap_or(file);
            let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
            stem.split(separator.as_str()).nth(*index)
        }
    }
}

/// The names of all classes, numbered; none where files differ in whether they have one, or where all have the same.
fn classes(rule: &LabelRule, files: &[String]) -> BTreeMap<String, u32> {
    let names: Option<BTreeSet<&str>> = files.iter().map(|f| class(rule, f)).collect();
    let names = names.filter(|n| n.len() > 1).unwrap_or_default();
    names.into_iter().enumerate().map(|(i, name)| (name.to_owned(), i as u32)).collect()
}

fn labelled(root: &Path, file: &str, rule: &LabelRule, classes: &BTreeMap<String, u32>) -> SoundFile {
    SoundFile { path: root.join(file), label: class(rule, file).and_then(|c| classes.get(c)).copied() }
}

fn matches_any(patterns: &[String], file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    patterns.iter().any(|p| matches(p.as_bytes(), if p.contains('/') { file } else { name }.as_bytes()))
}

/// Whether a pattern fits: `*` any characters but `/`, `?` one, `[0-4x]` one of these.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            let reach = text.iter().position(|b| *b == b'/').unwrap_or(text.len());
            (0..=reach).any(|n| matches(rest, &text[n..]))
        }
        ([b'?', rest @ ..], [b, tail @ ..]) => *b != b'/' && matches(rest, tail),
        ([b'[', rest @ ..], [b, tail @ ..]) => match rest.iter().position(|p| *p == b']') {
            Some(end) => in_class(&rest[..end], *b) && matches(&rest[end + 1..], tail),
            None => false,
        },
        ([p, rest @ ..], [b, tail @ ..]) => p == b && matches(rest, tail),
        _ => false,
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    match class {
        [low, b'-', high, rest @ ..] => (*low..=*high).contains(&byte) || in_class(rest, byte),
        [one, rest @ ..] => *one == byte || in_class(rest, byte),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, fits, fails) in [
            ("*_[0-4].wav", "7_george_3.wav", "7_george_13.wav"),
            ("a?c*", "abcd", "ac"),
            ("*/x.wav", "dir/x.wav", "a/b/x.wav"),
            ("[ab-d]", "c", "e"),
            ("[", "[x", "["),
        ] {
            assert_eq!(matches(pattern.as_bytes(), fits.as_bytes()), pattern != "[", "{pattern} {fits}");
            assert!(!matches(pattern.as_bytes(), fails.as_bytes()), "{pattern} {fails}");
        }
    }

    fn touch(dir: &Path, name: &str) {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }

    fn names(files: &[SoundFile]) -> BTreeSet<String> {
        files.iter().map(|f| f.path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn rules_lists_and_labels_of_a_card() {
        let dir = tempfile::tempdir().unwrap();
        for digit in 0..3 {
            for index in 0..8 {
                touch(dir.path(), &format!("rec/{digit}_ann_{index}.wav"));
            }
        }
        std::fs::write(dir.path().join("test.list"), "./rec/0_ann_0.wav\n\nrec/1_ann_0.wav\n").unwrap();
        let source: SoundSource = toml::from_str(
            r#"
            files = ["rec/*"]
            label = { field = { separator = "_", index = 0 } }
            [parts]
            train = { files = ["*_[5-9].wav"] }
            test = { list = "test.list" }
            val = { except = ["test.list"] }
            "#,
        )
        .unwrap();
        let part = |name| sounds_in(&source, name, dir.path()).unwrap();
        assert_eq!(part("train").len(), 9);
        assert_eq!((part("test").len(), part("val").len(), part("none").len()), (2, 22, 0));
        for file in part("train") {
            let digit = file.path.file_name().unwrap().to_str().unwrap()[..1].parse::<u32>().unwrap();
            assert_eq!(file.label, Some(digit));
        }
        touch(dir.path(), "rec/notes.pdf");
        std::fs::write(dir.path().join("test.list"), "rec/notes.pdf").unwrap();
        let message = sounds_in(&source, "val", dir.path()).unwrap_err().to_string();
        assert!(message.contains("test.list") && message.contains("`rec/notes.pdf` is no file of sound"), "{message}");
        std::fs::write(dir.path().join("test.list"), "rec/none.wav").unwrap();
        let message = sounds_in(&source, "test", dir.path()).unwrap_err().to_string();
        assert!(message.contains("none.wav") && message.contains("line 1"), "{message}");
    }

    #[test]
    fn a_folder_without_parts_is_split_by_the_names_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..50 {
            touch(dir.path(), &format!("{}/{i}.wav", if i % 2 == 0 { "cat" } else { "dog" }));
        }
        touch(dir.path(), "notes.txt");
        let part = |name| names(&split_by_name(name, dir.path()).unwrap());
        let (train, val, test) = (part("train"), part("val"), part("test"));
        assert_eq!((train.len(), val.len(), test.len()), (40, 5, 5));
        assert!(train.is_disjoint(&val) && train.is_disjoint(&test) && val.is_disjoint(&test));
        let labels: BTreeSet<_> = split_by_name("train", dir.path()).unwrap().iter().map(|f| f.label).collect();
        assert_eq!(labels, BTreeSet::from([Some(0), Some(1)]));
        assert!(parted("train", dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_class_has_one_number_in_all_parts() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["train/cat/a.wav", "train/dog/b.wav", "train/owl/c.wav", "test/cat/d.wav", "test/owl/e.wav"] {
            touch(dir.path(), file);
        }
        let labels = |part| -> BTreeSet<_> {
            let files = parted(part, dir.path()).unwrap();
            files.iter().map(|f| (f.path.parent().unwrap().file_name().unwrap().to_owned(), f.label)).collect()
        };
        assert_eq!(labels("train").len(), 3);
        assert!(labels("test").is_subset(&labels("train")));
    }

    #[test]
    fn folders_and_lists_of_parts_go_before_that() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), "train/a.wav");
        touch(dir.path(), "valid/b.wav");
        std::fs::write(dir.path().join("test.txt"), "train/a.wav\n").unwrap();
        for (part, name) in [("train", "a.wav"), ("val", "b.wav"), ("test", "a.wav")] {
            assert_eq!(names(&parted(part, dir.path()).unwrap()), BTreeSet::from([name.to_owned()]), "{part}");
        }
    }
}
