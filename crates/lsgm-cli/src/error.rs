//! What a command can end with, and what the user reads then.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::device::memory_advice;

/// The result of a command or a part of one.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command ends without having done what it was asked.
#[derive(Debug)]
pub(crate) enum Error {
    /// The user's input is at fault; the text says where and what would be right.
    Usage(String),
    /// Something failed below the command line.
    Core(lsgm_core::Error),
    /// The user pressed Ctrl-C; what was to be saved is saved.
    Interrupted(String),
    /// Whoever read our standard output has gone away, as `head` does.
    BrokenPipe,
}

impl Error {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// A file that was to be read.
    pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Self {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file",
            io::ErrorKind::IsADirectory => "is a folder, not a file",
            io::ErrorKind::PermissionDenied => "may not be read: permission denied",
            _ => return Self::Core(lsgm_core::Error::io(path, io::Error::new(error.kind(), error.to_string()))),
        };
        Self::usage(format!("{}: {advice}", path.display()))
    }

    /// A failed write to standard output.
    pub(crate) fn stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Core(lsgm_core::Error::io("standard output", error)),
        }
    }

    /// 2 for the user's mistakes, 1 for failures, 130 after Ctrl-C.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Core(e) if e.is_input() => 2,
            Self::Core(_) => 1,
            Self::Interrupted(_) => 130,
            Self::BrokenPipe => 0,
        })
    }

    /// Tell the user, in one paragraph on standard error.
    pub(crate) fn report(&self) {
        let line = match self {
            Self::BrokenPipe => return,
            Self::Interrupted(message) => format!("lsgm: {message}"),
            other => format!("lsgm: error: {other}"),
        };
        // There is nobody left to tell when standard error is gone.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Interrupted(message) => f.write_str(message),
            Self::Core(error) => {
                let text = paragraph(error);
                match memory_advice(&text) {
                    Some(advice) => write!(f, "{text}: {advice}"),
                    None => f.write_str(&text),
                }
            }
            Self::BrokenPipe => f.write_str("standard output was closed"),
        }
    }
}

impl std::error::Error for Error {}

impl From<lsgm_core::Error> for Error {
    fn from(error: lsgm_core::Error) -> Self {
        Self::Core(error)
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Core(error.into())
    }
}

impl From<lsgm_data::DataError> for Error {
    fn from(error: lsgm_data::DataError) -> Self {
        Self::Core(error.into())
    }
}

/// An error and its causes in one paragraph. Many errors print their cause themselves; nothing is said twice.
fn paragraph(error: &lsgm_core::Error) -> String {
    let mut text = match error {
        lsgm_core::Error::Tensor(e) => without_backtrace(e).to_string(),
        other => other.to_string(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        let message =
            e.downcast_ref::<candle_core::Error>().map_or_else(|| e.to_string(), |e| without_backtrace(e).to_string());
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = e.source();
    }
    one_paragraph(&text)
}

/// Lines that end without punctuation are items of a list.
pub(crate) fn one_paragraph(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match joined.chars().last() {
            None => {}
            Some('.' | ':' | ';' | ',') => joined.push(' '),
            Some(_) => joined.push_str("; "),
        }
        joined.push_str(line);
    }
    joined
}

/// candle prints a backtrace as part of the message when `RUST_BACKTRACE` is set.
fn without_backtrace(error: &candle_core::Error) -> &candle_core::Error {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => without_backtrace(inner),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_paragraph_with_its_cause_once() {
        let io = io::Error::other("tried:\n  here\n  there\ngive up");
        let error = Error::Core(lsgm_core::Error::io("run/state.json", io));
        assert_eq!(error.to_string(), "run/state.json: tried: here; there; give up");
    }

    #[test]
    fn backtraces_are_not_for_users() {
        let inner = candle_core::Error::Msg("shapes differ".into());
        let backtrace = Box::new(std::backtrace::Backtrace::force_capture());
        let error = candle_core::Error::WithBacktrace { inner: Box::new(inner), backtrace };
        assert_eq!(Error::from(error).to_string(), "shapes differ");
    }

    #[test]
    fn exit_codes_tell_input_from_failure() {
        let code = |e: Error| format!("{:?}", e.exit_code());
        let exit = |n: u8| format!("{:?}", ExitCode::from(n));
        assert_eq!(code(Error::usage("x")), exit(2));
        assert_eq!(code(lsgm_core::Error::config("a", "b").into()), exit(2));
        assert_eq!(code(lsgm_core::Error::contract("a", "b").into()), exit(1));
        assert_eq!(code(Error::Interrupted("x".into())), exit(130));
        assert_eq!(code(Error::BrokenPipe), exit(0));
    }
}
