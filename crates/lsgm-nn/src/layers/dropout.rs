use candle_core::Tensor;
use lsgm_core::{Error, Pass, Result};

use crate::ops;

/// Sets each element to zero with probability `p` in training and scales the others by `1/(1 − p)`.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// Probability of zero, in [0, 1).
    pub p: f64,
}

impl Dropout {
    /// Apply it with noise from `pass.rng`; the identity outside training.
    ///
    /// # Errors
    /// A probability outside [0, 1).
    pub fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        if !(0.0..1.0).contains(&self.p) {
            return Err(Error::contract("dropout", format!("probability {} is not in [0, 1)", self.p)));
        }
        if !pass.training || self.p == 0.0 {
            return Ok(x.clone());
        }
        ops::dropout(x, self.p, pass.rng)
    }
}
