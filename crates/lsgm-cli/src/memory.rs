//! How large a model this machine can train.

use std::fs;

use candle_core::{DType, Device};
use lsgm_core::{ParamStore, Rng};

use crate::Error;
use crate::config::Config;

/// Bytes of a weight, its moving average, its gradient and its two moments.
pub(crate) const BYTES_PER_PARAMETER: usize = 5 * 4;

/// An empty store for the model of a config. It refuses to become larger than what can be trained in this machine's memory,
/// or, for training on a GPU, than what can be made in it.
pub(crate) fn store(config: &Config, device: &Device, trained_on: &Device) -> ParamStore {
    let store = ParamStore::new(DType::F32, device, Rng::new(config.train.seed));
    let bytes_per_value = if trained_on.is_cpu() { BYTES_PER_PARAMETER } else { 4 };
    match installed() {
        Some(bytes) => store.limited(bytes / bytes_per_value),
        None => store,
    }
}

/// What went wrong with a model of a config: its place in the file, or that it is too large.
pub(crate) fn explain(error: lsgm_core::Error, config: &Config) -> Error {
    match (&error, installed()) {
        (lsgm_core::Error::ModelTooLarge { .. }, Some(bytes)) => Error::usage(format!(
            "{error}, more than {:.0} GB of memory can hold: lower the widths in [autoencoder] and [prior.network]",
            bytes as f64 / 1e9
        )),
        _ => config.locate(error.into()),
    }
}

/// Bytes of memory that this process may have, where the system tells it: those of the machine or of a container.
fn installed() -> Option<usize> {
    let machine = kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    Some(container.map_or(machine, |bytes: usize| bytes.min(machine)))
}

/// The most bytes that this process has held, where the system tells it.
pub(crate) fn peak() -> Option<usize> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// The bytes of a line such as `MemTotal:       24689764 kB`.
fn kilobytes(text: &str, name: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_where_they_stand() {
        let text = "MemFree:         1024 kB\nMemTotal:       24689764 kB\nHugePages_Total:       3\n";
        assert_eq!(kilobytes(text, "MemTotal:"), Some(24_689_764 * 1024));
        assert_eq!(kilobytes(text, "HugePages_Total:"), None);
        assert_eq!(kilobytes(text, "VmHWM:"), None);
    }
}
