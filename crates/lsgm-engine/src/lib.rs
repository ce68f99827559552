//! The training engine: stages, schedules, EMA, checkpoints, evaluation and sampling, for any modality.
//!
//! The engine sees a modality only through the contracts of `lsgm-core`, and the prior through `lsgm-prior`. It knows
//! neither what an item is nor how one is shown.

mod budget;
mod candidates;
mod channels;
mod config;
mod contract;
mod evaluate;
mod events;
mod importance;
mod infill;
mod losses;
mod model;
mod order;
mod posterior;
mod readjust;
mod run_dir;
mod sample;
mod schedule;
mod snapshot;
mod state;
mod trainer;

pub use budget::{format_duration, parse_duration};
pub use config::{EvaluateConfig, LsgmStage, SampleConfig, StageBudget, TrainConfig, VaeStage};
pub use evaluate::{Alpha, Estimate, Evaluation, ItemBounds, OdeEvaluation, evaluate};
pub use events::{Event, Interrupt, Metrics, Observer};
pub use importance::ImportanceEvaluation;
pub use infill::{InfillOptions, Infilled, infill};
pub use model::{Model, ModelSpec};
pub use posterior::PosteriorUse;
pub use readjust::readjust_batch_norm;
pub use run_dir::{Checkpoint, RunDir};
pub use sample::{Samples, film, interpolate, reconstruct, reconstruct_through_prior, reconstructions, sample};
pub use state::{Stage, TrainState};
pub use trainer::{Outcome, StageSelection, Trainer};
