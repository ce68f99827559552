//! The `lsgm` binary: the built-in modalities behind the command line.

/// Training frees and takes large buffers at every step; this allocator keeps them.
#[global_allocator]
static ALLOCATOR: lsgm::Allocator = lsgm::Allocator;

fn main() -> std::process::ExitCode {
    keep_freed_memory();
    lsgm::cli::main(lsgm::Registry::default())
}

/// A second after memory is freed the allocator would give it back to the system, from which the next training step would
/// take it again, cleared page by page: that was more than half of the time of a large step.
#[allow(unsafe_code)]
fn keep_freed_memory() {
    /// `mi_option_purge_delay`, in milliseconds; the bindings do not name it.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    const NEVER: std::ffi::c_long = -1;
    // SAFETY: no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, NEVER) }
}
