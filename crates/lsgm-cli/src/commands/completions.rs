//! `lsgm completions SHELL`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Arguments;
use crate::{Result, terminal};

pub(super) fn run(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "lsgm", &mut script);
    terminal::print(&String::from_utf8_lossy(&script))
}
