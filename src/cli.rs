//! The command line.

use std::process::ExitCode;

use crate::Registry;

/// Run the command that the process was started with; see [`lsgm_cli::main`]. Make it the first call of a program.
pub fn main(registry: Registry) -> ExitCode {
    keep_freed_memory();
    lsgm_cli::main(registry)
}

/// What [`main()`] does first, for a program without the command line: settle the thread pools, with `threads` threads or one
/// for each core ([`lsgm_cli::settle_threads`]), and let [`crate::Allocator`] keep what is freed. Make it the first call of
/// the program.
pub fn prepare(threads: Option<usize>) {
    keep_freed_memory();
    lsgm_cli::settle_threads(threads);
}

/// A second after memory is freed the allocator would give it back to the system, from which the next training step would
/// take it again, cleared page by page: that was more than half of the time of a large step. `MIMALLOC_PURGE_DELAY` in the
/// environment, in milliseconds, goes first.
#[allow(unsafe_code)]
fn keep_freed_memory() {
    /// `mi_option_purge_delay`, in milliseconds; the bindings do not name it.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    const NEVER: std::ffi::c_long = -1;
    // SAFETY: no other thread runs yet; without the allocator in use, nothing follows from its option.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, NEVER) }
}
