//! The training engine: stages, optimizers' schedules, EMA, checkpoints and evaluation, for any modality.
