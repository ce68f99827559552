//! `docs/command-line.md`, from the definition of the command line.

use clap::{Command, CommandFactory};

use crate::args::Arguments;

const INTRODUCTION: &str = "# Command line

<!-- Made from crates/lsgm-cli/src/args.rs: LSGM_WRITE_DOCS=1 cargo test --release -p lsgm-cli reference -->

Results go to standard output, everything else to standard error. The exit code is 0, 2 for a mistake in what was given, 1
for a failure, 130 after Ctrl-C. A program with modalities of its own has the same commands.
";

pub(super) fn page() -> String {
    let mut root = Arguments::command().term_width(100);
    root.build();
    let mut page = INTRODUCTION.to_owned();
    describe(&root, &mut page);
    page
}

/// A command and those below it. Options that every command has are shown with the first one alone.
fn describe(command: &Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let is_root = !name.contains(' ');
    let mut shown = command.clone().version(None::<&str>).disable_version_flag(true).disable_help_flag(!is_root);
    if !is_root {
        shown = shown.mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
    }
    let help = shown.render_long_help().to_string();
    let text = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    page.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", text.trim_end()));
    for below in command.get_subcommands().filter(|c| c.get_name() != "help") {
        describe(below, page);
    }
}
