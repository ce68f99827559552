//! Data sources for lsgm: what is on disk, in the Hugging Face cache, or made on the spot, as batches.
//!
//! * A [`Card`] says what a data set is: sources in order of preference, files, columns, splits, licence, checksums.
//!   The program brings some ([`Card::built_in`]); a `*.toml` file of the same form is as good.
//! * Files are looked for in the folder that the user gives, else where the card's sources say. Opening never downloads;
//!   [`fetch`] does.
//! * [`open_images`] turns a split to [`Images`]: 8-bit images of one size with labels, in memory ([`ImageSet`]) or
//!   drawn on demand.
//! * [`BinaryImages`] turns them to a [`lsgm_core::Dataset`] of black and white ones, [`PixelImages`] to one of grey or
//!   colour ones; [`BinaryConfig`] and [`ImageConfig`] are their config sections.
//! * [`SoundClips`] are a [`lsgm_core::Dataset`] of sound: 16-bit samples of one length and rate, from files, tables or a
//!   generator; [`SoundConfig`] is its config section.
//! * [`open_texts`] turns a split to [`Texts`], which are read in pieces of bounded size.
//! * [`TextTable`] reads a table of categories from CSV or parquet; [`Categories`] numbers its values.
//! * [`check`](check()) tells whether a set is whole.
//!
//! Another kind of data adds its kind of [`Source`](card::Source), its content in the module `locate`, and a reader beside
//! [`open_images`].

mod binary;
pub mod card;
mod categories;
mod check;
mod config;
mod csv;
mod digest;
mod error;
mod fetch;
mod folder;
mod glyphs;
mod hub;
mod idx;
mod image_config;
mod image_set;
mod lazy;
mod locate;
mod mat;
mod open;
mod picture;
mod pixels;
mod shield;
mod sound;
mod suggest;
mod table;
mod text;
mod text_table;
mod unpacked;

pub use binary::{Binarization, BinaryImages};
pub use card::Card;
pub use categories::Categories;
pub use check::{Checksum, FileCheck, Report, SplitCheck, check};
pub use config::BinaryConfig;
pub use error::{DataError, Result};
pub use fetch::{Fetched, State, fetch, state};
pub use hub::{Hub, Progress};
pub use idx::read_idx;
pub use image_config::{ImageConfig, ImageSource};
pub use image_set::{ImageSet, ImageSize, Images};
pub use open::{Reading, Request, open_images};
pub use picture::{Damaged, Fit, Target};
pub use pixels::PixelImages;
pub use sound::{SoundCheck, SoundClips, SoundConfig};
pub use suggest::nearest;
pub use text::{Grammar, PIECE, Piece, Shares, Tally, TextCheck, TextRequest, Texts, Unit, open_texts};
pub use text_table::TextTable;
