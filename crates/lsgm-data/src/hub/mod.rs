//! The Hugging Face cache on this machine, and downloads into it.

#[cfg(feature = "hub")]
mod download;

use std::path::{Path, PathBuf};

use crate::Result;

/// Where the hub is, and where its files are kept.
///
/// Taken from the environment as the hub's own tools do: the cache is `HF_HUB_CACHE`, else `HF_HOME/hub`, else
/// `XDG_CACHE_HOME/huggingface/hub`, else `~/.cache/huggingface/hub`; `HF_HUB_OFFLINE` forbids downloads; `HF_ENDPOINT`
/// names another server; the token comes from `HF_TOKEN` or from the file that `hf auth login` wrote.
#[derive(Clone)]
pub struct Hub {
    cache: PathBuf,
    #[cfg_attr(not(feature = "hub"), allow(dead_code))]
    endpoint: Option<String>,
    #[cfg_attr(not(feature = "hub"), allow(dead_code))]
    token: Option<String>,
    offline: bool,
}

impl std::fmt::Debug for Hub {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("cache", &self.cache).field("offline", &self.offline).finish_non_exhaustive()
    }
}

impl Hub {
    /// As the environment says.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As the given variables say; unset and empty ones are the same.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|v| !v.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let home = path("HF_HOME").unwrap_or_else(|| {
            let cache = path("XDG_CACHE_HOME").or_else(|| Some(path("HOME").or(path("USERPROFILE"))?.join(".cache")));
            cache.unwrap_or_default().join("huggingface")
        });
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let stored = || std::fs::read_to_string(token_file).ok();
        let token = variable("HF_TOKEN").or_else(stored).map(|t| t.trim().to_owned());
        Self {
            cache: path("HF_HUB_CACHE").or(path("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| home.join("hub")),
            endpoint: variable("HF_ENDPOINT").map(|e| e.trim_end_matches('/').to_owned()),
            token: token.filter(|t| !t.is_empty()),
            offline: variable("HF_HUB_OFFLINE").is_some_and(|v| is_true(&v)),
        }
    }

    /// The folder of the cache.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Whether downloads are forbidden.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// A file of a data set repository, if the cache holds it. No network is used.
    pub fn cached(&self, repo: &str, revision: &str, file: &str) -> Option<PathBuf> {
        self.find("datasets", repo, revision, file)
    }

    /// A file of a model repository, such as its tokenizer, if the cache holds it. No network is used.
    pub fn cached_model(&self, repo: &str, revision: &str, file: &str) -> Option<PathBuf> {
        self.find("models", repo, revision, file)
    }

    fn find(&self, kind: &str, repo: &str, revision: &str, file: &str) -> Option<PathBuf> {
        let folder = self.cache.join(format!("{kind}--{}", repo.replace('/', "--")));
        let stored = std::fs::read_to_string(folder.join("refs").join(revision)).ok();
        let commit = stored.as_deref().map(str::trim).filter(|c| is_commit(c)).unwrap_or(revision);
        Some(folder.join("snapshots").join(commit).join(file)).filter(|path| path.is_file())
    }

    /// A file of a data set repository from the cache, downloaded into it if it is not there. `progress` hears of the
    /// bytes of a download.
    ///
    /// # Errors
    /// [`crate::DataError::Download`] when the file is not cached and the network is forbidden, or the download fails.
    pub fn fetch(
        &self,
        repo: &str,
        revision: &str,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf> {
        if let Some(path) = self.cached(repo, revision, file) {
            return Ok(path);
        }
        if self.offline {
            let message = format!(
                "it is not in the cache {} and `HF_HUB_OFFLINE` forbids downloads; unset it, or pass `--data DIR`",
                self.cache.display()
            );
            return Err(refused(repo, file, message));
        }
        self.download(repo, revision, file, progress)
    }

    #[cfg(not(feature = "hub"))]
    fn download(&self, repo: &str, _: &str, file: &str, _: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf> {
        let message = "this program was built without the feature `hub`; copy the file and pass `--data DIR`";
        Err(refused(repo, file, message.into()))
    }
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// File in the repository.
    pub file: &'a str,
    /// Bytes that have come.
    pub done: usize,
    /// Bytes in all.
    pub total: usize,
}

fn refused(repo: &str, file: &str, message: String) -> crate::DataError {
    crate::DataError::Download { repo: repo.to_owned(), file: file.to_owned(), message }
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
}

fn is_commit(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}
