//! Ctrl-C. SIGHUP and SIGTERM keep their meaning, so that `nohup` works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsgm_engine::Interrupt;

use crate::terminal;

const EXIT_CODE: i32 = 130;

/// Let Ctrl-C end the process. Nothing half-written lies under a final name at any time.
pub(crate) fn ends_the_process() {
    handle(|| std::process::exit(EXIT_CODE));
}

/// While this lives, the first Ctrl-C asks training to save and stop, and the second ends the process; afterwards the
/// first does.
pub(crate) struct StopsTraining {
    pub(crate) interrupt: Interrupt,
    over: Arc<AtomicBool>,
}

impl StopsTraining {
    pub(crate) fn new() -> Self {
        let (interrupt, over) = (Interrupt::default(), Arc::new(AtomicBool::new(false)));
        let (stop, ends_now) = (interrupt.clone(), over.clone());
        handle(move || {
            if ends_now.swap(true, Ordering::SeqCst) {
                std::process::exit(EXIT_CODE);
            }
            terminal::notice("lsgm: saving after this step; Ctrl-C once more ends at once, without saving");
            stop.stop();
        });
        Self { interrupt, over }
    }
}

impl Drop for StopsTraining {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

fn handle(action: impl FnMut() + Send + 'static) {
    if let Err(e) = ctrlc::set_handler(action) {
        tracing::warn!("Ctrl-C is not handled: {e}");
    }
}
