use std::path::PathBuf;

/// The result of every fallible call of the toolkit's contracts.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong behind one of the contracts.
///
/// [`Error::is_input`] tells the user's mistakes (a command exits with 2) from failures (1).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed; the message names the operation and the shapes.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A configuration value cannot be used.
    #[error("config key `{key}`: {message}")]
    Config {
        /// Full dotted key, such as `train.vae.steps`.
        key: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A file or folder that the user named cannot be used.
    #[error("{}: {message}", path.display())]
    Input {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A component broke its contract: a wrong shape, a value that is not finite, a gradient that never arrives.
    #[error("`{part}` breaks its contract: {message}")]
    Contract {
        /// The component, such as `encoder`.
        part: String,
        /// Which rule is broken, with the shapes or values seen.
        message: String,
    },
    /// A model has more values than its store may hold ([`ParamStore::limited`](crate::ParamStore::limited)).
    #[error("the model is too large: with `{parameter}` {dims:?} it has more than {limit} values")]
    ModelTooLarge {
        /// The first parameter that is too much.
        parameter: String,
        /// Its shape.
        dims: Vec<usize>,
        /// How many values there may be.
        limit: usize,
    },
    /// Input data of a modality cannot be used.
    #[error(transparent)]
    Data(Box<dyn std::error::Error + Send + Sync>),
    /// Anything else, with its cause.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// A configuration error at `key`.
    pub fn config(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config { key: key.into(), message: message.into() }
    }

    /// An unusable file or folder.
    pub fn input(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::Input { path: path.into(), message: message.into() }
    }

    /// A failed read or write of `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// A broken contract of `part`.
    pub fn contract(part: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Contract { part: part.into(), message: message.into() }
    }

    /// Whether the user's input is at fault, rather than the program or the machine.
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Config { .. } | Self::Input { .. } | Self::Data(_))
    }
}
