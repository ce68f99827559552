//! What is measured beside the bound.

mod baselines;
mod features;
mod planes;
mod reconstruction;

use candle_core::{DType, Device, Tensor};
use lsgm_core::{Measure, Result};

pub(crate) use baselines::{Baselines, Grid};
pub(crate) use features::spectral_flatness;
pub(crate) use planes::{MelPlanes, compare, recognition};
pub(crate) use reconstruction::measure_pairs;

/// Clips `[N, 1, L]` as vectors.
pub(crate) fn clips(items: &Tensor) -> Result<Vec<Vec<f32>>> {
    Ok(items.squeeze(1)?.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.to_vec2::<f32>()?)
}

/// The mean of the values that are there, with its standard error.
pub(crate) fn mean_of(
    name: &str,
    values: impl IntoIterator<Item = Option<f64>>,
    unit: &'static str,
    meaning: impl Into<String>,
) -> Option<Measure> {
    let values: Vec<f64> = values.into_iter().flatten().collect();
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    Some(Measure::new(name, mean, unit, meaning).with_stderr((variance / n).sqrt()))
}
