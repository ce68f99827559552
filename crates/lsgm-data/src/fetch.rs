//! Downloads on demand, and what is at hand without them.

use std::path::{Path, PathBuf};

use lsgm_core::Split;

use crate::card::{Card, HubLayout, HubSource, Source};
use crate::locate::{locate, splits};
use crate::{DataError, Hub, Progress, Result};

/// What [`fetch`] got.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fetched {
    /// Nothing needs to be fetched: the program makes the items.
    BuiltIn,
    /// These files are in the cache now.
    Files(Vec<PathBuf>),
}

/// Bring a data set to this machine: files that the cache lacks are downloaded into it.
///
/// # Errors [`DataError::Download`] when the network fails or `HF_HUB_OFFLINE` forbids it; [`DataError::NotAtHand`]
/// for a card without a repository on the hub.
pub fn fetch(card: &Card, hub: &Hub, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Fetched> {
    let mut failure = None;
    for source in &card.sources {
        match source {
            Source::BuiltIn(_) => return Ok(Fetched::BuiltIn),
            Source::Idx(_)
            | Source::Mat(_)
            | Source::Sound(_)
            | Source::Text(_)
            | Source::Parquet(_)
            | Source::ImageFolder(_) => {}
            Source::Hub(source) => match fetch_any_layout(source, hub, progress) {
                Ok(files) => return Ok(Fetched::Files(files)),
                // The first layout is the preferred one: its failure is the one worth telling.
                Err(error) => failure = failure.or(Some(error)),
            },
        }
    }
    Err(failure.unwrap_or_else(|| DataError::NotAtHand {
        set: card.name.clone(),
        tried: "  its card names no repository on the hub".into(),
        advice: format!(
            "get the files from {} and pass `--data DIR`",
            card.homepage.as_deref().unwrap_or("its authors")
        ),
    }))
}

fn fetch_any_layout(source: &HubSource, hub: &Hub, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Vec<PathBuf>> {
    let cached = |layout: &HubLayout| {
        layout.parts.values().flatten().all(|file| hub.cached(&source.repo, &layout.revision, file).is_some())
    };
    let mut failure = None;
    let layouts = source.layouts.iter();
    for layout in layouts.clone().filter(|l| cached(l)).chain(layouts.filter(|l| !cached(l))) {
        let files = layout.parts.values().flatten();
        match files.map(|file| hub.fetch(&source.repo, &layout.revision, file, progress)).collect() {
            Ok(files) => return Ok(files),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(|| DataError::Card {
        origin: source.repo.clone(),
        message: "`layouts` is empty: name the files of at least one revision".into(),
    }))
}

/// Whether a data set can be used right away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// All splits are at hand; where, in a few words.
    Ready(String),
    /// Something is missing; what was looked for.
    Absent(String),
}

/// Look whether all splits of a set are at hand. Files are looked for, not read.
pub fn state(card: &Card, dir: Option<&Path>, hub: &Hub) -> State {
    let splits = splits(card, dir);
    let mut place = String::new();
    for split in Split::ALL {
        match locate(card, &splits.rule(split).part, dir, hub) {
            Ok(located) => place = located.content.describe(),
            Err(error) => return State::Absent(error.to_string()),
        }
    }
    State::Ready(place)
}
