use std::path::PathBuf;

/// Why a text or a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A tokenizer cannot be read, fitted or used.
    #[error("tokenizer {origin}: {message}")]
    Tokenizer {
        /// The file, or where else it is from.
        origin: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// An entry has more tokens than an item and `data.overlong` is `refuse`.
    #[error(
        "{origin}: entry {entry} of the {split} split has more than the {most} tokens that fit an item of \
         `data.length = {length}` with its end: raise it, or set `data.overlong` to `split` or `drop`"
    )]
    Overlong {
        /// Where the entries are from.
        origin: String,
        /// Number of the entry, from 1, empty ones left out.
        entry: usize,
        /// The split.
        split: &'static str,
        /// Tokens of an item, its end included.
        length: usize,
        /// Tokens of the longest text.
        most: usize,
    },
    /// No item is left of a split.
    #[error("{origin}: nothing is left of the {split} split: {reason}")]
    Nothing {
        /// Where the entries are from.
        origin: String,
        /// The split.
        split: &'static str,
        /// Why.
        reason: String,
    },
    /// A text on the command line cannot be an item.
    #[error("`{text}`: {message}")]
    Given {
        /// The text.
        text: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A stored tokenizer is not the one that the model was trained with.
    #[error("{}: {message}", path.display())]
    Replaced {
        /// The asset.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
}

impl From<TextError> for lsgm_core::Error {
    fn from(error: TextError) -> Self {
        Self::Data(Box::new(error))
    }
}
