use candle_core::Tensor;
use lsgm_core::{Init, Params, Result};

use crate::{init, ops};

/// `x · weightᵀ + bias` over the last dimension.
///
/// Parameters: `weight` `[outputs, inputs]`, `bias` `[outputs]`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// With PyTorch's default initialisation, uniform in ±1/√inputs.
    ///
    /// # Errors
    /// When the store has a parameter with another shape.
    pub fn new(inputs: usize, outputs: usize, bias: bool, params: &Params) -> Result<Self> {
        let init = init::uniform_fan_in(inputs);
        Self::new_with(inputs, outputs, bias.then_some(init), init, params)
    }

    /// With given initialisations; no bias for `None`.
    ///
    /// # Errors
    /// As [`Linear::new`].
    pub fn new_with(inputs: usize, outputs: usize, bias: Option<Init>, weight: Init, params: &Params) -> Result<Self> {
        Ok(Self {
            weight: params.get("weight", (outputs, inputs), weight)?,
            bias: bias.map(|init| params.get("bias", outputs, init)).transpose()?,
        })
    }

    /// `[.., inputs]` to `[.., outputs]`.
    ///
    /// # Errors
    /// Another last dimension.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(x, &self.weight, self.bias.as_ref())
    }
}
