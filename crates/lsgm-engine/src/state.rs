use lsgm_core::{Rng, RngState};
use serde::{Deserialize, Serialize};

/// A stage of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Stage 1: the autoencoder with an N(0, I) prior.
    Vae,
    /// Stage 2: everything, end to end.
    Lsgm,
    /// Nothing is left to do.
    Finished,
}

impl Stage {
    /// The name in configs, events and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vae => "vae",
            Self::Lsgm => "lsgm",
            Self::Finished => "finished",
        }
    }
}

/// Everything beside tensors that training needs to continue: `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Version of the layout of a run directory.
    pub format: u32,
    /// The current stage.
    pub stage: Stage,
    /// Optimizer steps in the current stage.
    pub stage_step: u64,
    /// Training seconds in the current stage.
    pub stage_seconds: f64,
    /// Optimizer steps over all stages.
    pub step: u64,
    /// Training seconds over all stages.
    pub seconds: f64,
    /// Items visited over all stages.
    pub items: u64,
    /// Steps that entered the moving average of encoder and decoder.
    pub ema_steps: u64,
    /// Steps that entered the moving average of the prior.
    #[serde(default)]
    pub prior_ema_steps: u64,
    /// Factor on the learning rates, below 1 after a non-finite loss or gradient.
    pub learning_rate_scale: f64,
    /// Number of times training went back to the last good state.
    pub rollbacks: u32,
    /// Step counts of the optimizers by name. One that is not named starts anew.
    pub optimizer_steps: std::collections::BTreeMap<String, u64>,
    /// Bytes of `events.jsonl` that belong to this state.
    pub events_bytes: u64,
    /// The generator.
    pub rng: RngState,
}

impl TrainState {
    /// The layout this version writes.
    pub const FORMAT: u32 = 1;

    /// Steps that a moving average made elsewhere counts as having seen: enough to change no faster than any other.
    pub const SETTLED: u64 = 1_000_000;

    /// The state in which a stage begins whose weights were made elsewhere: no step taken, optimizers new. Moving averages
    /// that came with them are to be counted as [`TrainState::SETTLED`].
    pub fn starting(stage: Stage, seed: u64) -> Self {
        Self { stage, ..Self::new(Rng::new(seed).fork("training").state()) }
    }

    pub(crate) fn new(rng: RngState) -> Self {
        Self {
            format: Self::FORMAT,
            stage: Stage::Vae,
            stage_step: 0,
            stage_seconds: 0.0,
            step: 0,
            seconds: 0.0,
            items: 0,
            ema_steps: 0,
            prior_ema_steps: 0,
            learning_rate_scale: 1.0,
            rollbacks: 0,
            optimizer_steps: std::collections::BTreeMap::new(),
            events_bytes: 0,
            rng,
        }
    }
}
