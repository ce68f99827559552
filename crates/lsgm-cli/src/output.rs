//! Files that a command leaves behind: refused early, written aside, renamed when complete.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lsgm_core::Artifact;

use crate::{Error, Result};

/// A file that a command is going to write.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
}

impl Output {
    /// Find out now, before the work, whether `path` can be written.
    pub(crate) fn prepare(path: &Path) -> Result<Self> {
        let refuse = |message: String| Err(Error::usage(format!("{}: {message}", path.display())));
        if path.is_dir() || path.file_name().is_none() {
            return refuse("is a folder: name the file to write".to_owned());
        }
        let folder = folder_of(path);
        if !folder.is_dir() {
            return refuse(format!("cannot be written: there is no folder `{}`", folder.display()));
        }
        let output = Self { path: path.to_owned() };
        if is_special(path) {
            return Ok(output);
        }
        let probe = aside(path);
        match File::create(&probe).and_then(|_| fs::remove_file(&probe)) {
            Ok(()) => Ok(output),
            Err(e) => refuse(format!("cannot be written: {e}")),
        }
    }

    /// The extension of the file's name in lower case; empty if there is none.
    pub(crate) fn extension(&self) -> String {
        self.path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
    }

    /// Write the whole file.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<()> {
        write_whole(&self.path, bytes)
    }

    /// Write what a modality rendered. The suffix of an artifact goes before the extension, which is the artifact's
    /// own. Returns the names.
    pub(crate) fn write_artifacts(&self, artifacts: &[Artifact]) -> Result<Vec<PathBuf>> {
        // What stands behind a dot may be part of the name, as in `at-0.7`.
        let stem = match artifacts.iter().any(|a| has_extension(&self.path, a.extension)) {
            true => self.path.file_stem(),
            false => self.path.file_name(),
        };
        let stem = stem.unwrap_or_default();
        artifacts
            .iter()
            .map(|artifact| {
                let path = artifact_path(&self.path, stem, artifact);
                write_whole(&path, &artifact.bytes)?;
                Ok(path)
            })
            .collect()
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

fn artifact_path(path: &Path, stem: &OsStr, artifact: &Artifact) -> PathBuf {
    if is_special(path) || (artifact.suffix.is_empty() && has_extension(path, artifact.extension)) {
        return path.to_owned();
    }
    let mut name = stem.to_owned();
    name.push(&artifact.suffix);
    name.push(".");
    name.push(artifact.extension);
    path.with_file_name(name)
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::BrokenPipe => Error::BrokenPipe,
        _ => Error::Core(lsgm_core::Error::io(path, e)),
    };
    if is_special(path) {
        return OpenOptions::new().write(true).open(path).and_then(|mut f| f.write_all(bytes)).map_err(failed);
    }
    let aside = aside(path);
    let written = File::create(&aside)
        .and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()))
        .and_then(|()| fs::rename(&aside, path));
    written.map_err(|e| {
        // The reason for the failure matters more than whether the rest could be cleaned away.
        let _ = fs::remove_file(&aside);
        failed(e)
    })
}

/// Pipes and devices are written directly: they cannot be replaced by a rename.
fn is_special(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| !m.is_file() && !m.is_dir())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn aside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_but_the_result_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::prepare(&dir.path().join("a.json")).unwrap();
        assert!(names(dir.path()).is_empty());
        output.write(b"{}").unwrap();
        output.write(b"[]").unwrap();
        assert_eq!(names(dir.path()), ["a.json"]);
        assert_eq!(fs::read(dir.path().join("a.json")).unwrap(), b"[]");
    }

    #[test]
    fn artifacts_keep_their_extension() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::prepare(&dir.path().join("out.png")).unwrap();
        let artifact = |suffix: &str, extension| Artifact { suffix: suffix.into(), extension, bytes: vec![1] };
        output.write_artifacts(&[artifact("", "png"), artifact("-roll", "png"), artifact("", "mid")]).unwrap();
        assert_eq!(names(dir.path()), ["out-roll.png", "out.mid", "out.png"]);
        let dir = tempfile::tempdir().unwrap();
        for name in ["s-0.7", "s-0.8"] {
            let output = Output::prepare(&dir.path().join(name)).unwrap();
            output.write_artifacts(&[artifact("", "png"), artifact("-1", "png")]).unwrap();
        }
        assert_eq!(names(dir.path()), ["s-0.7-1.png", "s-0.7.png", "s-0.8-1.png", "s-0.8.png"]);
    }

    #[test]
    fn what_cannot_be_written_is_refused_first() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| Output::prepare(path).unwrap_err().to_string();
        assert!(message(dir.path()).contains("is a folder"));
        assert!(message(&dir.path().join("no/such/a.png")).contains("there is no folder"));
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(message(&file.join("a.png")).contains("there is no folder"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_device_is_an_error_and_is_not_replaced() {
        let output = Output::prepare(Path::new("/dev/full")).unwrap();
        let message = output.write(b"x").unwrap_err().to_string();
        assert!(message.contains("/dev/full"), "{message}");
        assert!(is_special(Path::new("/dev/full")));
    }
}
