use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use lsgm_core::{Error, Result};
use serde::Serialize;

use crate::state::Stage;

/// A request to stop training, which may come from another thread. Training saves and returns.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Ask training to stop after the current step.
    pub fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Means over the steps since the last event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metrics {
    /// The stage.
    pub stage: Stage,
    /// Optimizer steps over all stages.
    pub step: u64,
    /// Share of the stage's budget that is used.
    pub progress: f64,
    /// Training seconds over all stages.
    pub seconds: f64,
    /// Passes over the training split.
    pub epoch: f64,
    /// Items a second.
    pub items_per_second: f64,
    /// Values by name, such as `loss`, `reconstruction` (nats), `kl` (nats), `gradient_norm`, `learning_rate`.
    pub values: BTreeMap<String, f64>,
}

/// What happens during training.
#[derive(Debug)]
pub enum Event<'a> {
    /// A stage begins or goes on.
    StageStarted(Stage),
    /// One step is done (progress of the stage in [0, 1], step of the stage).
    Step(f64, u64),
    /// Time for a log line.
    Metrics(&'a Metrics),
    /// Decoded samples of the current model with moving-average weights, as [`lsgm_core::Likelihood::mean`].
    Samples(Stage, u64, &'a Tensor),
    /// Samples could not be drawn, and why.
    NoSamples(Stage, u64, &'a Error),
    /// Stage 1 has ended, and the channels of the latent that are not active were hidden from the prior.
    Masked {
        /// For each channel, whether the prior models it.
        active: &'a [bool],
    },
    /// A checkpoint was written at this step.
    Saved(u64),
    /// A non-finite loss or gradient at the step; training goes back to `to` with this factor on the learning rate.
    RolledBack {
        /// The step that failed.
        from: u64,
        /// The step it goes on from.
        to: u64,
        /// What was not finite.
        what: String,
        /// The new factor on the learning rates.
        learning_rate_scale: f64,
    },
}

/// Whoever wants to know: a progress bar, a log, a test. A closure is one too, and `()` is one that does not listen.
///
/// ```
/// use lsgm_engine::{Event, Observer};
///
/// #[derive(Default)]
/// struct Counter {
///     steps: u64,
/// }
///
/// impl Observer for Counter {
///     fn event(&mut self, event: &Event<'_>) -> lsgm_core::Result<()> {
///         if let Event::Step(..) = event {
///             self.steps += 1;
///         }
///         Ok(())
///     }
/// }
///
/// let mut counter = Counter::default();
/// counter.event(&Event::Step(0.5, 1))?;
/// assert_eq!(counter.steps, 1);
/// # Ok::<(), lsgm_core::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot watch a training",
    note = "give a closure `|event: &Event<'_>| Ok(())`, or implement `lsgm_engine::Observer` for it"
)]
pub trait Observer {
    /// Called on the training thread. An error ends the training there and then: what came after the last checkpoint is
    /// lost. To end it early and keep everything, ask an [`Interrupt`].
    fn event(&mut self, event: &Event<'_>) -> Result<()>;
}

impl Observer for () {
    fn event(&mut self, _: &Event<'_>) -> Result<()> {
        Ok(())
    }
}

impl<F: FnMut(&Event<'_>) -> Result<()>> Observer for F {
    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        self(event)
    }
}

/// Sums of step values between two events.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    sums: BTreeMap<&'static str, f64>,
    /// Values that the device has computed and the host has not looked at.
    pending: Vec<(&'static str, Tensor)>,
    pub(crate) steps: u64,
    pub(crate) seconds: f64,
}

impl Meter {
    /// Take note of values, scalars (`f64`) of one device.
    pub(crate) fn add(&mut self, values: impl IntoIterator<Item = (&'static str, Tensor)>) {
        self.pending.extend(values);
    }

    /// Take note of a value that the host knows.
    pub(crate) fn add_number(&mut self, name: &'static str, value: f64) {
        *self.sums.entry(name).or_default() += value;
    }

    /// Look at all values that were noted: the host waits for the device once. `Some` tells the first that is not finite.
    pub(crate) fn read(&mut self) -> Result<Option<String>> {
        if self.pending.is_empty() {
            return Ok(None);
        }
        let (names, values): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending).into_iter().unzip();
        let values = Tensor::stack(&values, 0)?.to_vec1::<f64>()?;
        for (name, value) in names.iter().zip(&values) {
            self.add_number(name, *value);
        }
        let wrong = names.iter().zip(&values).find(|(_, value)| !value.is_finite());
        Ok(wrong.map(|(name, value)| format!("{name} = {value}")))
    }

    /// One more step.
    pub(crate) fn count(&mut self, seconds: f64) {
        self.steps += 1;
        self.seconds += seconds;
    }

    pub(crate) fn take(&mut self) -> (BTreeMap<String, f64>, u64, f64) {
        let Self { sums, steps, seconds, .. } = std::mem::take(self);
        let n = steps.max(1) as f64;
        (sums.into_iter().map(|(k, v)| (k.to_owned(), v / n)).collect(), steps, seconds)
    }
}
