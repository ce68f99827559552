use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use lsgm_core::{Assets, Error, Result};

use crate::state::TrainState;

/// Everything that training needs to continue.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Trained weights and buffers.
    pub model: BTreeMap<String, Tensor>,
    /// Their exponential moving average.
    pub ema: BTreeMap<String, Tensor>,
    /// Moments of the optimizers.
    pub optimizer: BTreeMap<String, Tensor>,
    /// Counters, clocks and the generator.
    pub state: TrainState,
}

/// A run's directory: the resolved config, the latest checkpoint, the one before it, events, samples.
///
/// A checkpoint is four files. They are written to `.next/`, `state.json` last; then each is renamed to its place,
/// `state.json` last again. Whatever instant a process dies at, [`RunDir::open`] finds either the old set or the
/// complete new one, and finishes what was begun.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    // Held for its lock, which the operating system drops with the process.
    _lock: Option<File>,
}

const TENSOR_FILES: [&str; 3] = ["model.safetensors", "ema.safetensors", "optimizer.safetensors"];
const STATE: &str = "state.json";
const NEXT: &str = ".next";

impl RunDir {
    /// Make a directory for a new run and lock it.
    ///
    /// # Errors
    /// When it cannot be written, is in use, or already holds a run.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path.join("samples")).map_err(|e| unwritable(path, e))?;
        let run = Self { path: path.to_owned(), _lock: Some(lock(path)?) };
        if run.path.join(STATE).exists() || run.path.join(NEXT).join(STATE).exists() {
            return Err(Error::input(path, "holds a run already: continue it with --resume, or choose another --out"));
        }
        Ok(run)
    }

    /// Open a run to continue it, and lock it.
    ///
    /// # Errors
    /// When there is no run, or another process uses it.
    pub fn open(path: &Path) -> Result<Self> {
        require_run(path)?;
        let run = Self { path: path.to_owned(), _lock: Some(lock(path)?) };
        run.finish_pending()?;
        Ok(run)
    }

    /// Open a run to read it, beside a training that may be under way.
    ///
    /// # Errors
    /// When there is no run.
    pub fn read(path: &Path) -> Result<Self> {
        require_run(path)?;
        Ok(Self { path: path.to_owned(), _lock: None })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Write `name` below the directory, aside and renamed.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_atomic(&self.path.join(name), bytes)
    }

    /// The text of `config.toml`.
    pub fn config(&self) -> Result<String> {
        let path = self.path.join("config.toml");
        fs::read_to_string(&path).map_err(|e| Error::io(path, e))
    }

    /// Store the files of the modality below `assets/`.
    pub fn write_assets(&self, assets: &Assets) -> Result<()> {
        for (name, bytes) in assets {
            self.write(&format!("assets/{name}"), bytes)?;
        }
        Ok(())
    }

    /// The stored files of the modality.
    pub fn assets(&self) -> Result<Assets> {
        let folder = self.path.join("assets");
        let mut assets = Assets::new();
        if !folder.exists() {
            return Ok(assets);
        }
        for entry in fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))? {
            let path = entry.map_err(|e| Error::io(&folder, e))?.path();
            if let Some(name) = path.file_name().and_then(|n| n.to_str()).filter(|n| !n.starts_with('.')) {
                assets.insert(name.to_owned(), fs::read(&path).map_err(|e| Error::io(&path, e))?);
            }
        }
        Ok(assets)
    }

    /// Write a checkpoint; the one before it goes to `previous/`.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        let next = self.path.join(NEXT);
        if next.exists() {
            fs::remove_dir_all(&next).map_err(|e| Error::io(&next, e))?;
        }
        fs::create_dir_all(&next).map_err(|e| unwritable(&self.path, e))?;
        let sets = [&checkpoint.model, &checkpoint.ema, &checkpoint.optimizer];
        for (name, tensors) in TENSOR_FILES.iter().zip(sets) {
            write_tensors(&next.join(name), tensors, checkpoint.state.step)?;
        }
        let state = serde_json::to_vec_pretty(&checkpoint.state).map_err(|e| Error::Other(e.into()))?;
        write_atomic(&next.join(STATE), &state)?;
        self.keep_previous()?;
        self.finish_pending()
    }

    /// The latest checkpoint.
    ///
    /// # Errors
    /// When a file is missing or corrupt; the message names the checkpoint before it where there is one.
    pub fn load(&self, device: &Device) -> Result<Checkpoint> {
        self.load_from(&self.path, device).map_err(|e| match self.path.join("previous").join(STATE).exists() {
            true => Error::input(
                &self.path,
                format!("{e}. The checkpoint before it lies in `previous/`: move its four files up to go back to it"),
            ),
            false => e,
        })
    }

    /// The moving-average weights and the state alone, for sampling and evaluation.
    pub fn load_ema(&self, device: &Device) -> Result<(BTreeMap<String, Tensor>, TrainState)> {
        let state = self.state(&self.path)?;
        let (tensors, _) = read_tensors(&self.path.join("ema.safetensors"), device)?;
        Ok((tensors, state))
    }

    /// Cut `events.jsonl` to its first `bytes`: what came later is repeated.
    pub fn truncate_events(&self, bytes: u64) -> Result<()> {
        let path = self.path.join("events.jsonl");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| unwritable(&path, e))?;
        let length = file.metadata().map_err(|e| Error::io(&path, e))?.len();
        // A log that has lost its end stays as it is.
        file.set_len(bytes.min(length)).map_err(|e| Error::io(&path, e))
    }

    /// Append one line to `events.jsonl`; returns the length of the file in bytes.
    pub fn append_event(&self, line: &str) -> Result<u64> {
        let path = self.path.join("events.jsonl");
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| unwritable(&path, e))?;
        writeln!(file, "{line}").map_err(|e| Error::io(&path, e))?;
        Ok(file.metadata().map_err(|e| Error::io(&path, e))?.len())
    }

    fn state(&self, folder: &Path) -> Result<TrainState> {
        let path = folder.join(STATE);
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let state: TrainState =
            serde_json::from_str(&text).map_err(|e| Error::input(&path, format!("is corrupt: {e}")))?;
        if state.format != TrainState::FORMAT {
            return Err(Error::input(
                &path,
                format!("has format {}; this version reads {}", state.format, TrainState::FORMAT),
            ));
        }
        Ok(state)
    }

    fn load_from(&self, folder: &Path, device: &Device) -> Result<Checkpoint> {
        let state = self.state(folder)?;
        let mut sets = Vec::with_capacity(3);
        for name in TENSOR_FILES {
            let (tensors, step) = read_tensors(&folder.join(name), device)?;
            if step != Some(state.step) {
                return Err(Error::input(
                    folder.join(name),
                    format!("belongs to step {step:?}, state.json to step {}", state.step),
                ));
            }
            sets.push(tensors);
        }
        let mut sets = sets.into_iter();
        let mut take = || sets.next().unwrap_or_default();
        Ok(Checkpoint { model: take(), ema: take(), optimizer: take(), state })
    }

    /// Link the current set into `previous/`.
    fn keep_previous(&self) -> Result<()> {
        if !self.path.join(STATE).exists() {
            return Ok(());
        }
        let (aside, previous) = (self.path.join(".previous"), self.path.join("previous"));
        for old in [&aside, &previous] {
            if old.exists() {
                fs::remove_dir_all(old).map_err(|e| Error::io(old, e))?;
            }
        }
        fs::create_dir_all(&aside).map_err(|e| unwritable(&self.path, e))?;
        for name in TENSOR_FILES.into_iter().chain([STATE]) {
            let (from, to) = (self.path.join(name), aside.join(name));
            // A file system without hard links gets a copy.
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).map_err(|e| Error::io(&from, e))?;
        }
        fs::rename(&aside, &previous).map_err(|e| Error::io(&previous, e))
    }

    /// Move a completely written set to its place; drop an incomplete one.
    fn finish_pending(&self) -> Result<()> {
        let next = self.path.join(NEXT);
        if !next.exists() {
            return Ok(());
        }
        if next.join(STATE).exists() {
            for name in TENSOR_FILES.into_iter().chain([STATE]) {
                let (from, to) = (next.join(name), self.path.join(name));
                if from.exists() {
                    fs::rename(&from, &to).map_err(|e| Error::io(&to, e))?;
                }
            }
            sync_dir(&self.path)?;
        }
        fs::remove_dir_all(&next).map_err(|e| Error::io(&next, e))
    }
}

