//! What a person sees of a training: progress, figures, sample sheets.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Tensor;
use lsgm_core::Arrangement;
use lsgm_engine::{Event, Metrics, Observer, Stage};

use crate::output::Output;
use crate::progress::Progress;
use crate::registry::AnyModality;
use crate::terminal;

/// Watches a [`lsgm_engine::Trainer`].
pub(super) struct Watch {
    modality: Arc<dyn AnyModality>,
    /// Folder of the sample sheets.
    sheets: PathBuf,
    progress: Option<Progress>,
    /// The latest figures of the stage.
    figures: Option<String>,
}

impl Watch {
    pub(super) fn new(modality: Arc<dyn AnyModality>, sheets: PathBuf) -> Self {
        Self { modality, sheets, progress: None, figures: None }
    }

    fn show(&mut self, share: f64, step: u64) {
        let text = match &self.figures {
            Some(figures) => format!("step {step}  {figures}"),
            None => format!("step {step}"),
        };
        self.progress.iter_mut().for_each(|p| p.update(share, &text));
    }

    fn write_sheet(&self, stage: Stage, step: u64, items: &Tensor) -> crate::Result<()> {
        let output = Output::prepare(&self.sheets.join(format!("{}-{step:07}", stage.name())))?;
        output.write_artifacts(&self.modality.render(items, Arrangement::Samples)?)?;
        Ok(())
    }
}

impl Observer for Watch {
    fn event(&mut self, event: &Event<'_>) -> lsgm_core::Result<()> {
        match event {
            Event::StageStarted(stage) => {
                // The bar of the stage before goes first.
                (self.progress, self.figures) = (None, None);
                terminal::notice(&format!("lsgm: {}", title(*stage)));
                self.progress = Some(Progress::new(stage.name()));
            }
            Event::Step(share, step) => self.show(*share, *step),
            Event::Metrics(metrics) => self.figures = Some(figures(metrics)),
            Event::Samples(stage, step, items) => {
                // A sheet that cannot be written is no reason to stop training.
                if let Err(e) = self.write_sheet(*stage, *step, items) {
                    terminal::notice(&format!("lsgm: warning: no sample sheet: {e}"));
                }
            }
            Event::NoSamples(_, step, error) => {
                terminal::notice(&format!("lsgm: warning: no sample sheet at step {step}: {error}"));
            }
            Event::Masked { active } => {
                let inactive = active.iter().filter(|on| !**on).count();
                let channels = active.len();
                terminal::notice(&format!("lsgm: {inactive} of {channels} latent channels are inactive and masked"));
            }
            Event::Saved(_) => {}
            Event::RolledBack { from, to, what, learning_rate_scale } => terminal::notice(&format!(
                "lsgm: warning: {what} at step {from}: back to step {to} with {learning_rate_scale} of the learning rate"
            )),
        }
        Ok(())
    }
}

fn title(stage: Stage) -> &'static str {
    match stage {
        Stage::Vae => "stage 1: the autoencoder, under an N(0, I) prior",
        Stage::Lsgm => "stage 2: autoencoder and score-based prior, end to end",
        Stage::Finished => "nothing is left to train",
    }
}

/// The figures worth a glance, in the order in which they are read.
fn figures(metrics: &Metrics) -> String {
    let mut text = String::new();
    for name in ["loss", "reconstruction", "kl", "cross_entropy"] {
        if let Some(value) = metrics.values.get(name) {
            text.push_str(&format!("{name} {value:.2}  "));
        }
    }
    text.push_str(&format!("{:.0} items/s", metrics.items_per_second));
    text
}
