//! Threads that wait for work awake.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many [`Awake`] live.
static HOLDERS: AtomicUsize = AtomicUsize::new(0);
/// Counts the times that the first of them came, and so tells one watch from the next.
static WATCH: AtomicUsize = AtomicUsize::new(0);
/// Looks for work between two offers of the core to other threads.
const LOOKS: usize = 16;

/// While it lives, the threads of the current pool look for work instead of going to sleep.
///
/// A kernel of a tenth of a millisecond is over before a sleeping thread has woken up to help with it: hold one around code
/// that calls small kernels in a row, not while waiting for anything else. It costs what a busy core costs, except that any
/// other thread goes first. The engine holds none: between the kernels of a training step the calling thread has work of its
/// own, and on two hardware threads of one core the looking slows that by what the waking would have cost.
///
/// ```
/// use lsgm_nn::Awake;
/// let awake = Awake::new();
/// let sum: u64 = {
///     use rayon::prelude::*;
///     (0..1000u64).into_par_iter().sum()
/// };
/// drop(awake);
/// assert_eq!(sum, 499_500);
/// ```
#[derive(Debug)]
#[must_use = "the threads go back to sleep when it is dropped"]
pub struct Awake(());

impl Awake {
    /// Wake the threads, unless they are awake already. The only thread of a pool is left alone.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        if HOLDERS.fetch_add(1, Ordering::SeqCst) == 0 && rayon::current_num_threads() > 1 {
            let watch = WATCH.fetch_add(1, Ordering::SeqCst) + 1;
            let caller = rayon::current_thread_index();
            rayon::spawn_broadcast(move |thread| {
                // The caller goes on with its work and watches for nothing.
                if Some(thread.index()) != caller {
                    look_for_work(watch);
                }
            });
        }
        Self(())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        HOLDERS.fetch_sub(1, Ordering::SeqCst);
    }
}

fn look_for_work(watch: usize) {
    let mut idle = 0;
    while HOLDERS.load(Ordering::SeqCst) > 0 && WATCH.load(Ordering::SeqCst) == watch {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            idle = 0;
            continue;
        }
        idle += 1;
        if idle % LOOKS == 0 {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    fn sum(n: usize) -> usize {
        (0..n).into_par_iter().with_max_len(8).sum()
    }

    #[test]
    fn work_is_done_while_threads_watch_and_after() {
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            // Called from a thread of the pool and from outside, one in another, again and again.
            pool.install(|| {
                let outer = Awake::new();
                for _ in 0..20 {
                    let _inner = Awake::new();
                    assert_eq!(sum(1000), 499_500);
                }
                drop(outer);
                for _ in 0..20 {
                    let _again = Awake::new();
                    assert_eq!(sum(1000), 499_500);
                }
                assert_eq!(sum(1000), 499_500);
            });
        }
        let _awake = Awake::new();
        assert_eq!(sum(1000), 499_500);
    }
}
