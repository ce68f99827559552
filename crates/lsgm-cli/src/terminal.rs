//! Standard output for results, standard error for everything else.

use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;

use crate::{Error, Result};

/// All progress bars, so that lines can be written above them.
pub(crate) static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

static QUIET: AtomicBool = AtomicBool::new(false);

/// Settle how the process talks: `--quiet`, log lines (`LSGM_LOG`, by default warnings), panics.
pub(crate) fn start(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
    let filter = EnvFilter::try_from_env("LSGM_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // A library user may have a subscriber already; it stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .without_time()
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(|| AboveBars)
        .try_init();
    std::panic::set_hook(Box::new(|panic| {
        notice_always(&format!("lsgm: this is a bug, please report it: {}", panic.to_string().replace('\n', " ")));
    }));
}

/// Whether a person watches standard error.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// A line on standard error, unless `--quiet`.
pub(crate) fn notice(line: &str) {
    if !is_quiet() {
        notice_always(line);
    }
}

fn notice_always(line: &str) {
    // There is nobody left to tell when standard error is gone.
    let _ = writeln!(AboveBars, "{line}");
}

/// Text on standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    BARS.suspend(|| out.write_all(text.as_bytes()).and_then(|()| out.flush())).map_err(Error::stdout)
}

/// Standard error above the progress bars.
struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