fn require_run(path: &Path) -> Result<()> {
    if !path.is_dir() {
        return Err(Error::input(path, "is not a run directory: there is no such folder"));
    }
    if !path.join(STATE).exists() && !path.join(NEXT).join(STATE).exists() {
        return Err(Error::input(
            path,
            "is not a run directory: it holds no state.json (a run has one after its first checkpoint)",
        ));
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let name = path.join("lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&name).map_err(|e| unwritable(&name, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::input(path, "another process trains in this run directory: stop it, or choose another --out"))
        }
        Err(TryLockError::Error(e)) => Err(Error::io(name, e)),
    }
}

fn unwritable(path: &Path, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::AlreadyExists => Error::input(path, format!("cannot be written ({e}): choose another --out")),
        _ => Error::io(path, e),
    }
}

/// Write aside, sync, rename.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| unwritable(folder, e))?;
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let aside = folder.join(format!(".{name}.partial"));
    let written = File::create(&aside)
        .and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()))
        .and_then(|()| fs::rename(&aside, path));
    if let Err(e) = written {
        // The reason for the failure matters more than whether the rest could be cleaned away.
        let _ = fs::remove_file(&aside);
        return Err(unwritable(path, e));
    }
    sync_dir(folder)
}

/// Make renames in `folder` survive a power failure, where directories can be opened.
fn sync_dir(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::io(folder, e))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

