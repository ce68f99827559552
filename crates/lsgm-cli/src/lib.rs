//! The command line of lsgm: configuration, registry, rendering and reports.
//!
//! A binary is a [`Registry`] of modalities handed to [`main()`]. Everything numerical happens in `lsgm-engine` and
//! `lsgm-prior`; this crate reads what the user wants, calls them, and shows what comes out.

mod args;
mod commands;
mod config;
mod device;
mod environment;
mod error;
mod interrupt;
mod memory;
mod output;
mod progress;
#[cfg(test)]
mod reference;
mod registry;
mod report;
mod run;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use args::Arguments;
pub use environment::settle_threads;
use error::{Error, Result};
pub use registry::Registry;

/// Run the command that the process was started with, and return its exit code: 0, 2 for a mistake in what the user
/// gave, 1 for a failure, 130 after Ctrl-C.
///
/// Make it the first call of a program: it settles the thread pools, which is possible only before the first tensor
/// operation and while no other thread runs. With one thread (`--threads 1`) the calling thread is all of the pool: a modality
/// must not wait for a thread of its own that calls kernels then.
pub fn main(registry: Registry) -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help for a reader that has gone away is not a failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    terminal::start(arguments.quiet);
    environment::settle_process(arguments.threads);
    match commands::run(arguments.command, &registry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            error.exit_code()
        }
    }
}
