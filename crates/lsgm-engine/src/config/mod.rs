//! The sections `[train]`, `[sample]` and `[evaluate]` of a config.

mod checks;
mod evaluate;
mod sample;
mod stages;

use std::time::Duration;

use lsgm_core::{Error, Result};
use lsgm_nn::Precision;
use lsgm_prior::{NetworkConfig, PriorConfig};
use serde::{Deserialize, Serialize};

use self::checks::{at_least, batch, share};
pub use self::evaluate::EvaluateConfig;
pub use self::sample::SampleConfig;
pub use self::stages::{LsgmStage, StageBudget, VaeStage};
use crate::trainer::StageSelection;

/// Section `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of everything random: initial weights, order, noise, times.
    pub seed: u64,
    /// Items in one optimizer step.
    pub batch_size: usize,
    /// Parts of a batch that are computed one after the other and whose gradients are added up: more of them take less
    /// memory. Batch norms see a part at a time.
    pub accumulate: usize,
    /// In which numbers a GPU keeps activations and multiplies matrices in training; a CPU computes in `f32` always.
    pub precision: Precision,
    /// Keep the training set in the memory of a GPU, if an eighth of what is free there holds it.
    pub resident: bool,
    /// Keep only the ends of each block of a network (`nvae` cells, blocks of `ncsnpp`, `unet`, `transformer` and `mixture`)
    /// and compute what is between them again on the way back: about a third more work for a fraction of the memory.
    pub recompute: bool,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between log lines and events.
    pub log_every: u64,
    /// Steps between sample sheets; 0 writes one at the end of a stage only.
    pub sample_every: u64,
    /// Items on a sample sheet.
    pub sample_count: usize,
    /// Decay of the exponential moving average of all weights. Early in training a smaller one is used,
    /// `(1 + n) / (10 + n)` after `n` steps.
    pub ema_decay: f64,
    /// How often a non-finite loss or gradient is answered by going back to the last good state with half the learning
    /// rate before training gives up.
    pub retries: u32,
    /// Stage 1.
    pub vae: VaeStage,
    /// Stage 2.
    pub lsgm: LsgmStage,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            batch_size: 100,
            accumulate: 1,
            precision: Precision::F32,
            resident: true,
            recompute: false,
            checkpoint_every: 500,
            log_every: 50,
            sample_every: 0,
            sample_count: 64,
            ema_decay: 0.999,
            retries: 4,
            vae: VaeStage::default(),
            lsgm: LsgmStage::default(),
        }
    }
}

impl TrainConfig {
    /// Check every value.
    ///
    /// # Errors
    /// [`Error::Config`] with the full key of the first value that cannot be used.
    pub fn validate(&self) -> Result<()> {
        batch("train.batch_size", self.batch_size)?;
        at_least("train.accumulate", self.accumulate, 1)?;
        if self.accumulate > self.batch_size {
            let message = format!("a batch of {} items has no {} parts", self.batch_size, self.accumulate);
            return Err(Error::config("train.accumulate", message));
        }
        at_least("train.checkpoint_every", self.checkpoint_every as usize, 1)?;
        at_least("train.log_every", self.log_every as usize, 1)?;
        share("train.ema_decay", self.ema_decay)?;
        self.vae.validate()?;
        self.lsgm.validate()
    }

    /// Check the values that depend on the prior.
    ///
    /// # Errors
    /// [`Error::Config`] for TF32 and a mixture, whose shares it would round away, and as [`LsgmStage::validate_with`].
    pub fn validate_with(&self, prior: &PriorConfig) -> Result<()> {
        if self.precision == Precision::Tf32 && matches!(prior.network, NetworkConfig::Mixture(_)) {
            let message =
                "the shares of a mixture are differences of large numbers, too fine for tf32: use f32 or bf16";
            return Err(Error::config("train.precision", message));
        }
        self.lsgm.validate_with(prior)
    }

    /// Train the selected stages within `total`, shared between them as their own lengths are (equally where these have
    /// different units). Schedules follow the share that is used.
    ///
    /// # Errors
    /// When the stages' own lengths are not valid.
    pub fn limit_time(&mut self, total: Duration, stages: StageSelection) -> Result<()> {
        let total = total.as_secs_f64();
        let share = match stages {
            StageSelection::Vae => 1.0,
            StageSelection::Lsgm => 0.0,
            StageSelection::All => self.vae_share()?,
        };
        let text = |seconds: f64| Some(format!("{}ms", (seconds * 1000.0).round()));
        if stages != StageSelection::Lsgm {
            (self.vae.steps, self.vae.epochs, self.vae.time_budget) = (None, None, text(total * share));
        }
        if stages != StageSelection::Vae {
            (self.lsgm.steps, self.lsgm.epochs, self.lsgm.time_budget) = (None, None, text(total * (1.0 - share)));
        }
        Ok(())
    }

    fn vae_share(&self) -> Result<f64> {
        let (a, b) = match (self.vae.budget()?, self.lsgm.budget()?) {
            (StageBudget::Steps(a), StageBudget::Steps(b)) => (a as f64, b as f64),
            (StageBudget::Epochs(a), StageBudget::Epochs(b)) | (StageBudget::Seconds(a), StageBudget::Seconds(b)) => {
                (a, b)
            }
            // A stage of no length stays so, in whatever it is measured.
            (a, b) => (f64::from(!a.is_zero()), f64::from(!b.is_zero())),
        };
        Ok(if a + b > 0.0 { a / (a + b) } else { 0.5 })
    }
}
