//! What a GPU does for the host's generator and its tensors.

use candle_core::{Device, Shape, Tensor};
use lsgm_core::{Accelerator, Draws, Result, install_accelerator};

use super::is_there;
use super::random::uniforms;

struct Gpu;

impl Accelerator for Gpu {
    fn serves(&self, device: &Device) -> bool {
        is_there(device)
    }

    fn uniforms(&self, draws: &Draws, shape: &Shape, device: &Device) -> Result<Tensor> {
        Ok(uniforms(draws, shape, device)?)
    }

    fn upload(&self, x: &Tensor, device: &Device) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(gpu) = device {
            return Ok(super::upload::upload(x, gpu)?);
        }
        Ok(x.to_device(device)?)
    }
}

/// From now on devices with kernels draw for themselves, and nobody waits for a transfer to them.
pub(crate) fn install() {
    install_accelerator(&Gpu);
}
