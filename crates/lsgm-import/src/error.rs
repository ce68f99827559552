use std::path::{Path, PathBuf};

/// Why a checkpoint cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The operating system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Its reason.
        source: std::io::Error,
    },
    /// The file is damaged, or is no checkpoint.
    #[error("{}: {message}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// Tensors of a model are missing, unknown, or have another shape.
    #[error("{}: the {part} does not fit its `args`: {}", path.display(), list(differences))]
    Tensors {
        /// The file.
        path: PathBuf,
        /// `autoencoder` or `prior`.
        part: &'static str,
        /// One phrase for each tensor.
        differences: Vec<String>,
    },
    /// The contract below failed, such as an architecture that `args` describe but that cannot be built.
    #[error(transparent)]
    Core(#[from] lsgm_core::Error),
}

fn list(differences: &[String]) -> String {
    differences.join("; ")
}

impl ImportError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::file(path, "there is no such file or folder"),
            _ => Self::Io { path: path.to_owned(), source },
        }
    }

    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), message: message.into() }
    }
}

impl From<ImportError> for lsgm_core::Error {
    /// Failures of the machine keep that kind; everything else is the user's input.
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Io { path, source } => Self::Io { path, source },
            ImportError::File { path, message } => Self::Input { path, message },
            ImportError::Core(error) => error,
            error @ ImportError::Tensors { .. } => Self::Data(Box::new(error)),
        }
    }
}

/// The result of every fallible call of this crate.
pub type Result<T, E = ImportError> = std::result::Result<T, E>;
