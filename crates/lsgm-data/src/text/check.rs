//! What a check finds in a set of texts.

use std::ops::ControlFlow;

use lsgm_core::Split;
use serde::Serialize;

use super::open::{TextRequest, open_texts};
use super::sink::Tally;
use crate::Result;

/// One split of texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TextCheck {
    /// Which.
    pub split: Split,
    /// Number of entries that the card promises.
    pub expected: Option<usize>,
    /// What was read.
    #[serde(flatten)]
    pub tally: Tally,
    /// Words: runs of characters without white space.
    pub words: usize,
    /// Characters of the longest entry.
    pub longest: usize,
}

/// Read all of a split.
pub(crate) fn check_texts(request: &TextRequest<'_>) -> Result<TextCheck> {
    let (mut words, mut longest, mut length) = (0, 0, 0);
    let tally = open_texts(request)?.visit(&mut |piece| {
        words += piece.text.split_whitespace().count();
        length += piece.text.chars().count();
        longest = longest.max(length);
        if piece.ends {
            length = 0;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(TextCheck { split: request.split, expected: None, tally, words, longest })
}
