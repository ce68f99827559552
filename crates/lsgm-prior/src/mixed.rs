use candle_core::{DType, Tensor};
use lsgm_core::{Init, LatentShape, Params, Result};
use lsgm_nn::ops::sigmoid;

/// The mixed score parameterisation (LSGM, equation 7): the geometric mixture `N(z; 0, I)^(1-α) · p'(z)^α`, whose score
/// network is `(1-α) · normal + α · network` with one `α = sigmoid(logit)` per channel.
#[derive(Debug, Clone)]
pub struct MixedScore {
    logit: Tensor,
}

impl MixedScore {
    /// With a trainable `mixing_logit` `[1, C, 1(, 1)]` that starts at `init`.
    pub fn new(shape: &LatentShape, init: f64, params: &Params) -> Result<Self> {
        Ok(Self { logit: params.get("mixing_logit", shape.channel_dims(), Init::Const(init))? })
    }

    /// With a given logit, which broadcasts over latents.
    pub fn with_logit(logit: Tensor) -> Self {
        Self { logit }
    }

    /// α, in the shape of the logit.
    pub fn alpha(&self) -> Result<Tensor> {
        sigmoid(&self.logit)
    }

    /// α of each channel.
    pub fn values(&self) -> Result<Vec<f64>> {
        Ok(self.alpha()?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
    }
}
