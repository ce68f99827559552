//! What a device can do faster than the host does it for the device.

use std::sync::OnceLock;

use candle_core::{Device, Shape, Tensor};

use crate::{Draws, Result};

/// Draws and transfers of devices that have their own way. The crate with the kernels installs it.
pub trait Accelerator: Send + Sync {
    /// Whether it knows this device.
    fn serves(&self, device: &Device) -> bool;

    /// The drawn numbers, `f32`, made by the device.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn uniforms(&self, draws: &Draws, shape: &Shape, device: &Device) -> Result<Tensor>;

    /// A tensor of the CPU on the device. The host seldom waits until the device has it.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn upload(&self, x: &Tensor, device: &Device) -> Result<Tensor>;
}

static ACCELERATOR: OnceLock<&'static dyn Accelerator> = OnceLock::new();

/// Let `accelerator` serve from now on, unless there is one already.
pub fn install_accelerator(accelerator: &'static dyn Accelerator) {
    ACCELERATOR.get_or_init(|| accelerator);
}

/// What serves `device`.
pub(crate) fn accelerator(device: &Device) -> Option<&'static dyn Accelerator> {
    ACCELERATOR.get().copied().filter(|a| a.serves(device))
}

/// A tensor on `device`. Coming from the CPU it seldom keeps the host waiting.
///
/// # Errors
/// A failed tensor operation.
pub fn upload(x: &Tensor, device: &Device) -> Result<Tensor> {
    match accelerator(device) {
        Some(accelerator) if x.device().is_cpu() => accelerator.upload(x, device),
        _ => Ok(x.to_device(device)?),
    }
}
