//! Checks of single values, each an error with the key.

use lsgm_core::{Error, Result};

/// At least `least`.
pub(super) fn at_least(key: &str, value: usize, least: usize) -> Result<()> {
    if value < least { Err(Error::config(key, format!("{value} is too small: give at least {least}"))) } else { Ok(()) }
}

/// The number of items in a batch: a slip of the hand would ask for more memory than a machine has.
pub(super) fn batch(key: &str, items: usize) -> Result<()> {
    const MOST: usize = 1 << 20;
    at_least(key, items, 1)?;
    if items > MOST { Err(Error::config(key, format!("{items} is too large: give at most {MOST}"))) } else { Ok(()) }
}

/// A finite number above 0.
pub(super) fn positive(key: &str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(Error::config(key, format!("{value} is not a positive number")))
    }
}

/// A finite number from 0 on.
pub(super) fn not_negative(key: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(Error::config(key, format!("{value} is negative or not a number")))
    }
}

/// A number between 0 and 1, both included.
pub(super) fn share(key: &str, value: f64) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        Err(Error::config(key, format!("{value} does not lie between 0 and 1")))
    }
}
