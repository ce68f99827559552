use candle_core::{Device, Shape, Tensor};
use lsgm_core::{Params, Result};
use lsgm_nn::init;

/// A weight that starts at given values and is learned as what to add to them: `change` (zeros), the parameter, stays small,
/// so that decay of weights draws towards the start.
#[derive(Debug, Clone)]
pub(crate) struct Learned {
    start: Tensor,
    change: Tensor,
}

impl Learned {
    /// # Errors
    /// When the store has a parameter with another shape.
    pub(crate) fn new(start: Vec<f32>, shape: impl Into<Shape>, params: &Params) -> Result<Self> {
        let shape = shape.into();
        let start = Tensor::from_vec(start, &shape, &Device::Cpu)?;
        Ok(Self {
            start: start.to_dtype(params.dtype())?.to_device(&params.device())?,
            change: params.get("change", shape, init::zeros())?,
        })
    }

    /// The weight as it is now.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub(crate) fn weight(&self) -> Result<Tensor> {
        Ok((&self.start + &self.change)?)
    }
}
