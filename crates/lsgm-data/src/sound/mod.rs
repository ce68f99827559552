//! Sound: recordings in files, in tables, or made by the program, as clips of 16-bit samples at one rate.
//!
//! * `recording`: one recording, read from any place on by seeking: WAV (`wav`) or, with the feature `symphonia`, FLAC, OGG
//!   Vorbis and MP3 (`encoded`).
//! * `files`: which files of a folder belong to a part of a set, and their labels.
//! * [`Sounds`]: indexed clips of one length; [`SoundClips`] makes batches of them.

mod check;
mod clips;
mod config;
#[cfg(feature = "symphonia")]
mod encoded;
mod files;
mod open;
mod recording;
mod resample;
mod table;
mod tones;
mod wav;

pub use check::SoundCheck;
pub(crate) use check::check_sounds;
pub use clips::SoundClips;
use clips::{Clip, ClipForm, Sounds};
pub use config::SoundConfig;
pub(crate) use files::{SoundFile, parted, sounds_in, split_by_name};
use open::{SoundRequest, open_sounds, read_clip};
use tones::Tones;

/// Sample rates of recordings, in Hz. Beyond them is no sound but a damaged header.
const RATES: std::ops::RangeInclusive<u32> = 100..=768_000;
