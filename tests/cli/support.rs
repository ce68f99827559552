//! Starting the binary, and a model small enough to train in a second.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A model and a training that take about a second.
pub(crate) const TINY: &str = r#"modality = "binary"

[data]
set = "glyphs"
limit = 200

[autoencoder]
channels = [4, 8]
output_channels = 4
latent_channels = 2

[prior.network]
channels = 8
blocks = 1
attention = []
embedding = 16

[train]
batch_size = 10
checkpoint_every = 4
log_every = 4
sample_count = 4

[train.vae]
steps = 12

[train.lsgm]
steps = 12

[sample]
tolerance = 1e-2

[evaluate]
batch_size = 20
time_samples = 1
ode_items = 4
ode_tolerance = 1e-2
after_training = 20
"#;

/// A folder of its own for a test.
pub(crate) struct Bench {
    folder: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(bench.path("tiny.toml"), TINY).unwrap();
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// `lsgm` with these arguments, to be started in the folder. No setting of this machine reaches it.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lsgm"));
        command.args(args).current_dir(self.folder.path());
        for name in ["LSGM_LOG", "RUST_BACKTRACE", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "RAYON_NUM_THREADS"] {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.path("hf")).env("HF_HUB_OFFLINE", "1").env("LSGM_CACHE", self.path("cache"));
        command
    }

    /// Run to the end; `line` is split at spaces.
    pub(crate) fn lsgm(&self, line: &str) -> Finished {
        Finished::new(self.command(line.split_whitespace()).output().unwrap())
    }

    /// A finished run of the tiny model in `run`: trained once, copied for each test.
    pub(crate) fn trained() -> Self {
        static TRAINED: LazyLock<PathBuf> = LazyLock::new(|| {
            let bench = Bench::new();
            bench.lsgm("train tiny.toml --out run").succeeds();
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trained");
            let _ = std::fs::remove_dir_all(&kept);
            copy(&bench.path("run"), &kept);
            kept
        });
        let bench = Self::new();
        copy(&TRAINED, &bench.path("run"));
        bench
    }

    /// The bytes of every tensor of a file. (The order of a file's metadata is not fixed.)
    pub(crate) fn tensors(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let bytes = std::fs::read(self.path(name)).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert!(!tensors.is_empty(), "{name} is empty");
        tensors.iter().map(|(name, t)| (name.to_owned(), t.data().to_vec())).collect()
    }

    /// Every file below a folder, by its path from there, without the lock.
    pub(crate) fn files(&self, name: &str) -> Vec<String> {
        let mut files = Vec::new();
        list(&self.path(name), "", &mut files);
        files.sort();
        files
    }
}

fn list(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        match entry.path().is_dir() {
            true => list(&entry.path(), &format!("{name}/"), files),
            false => files.push(name),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// What a command left behind.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// One paragraph on standard error that has all `parts`, with this exit code.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, parts: &[&str]) {
        let message = self.stderr.lines().last().unwrap_or_default();
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert!(message.starts_with("lsgm: error: "), "{}", self.stderr);
        let errors = self.stderr.lines().filter(|line| !line.starts_with("lsgm: ") && !line.contains('%')).count();
        assert_eq!(errors, 0, "more than a paragraph:\n{}", self.stderr);
        for word in ["panicked", "stack backtrace", "this is a bug"] {
            assert!(!self.stderr.contains(word), "{}", self.stderr);
        }
        for part in parts {
            assert!(message.contains(part), "`{part}` is missing in: {message}");
        }
    }
}

/// Wait until `condition` holds.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The test data that may lie beside the repository; says so when it does not.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(name);
    if !path.exists() {
        eprintln!("skipped: there is no {}", path.display());
        return None;
    }
    Some(path)
}
