//! Typed access to published arguments.

use lsgm_core::{Error, Result};
use serde_json::Value;

/// The `args` of a checkpoint.
pub(crate) struct Args<'a>(&'a Value);

impl<'a> Args<'a> {
    pub(crate) fn new(args: &'a Value) -> Self {
        Self(args)
    }

    /// A whole number that must be there.
    pub(crate) fn number(&self, key: &str) -> Result<usize> {
        match self.0.get(key) {
            Some(value) => whole(key, value),
            None => Err(Error::config(format!("args.{key}"), "is missing: it says what the model looks like")),
        }
    }

    pub(crate) fn number_or(&self, key: &str, usual: usize) -> Result<usize> {
        self.given(key).map_or(Ok(usual), |value| whole(key, value))
    }

    pub(crate) fn real_or(&self, key: &str, usual: f64) -> Result<f64> {
        self.given(key).map_or(Ok(usual), |value| value.as_f64().ok_or_else(|| wrong(key, value, "a number")))
    }

    pub(crate) fn flag_or(&self, key: &str, usual: bool) -> Result<bool> {
        let read = |value: &Value| value.as_bool().ok_or_else(|| wrong(key, value, "true or false"));
        self.given(key).map_or(Ok(usual), read)
    }

    /// One of some names.
    pub(crate) fn one_of(&self, key: &str, usual: &'static str, known: &[&'static str]) -> Result<&'static str> {
        let Some(value) = self.given(key) else { return Ok(usual) };
        let text = value.as_str().ok_or_else(|| wrong(key, value, "a name"))?;
        known
            .iter()
            .find(|k| **k == text)
            .copied()
            .ok_or_else(|| wrong(key, value, &format!("one of {}", known.join(", "))))
    }

    fn given(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }
}

fn whole(key: &str, value: &Value) -> Result<usize> {
    let number = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= 1 << 24);
    number.ok_or_else(|| wrong(key, value, "a whole number"))
}

fn wrong(key: &str, value: &Value, expected: &str) -> Error {
    Error::config(format!("args.{key}"), format!("{value} is not {expected}"))
}
