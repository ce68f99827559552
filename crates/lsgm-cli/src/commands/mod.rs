//! One file for each command.

mod check;
mod completions;
mod data;
mod evaluate;
mod finish;
mod import;
mod items;
mod measures;
mod new_modality;
mod parts;
mod sheets;
mod train;
mod watch;

use crate::args::Command;
use crate::registry::Registry;
use crate::{Result, interrupt};

/// Run a command.
pub(crate) fn run(command: Command, registry: &Registry) -> Result<()> {
    if !matches!(command, Command::Train(_)) {
        interrupt::ends_the_process();
    }
    match command {
        Command::Train(args) => train::run(&args, registry),
        Command::Sample(args) => sheets::sample(&args, registry),
        Command::Reconstruct(args) => sheets::reconstruct(&args, registry),
        Command::Interpolate(args) => sheets::interpolate(&args, registry),
        Command::Infill(args) => sheets::infill(&args, registry),
        Command::Evaluate(args) => evaluate::run(&args, registry),
        Command::Check(args) => check::run(&args, registry),
        Command::Import(args) => import::run(&args, registry),
        Command::Devices => crate::device::list(),
        Command::Data(args) => data::run(&args, registry),
        Command::NewModality(args) => new_modality::run(&args, registry),
        Command::Completions { shell } => completions::run(shell),
    }
}
