//! How far a long command has come: a bar on a terminal, a line now and then elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use lsgm_engine::format_duration;

use crate::terminal::{self, BARS};

/// Positions on the bar.
const LENGTH: u64 = 10_000;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of one piece of work.
pub(crate) struct Progress {
    label: String,
    bar: Option<ProgressBar>,
    begun: Instant,
    /// The share that was done when we began, as in a resumed training.
    offset: Option<f64>,
    last_line: Instant,
}

impl Progress {
    /// Begin. `label` is one or two words.
    pub(crate) fn new(label: &str) -> Self {
        let bar = (terminal::is_watched() && !terminal::is_quiet()).then(|| BARS.add(bar(label)));
        let now = Instant::now();
        Self { label: label.to_owned(), bar, begun: now, offset: None, last_line: now }
    }

    /// `share` of the work, between 0 and 1, is done; `details` are shown beside the bar, or on a line of their own from
    /// time to time.
    pub(crate) fn update(&mut self, share: f64, details: &str) {
        let offset = *self.offset.get_or_insert(share);
        let eta = remaining(self.begun.elapsed(), offset, share)
            .map(|seconds| format!("eta {}", format_duration(seconds)))
            .unwrap_or_default();
        if let Some(bar) = &self.bar {
            bar.set_position((share.clamp(0.0, 1.0) * LENGTH as f64) as u64);
            bar.set_message(details.to_owned());
            bar.set_prefix(eta);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let words = [details, &eta].into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>();
            terminal::notice(&format!("{} {:3.0}%  {}", self.label, share * 100.0, words.join("  ")));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(label: &str) -> ProgressBar {
    let template = format!("{label} {{bar:30}} {{percent:>3}}%  {{msg}}  {{prefix}}");
    // The default style says the same with fewer words.
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(LENGTH).with_style(style)
}

/// Seconds that are left, from the pace since `offset`.
fn remaining(elapsed: Duration, offset: f64, share: f64) -> Option<f64> {
    let done = share - offset;
    (done > 0.0 && share < 1.0).then(|| elapsed.as_secs_f64() * (1.0 - share) / done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_counts_what_was_done_here() {
        assert_eq!(remaining(Duration::from_secs(10), 0.5, 0.5), None);
        assert_eq!(remaining(Duration::from_secs(10), 0.5, 0.75), Some(10.0));
        assert_eq!(remaining(Duration::from_secs(10), 0.0, 1.0), None);
    }
}
