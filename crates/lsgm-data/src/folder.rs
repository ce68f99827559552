//! Image files in a folder.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lsgm_core::Rng;

use crate::lazy::{Encoded, LazyImages, load};
use crate::open::Reading;
use crate::picture::Target;
use crate::{DataError, Images, Result};

/// Folders within folders are followed to this depth.
const DEEPEST: usize = 8;
/// Bytes in which the header of nearly every image file ends.
const HEAD: u64 = 1 << 16;

/// Whether the folder, or a folder in it, holds an image file.
pub(crate) fn has_images(dir: &Path) -> bool {
    fn search(dir: &Path, depth: usize) -> bool {
        let Ok(entries) = fs::read_dir(dir) else { return false };
        let (folders, files): (Vec<_>, Vec<_>) = entries.flatten().map(|e| e.path()).partition(|p| p.is_dir());
        files.iter().any(|f| is_image(f)) || (depth > 0 && folders.iter().any(|f| search(f, depth - 1)))
    }
    search(dir, DEEPEST)
}

/// Open the images below `dir` whose places are `wanted(total)`.
///
/// # Errors
/// A folder that cannot be listed; images that cannot be used, unless `reading` says to skip them.
pub(crate) fn open_folder(
    dir: &Path,
    others: &[PathBuf],
    target: Target,
    reading: Reading,
    invert: bool,
    wanted: impl Fn(usize) -> Range<usize>,
) -> Result<Box<dyn Images>> {
    let files = Files::list(dir, others)?.keep(wanted);
    if reading.fits(files.len(), target.size) {
        let mut set = load(&files, target, reading)?;
        if invert {
            set.invert();
        }
        return Ok(Box::new(set));
    }
    Ok(Box::new(LazyImages::new(files, target, reading, invert)?))
}

/// Paths of image files, in an order that is random but depends on each file's name alone: whichever files are added,
/// the others keep their order, and any stretch is a fair sample.
#[derive(Debug)]
struct Files {
    paths: Vec<PathBuf>,
    /// The folder of each, as a number, where all lie in folders of their own below the first.
    labels: Option<Vec<u32>>,
}

impl Files {
    fn list(dir: &Path, others: &[PathBuf]) -> Result<Self> {
        let mut relative = Vec::new();
        collect(dir, Path::new(""), DEEPEST, &mut relative)?;
        let names = Rng::new(0).fork("order of image files");
        relative.sort_by_cached_key(|path| (names.fork(&path.to_string_lossy()).bits(), path.clone()));
        let labels = labels(&relative, others);
        Ok(Self { paths: relative.into_iter().map(|path| dir.join(path)).collect(), labels })
    }

    fn path(&self, index: usize) -> Result<&Path> {
        let found = self.paths.get(index).map(PathBuf::as_path);
        found.ok_or_else(|| DataError::Contract(format!("file {index} of {} was asked for", self.paths.len())))
    }

    fn keep(mut self, wanted: impl Fn(usize) -> Range<usize>) -> Self {
        let range = wanted(self.paths.len());
        let cut = |n: usize| n.min(self.paths.len());
        let range = cut(range.start)..cut(range.end).max(cut(range.start));
        self.labels = self.labels.map(|labels| labels.get(range.clone()).unwrap_or_default().to_vec());
        self.paths = self.paths.get(range).unwrap_or_default().to_vec();
        self
    }
}

impl Encoded for Files {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        let path = self.path(index)?;
        fs::read(path).map_err(|e| DataError::io(path, e))
    }

    fn head(&self, index: usize) -> Result<Vec<u8>> {
        let path = self.path(index)?;
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut bytes));
        read.map_err(|e| DataError::io(path, e))?;
        Ok(bytes)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.as_ref()?.get(index).copied()
    }

    fn origin(&self, index: usize) -> String {
        self.paths.get(index).map(|path| path.display().to_string()).unwrap_or_default()
    }
}

fn is_image(path: &Path) -> bool {
    let hidden = path.file_name().and_then(|n| n.to_str()).is_none_or(|n| n.starts_with('.'));
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    !hidden && matches!(extension.as_str(), "png" | "jpg" | "jpeg")
}

fn collect(root: &Path, below: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let dir = root.join(below);
    for entry in fs::read_dir(&dir).map_err(|e| DataError::io(&dir, e))? {
        let entry = entry.map_err(|e| DataError::io(&dir, e))?;
        let path = below.join(entry.file_name());
        // Links to folders may lead in circles; links to files are followed.
        if entry.file_type().map_err(|e| DataError::io(&dir, e))?.is_dir() {
            if depth > 0 {
                collect(root, &path, depth - 1, found)?;
            }
        } else if is_image(&path) {
            found.push(path);
        }
    }
    Ok(())
}

/// The place of each file's folder among all such folders, those of the other parts too, in alphabetical order.
fn labels(relative: &[PathBuf], others: &[PathBuf]) -> Option<Vec<u32>> {
    let class = |path: &PathBuf| path.parent()?.iter().next().map(|c| c.to_owned());
    let classes = relative.iter().map(class).collect::<Option<Vec<_>>>()?;
    let mut known = classes.clone();
    for entry in others.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
        if has_images(&entry.path()) {
            known.push(entry.file_name());
        }
    }
    known.sort();
    known.dedup();
    classes.iter().map(|c| u32::try_from(known.binary_search(c).ok()?).ok()).collect()
}
