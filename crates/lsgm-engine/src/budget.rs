use std::time::Duration;

use lsgm_core::{Error, Result};

/// How long a stage trains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Budget {
    /// A number of optimizer steps.
    Steps(u64),
    /// Seconds of training time, interruptions not counted.
    Seconds(f64),
}

impl Budget {
    /// The share of the budget that is used, in [0, 1]. The schedules follow it.
    pub(crate) fn progress(self, steps: u64, seconds: f64) -> f64 {
        let share = match self {
            Self::Steps(0) => 1.0,
            Self::Steps(n) => steps as f64 / n as f64,
            Self::Seconds(s) if s <= 0.0 => 1.0,
            Self::Seconds(s) => seconds / s,
        };
        share.clamp(0.0, 1.0)
    }
}

/// Read a duration such as `90s`, `10m`, `1h30m` or `500ms`.
///
/// # Errors
/// A message that shows the accepted form.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: write for example 90s, 10m or 1h30m");
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
        let unit = match &rest[digits..unit_end] {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        seconds += number * unit;
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// A duration for people: `45s`, `3m20s`, `1h05m`.
pub fn format_duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3600, s / 60 % 60),
    }
}

/// [`parse_duration`] for a config key, in seconds.
pub(crate) fn seconds(key: &str, text: &str) -> Result<f64> {
    let duration = parse_duration(text).map_err(|message| Error::config(key, message))?;
    Ok(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let secs = |t: &str| parse_duration(t).unwrap().as_secs_f64();
        assert_eq!(secs("90s"), 90.0);
        assert_eq!(secs("1h30m"), 5400.0);
        assert_eq!(secs("1.5m"), 90.0);
        assert_eq!(secs("250ms"), 0.25);
        for bad in ["", "10", "m", "10x", "1h30", "-5s", "1..2s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(format_duration(200.0), "3m20s");
    }

    #[test]
    fn progress_is_the_share_of_the_budget() {
        assert_eq!(Budget::Steps(200).progress(50, 1e9), 0.25);
        assert_eq!(Budget::Seconds(10.0).progress(1, 25.0), 1.0);
        assert_eq!(Budget::Steps(0).progress(0, 0.0), 1.0);
    }
}
