//! Calls into libraries that panic on input that nobody foresaw.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static SHIELDED: Cell<bool> = const { Cell::new(false) };
}

/// The result of `call`, or nothing if it panicked; in that case nothing is printed either.
///
/// The call must leave nothing behind that the rest of the program uses: what it was given is dropped with it. The
/// panic hook that was there goes on to serve every panic outside such calls.
pub(crate) fn shield<T>(call: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            if !SHIELDED.get() {
                previous(info);
            }
        }));
    });
    let before = SHIELDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    SHIELDED.set(before);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_nothing() {
        assert_eq!(shield(|| 1), Some(1));
        assert_eq!(
            shield(|| if SHIELDED.get() {
                panic!("expected")
            }),
            None
        );
        assert!(!SHIELDED.get());
    }
}
