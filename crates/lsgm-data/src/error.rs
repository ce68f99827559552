use std::path::{Path, PathBuf};

use crate::ImageSize;

/// The result of every fallible call of this crate that is not one of the contracts.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// Why data cannot be had or used: what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder is not there.
    #[error("{}: {what} not found; {advice}", path.display())]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// What it was to be.
        what: String,
        /// What to do.
        advice: String,
    },
    /// The operating system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Its reason.
        source: std::io::Error,
    },
    /// The content of a file is not what its format demands.
    #[error("{}: {place}: {message}; copy or download the file again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file: bytes, or row group, row and column.
        place: String,
        /// What was found, and what the format demands.
        message: String,
    },
    /// An encoded image that cannot be used.
    #[error("{origin}: {message}; mend or remove it, or set `data.damaged` to \"skip\"")]
    Unusable {
        /// The file, and the row in it.
        origin: String,
        /// Why not.
        message: String,
    },
    /// A recording cannot be used, though nothing need be wrong with the file.
    #[error("{}: {message}", path.display())]
    Sound {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A text cannot be read as one.
    #[error("{}: {place}: {message}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        place: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A table lacks a column, or has it with a type that cannot be read.
    #[error("{}: column `{column}`: {message}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column that was asked for.
        column: String,
        /// What is there instead.
        message: String,
    },
    /// An image has another size than the data set or the config says.
    #[error("{origin}: wrong image size: expected {expected}, found {found}; {advice}")]
    ImageSize {
        /// The file and the item.
        origin: String,
        /// What the set or the config says.
        expected: ImageSize,
        /// What the image has.
        found: ImageSize,
        /// What to do.
        advice: String,
    },
    /// A split without a single item.
    #[error("{origin}: the {split} split of `{set}` is empty; {advice}")]
    Empty {
        /// Where the items were to come from.
        origin: String,
        /// The data set.
        set: String,
        /// The split.
        split: &'static str,
        /// What to do.
        advice: String,
    },
    /// A data set card cannot be used.
    #[error("{origin}: {message}")]
    Card {
        /// The file, or the name of a built-in card.
        origin: String,
        /// What is wrong with it, and what would be right.
        message: String,
    },
    /// The program asked for what a set does not have; not the user's fault.
    #[error("image set: {0}")]
    Contract(String),
    /// No card of this name.
    #[error(
        "unknown data set `{name}`{}; known sets: {known}; a path to a card of your own (*.toml) works too",
        did_you_mean(.nearest)
    )]
    UnknownSet {
        /// What was asked for.
        name: String,
        /// The known name nearest to it.
        nearest: Option<String>,
        /// All known names.
        known: String,
    },
    /// None of a card's sources is at hand.
    #[error("data set `{set}` is not on this machine:\n{tried}\n{advice}")]
    NotAtHand {
        /// The data set.
        set: String,
        /// One line for each place that was looked at.
        tried: String,
        /// What to do.
        advice: String,
    },
    /// A download failed or was not allowed.
    #[error("cannot download `{file}` of `{repo}`: {message}")]
    Download {
        /// Repository on the hub.
        repo: String,
        /// File in the repository.
        file: String,
        /// What happened, and what to do.
        message: String,
    },
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default()
}

impl DataError {
    /// A failed system call on `path`; [`DataError::Missing`] when there is no such file.
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::Missing {
                path: path.to_owned(),
                what: "file".into(),
                advice: "check the path, or point `--data` at the folder that has it".into(),
            },
            _ => Self::Io { path: path.to_owned(), source },
        }
    }

    /// Content that its format does not allow.
    pub(crate) fn corrupt(path: &Path, place: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self::Corrupt { path: path.to_owned(), place: place.into(), message: message.to_string() }
    }
}

impl From<DataError> for lsgm_core::Error {
    /// Failures of the machine or the network keep that kind; everything else is the user's input.
    fn from(error: DataError) -> Self {
        match error {
            DataError::Io { path, source } => Self::Io { path, source },
            DataError::Missing { path, what, advice } => Self::input(path, format!("{what} not found; {advice}")),
            DataError::Contract(message) => Self::contract("image set", message),
            error @ DataError::Download { .. } => Self::Other(Box::new(error)),
            error => Self::Data(Box::new(error)),
        }
    }
}
