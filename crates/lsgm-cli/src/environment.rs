//! What must be settled before the first tensor operation.

/// candle's own thread pool spins while it waits and so takes the cores away from rayon's, which our kernels use.
const SPIN_LIMIT: &str = "CANDLE_BARRIER_POOL_SPIN_LIMIT";

/// Both pools read their size here.
const THREADS: &str = "RAYON_NUM_THREADS";

/// Settle the thread pools, with `threads` threads or one for each core. [`crate::main`] does; a program that calls the
/// engine itself does it first: both pools read their settings once, at the first tensor operation, and the settings can be
/// made only while no other thread runs.
///
/// The calling thread becomes one of the pool's, but for a pool of one: if that thread waited for another one which calls
/// kernels, nobody would be left to serve it.
pub fn settle_threads(threads: Option<usize>) {
    settle(threads, 2);
}

/// [`settle_threads`] for a process whose other threads call no kernels: the calling thread is the pool, where one is all of
/// it. Else each kernel would cost two changes of threads, six percent of a training on one core.
pub(crate) fn settle_process(threads: Option<usize>) {
    settle(threads, 1);
}

fn settle(threads: Option<usize>, least: usize) {
    if std::env::var_os(SPIN_LIMIT).is_none() {
        set_variable(SPIN_LIMIT, "0");
    }
    if let Some(n) = threads {
        set_variable(THREADS, &n.to_string());
    }
    join_pool(least);
}

/// Make the calling thread one of the pool's if that has `least` threads: a kernel then starts at once, where another thread
/// would have to be woken and waited for.
fn join_pool(least: usize) {
    let asked = std::env::var(THREADS).ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let threads: usize = asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    if threads < least {
        return;
    }
    if let Err(error) = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global() {
        tracing::warn!("the main thread stays outside the thread pool: {error}");
    }
}

#[allow(unsafe_code)]
fn set_variable(name: &str, value: &str) {
    if !is_only_thread() {
        tracing::warn!("{name} is not set to {value}: other threads are running already");
        return;
    }
    // SAFETY: no other thread exists that could read or write the environment meanwhile.
    unsafe { std::env::set_var(name, value) }
}

/// Whether this process has a single thread.
#[cfg(target_os = "linux")]
fn is_only_thread() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// Elsewhere this cannot be asked; [`crate::main`] is documented to be the first call of a program.
#[cfg(not(target_os = "linux"))]
fn is_only_thread() -> bool {
    true
}