fn write_tensors(path: &Path, tensors: &BTreeMap<String, Tensor>, step: u64) -> Result<()> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned()), ("step".to_owned(), step.to_string())]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| Error::Other(e.into()))?;
    write_atomic(path, &bytes)
}

fn read_tensors(path: &Path, device: &Device) -> Result<(BTreeMap<String, Tensor>, Option<u64>)> {
    let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
    let corrupt = |e: &dyn std::fmt::Display| Error::input(path, format!("is corrupt: {e}"));
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| corrupt(&e))?;
    let step = header.metadata().as_ref().and_then(|m| m.get("step")).and_then(|s| s.parse().ok());
    let tensors = candle_core::safetensors::load_buffer(&bytes, device).map_err(|e| corrupt(&e))?;
    Ok((tensors.into_iter().collect(), step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsgm_core::Rng;

    fn checkpoint(step: u64) -> Checkpoint {
        let tensors = BTreeMap::from([("a".to_owned(), Tensor::new(&[step as f32], &Device::Cpu).unwrap())]);
        let state = TrainState { step, ..TrainState::new(Rng::new(1).state()) };
        Checkpoint { model: tensors.clone(), ema: tensors.clone(), optimizer: tensors, state }
    }

    fn step_of(folder: &Path) -> u64 {
        let c = RunDir::open(folder).unwrap().load(&Device::Cpu).unwrap();
        assert_eq!(c.model["a"].to_vec1::<f32>().unwrap(), [c.state.step as f32]);
        c.state.step
    }

    #[test]
    fn a_process_that_dies_anywhere_leaves_a_whole_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        {
            let run = RunDir::create(path).unwrap();
            run.save(&checkpoint(1)).unwrap();
            run.save(&checkpoint(2)).unwrap();
        }
        assert_eq!(step_of(path), 2);
        let previous = RunDir::read(path).unwrap().load_from(&path.join("previous"), &Device::Cpu).unwrap();
        assert_eq!(previous.state.step, 1);

        // Died while writing aside: the incomplete set is dropped.
        fs::create_dir(path.join(NEXT)).unwrap();
        fs::write(path.join(NEXT).join(TENSOR_FILES[0]), b"half").unwrap();
        assert_eq!(step_of(path), 2);

        // Died while renaming: the complete set is moved on.
        let other = tempfile::tempdir().unwrap();
        RunDir::create(other.path()).unwrap().save(&checkpoint(3)).unwrap();
        fs::create_dir(path.join(NEXT)).unwrap();
        fs::copy(other.path().join(TENSOR_FILES[0]), path.join(TENSOR_FILES[0])).unwrap();
        for name in [TENSOR_FILES[1], TENSOR_FILES[2], STATE] {
            fs::copy(other.path().join(name), path.join(NEXT).join(name)).unwrap();
        }
        assert_eq!(step_of(path), 3);
        assert!(!path.join(NEXT).exists());
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path()).unwrap();
        run.save(&checkpoint(1)).unwrap();
        let message = RunDir::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("another process"), "{message}");
        drop(run);
        assert!(RunDir::create(dir.path()).unwrap_err().to_string().contains("--resume"));
    }

    #[test]
    fn corruption_is_named_and_the_previous_checkpoint_offered() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path()).unwrap();
        run.save(&checkpoint(1)).unwrap();
        run.save(&checkpoint(2)).unwrap();
        fs::write(dir.path().join("ema.safetensors"), b"garbage").unwrap();
        let message = run.load(&Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("ema.safetensors") && message.contains("previous/"), "{message}");
    }
}
