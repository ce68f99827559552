//! Texts: plain files, JSON lines, parquet tables and a grammar, read in pieces of bounded size.
//!
//! A source consists of *entries*: lines, rows, or whole files. [`open_texts`] finds those of a split, and
//! [`Texts::visit`] walks over them without ever holding more than a piece of one: a gigabyte in one line costs no more
//! memory than a short one. Nothing here knows what a token is.

mod check;
mod grammar;
mod json;
mod open;
mod plain;
mod sink;
mod table;

pub use check::TextCheck;
pub(crate) use check::check_texts;
pub use grammar::Grammar;
pub use open::{Shares, TextRequest, Texts, open_texts};
pub use sink::{PIECE, Piece, Tally, Unit};
