//! The binary from the outside: what it writes, and what it says when its input is wrong.
//!
//! All in one test binary, because linking one takes longer than running these tests.

mod config;
mod data;
mod devices;
mod files;
mod images;
mod import;
mod modality;
mod nvae;
mod pipeline;
mod runs;
mod sound;
mod support;
mod text;
