//! Group norm and batch norm with what follows them, as one kernel on a GPU and two on the way back.

use candle_core::cuda::cudarc::driver::PushKernelArg;
use candle_core::cuda::{CudaDType, CudaDevice, WrapErr};
use candle_core::{CudaStorage, Layout, Result, Tensor};

use super::{Source, address, address_in, blocks, function};
use crate::ops::Activation;

pub(super) const SOURCE: Source = Source { name: "norm.cu", text: include_str!("norm.cu") };

/// Which elements are normalised together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sets {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) positions: usize,
    /// Groups of channels, or 0 for each channel over the batch.
    pub(crate) groups: usize,
}

impl Sets {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        if self.groups > 0 { self.batch * self.groups } else { self.channels }
    }

    fn elements(&self) -> usize {
        self.batch * self.channels * self.positions
    }

    fn numbers(&self) -> [i32; 4] {
        [self.batch, self.channels, self.positions, self.groups].map(|n| n as i32)
    }
}

/// Inputs of every kernel: `x`, `gamma` and `beta`, contiguous.
pub(crate) type Inputs<'a> = [&'a Tensor; 3];

fn addresses(device: &CudaDevice, s: &Sets, [x, gamma, beta]: Inputs<'_>) -> Result<[u64; 3]> {
    let of = |t: &Tensor, length: usize| address(device, t, length);
    Ok([of(x, s.elements())?, of(gamma, s.channels)?, of(beta, s.channels)?])
}

/// The output; the moments of each set are written to `stats`, `[sets, 2]`.
pub(crate) fn forward(
    device: &CudaDevice,
    s: &Sets,
    inputs: [(&CudaStorage, &Layout); 3],
    eps: f64,
    activation: Activation,
    stats: &Tensor,
) -> Result<CudaStorage> {
    let of = |i: usize, length: usize| address_in(device, inputs[i].0, inputs[i].1, length);
    let (x, gamma, beta) = (of(0, s.elements())?, of(1, s.channels)?, of(2, s.channels)?);
    let stats = address(device, stats, 2 * s.count())?;
    let (numbers, eps, silu) = (s.numbers(), eps as f32, i32::from(activation == Activation::Silu));
    let (function, stream) = (function(device, &SOURCE, "forward")?, device.cuda_stream());
    // SAFETY: the kernel writes every element.
    let mut y = unsafe { device.alloc::<f32>(s.elements())? };
    let mut arguments = stream.launch_builder(&function);
    arguments.arg(&x).arg(&gamma).arg(&beta).arg(&mut y).arg(&stats);
    for number in &numbers {
        arguments.arg(number);
    }
    arguments.arg(&eps).arg(&silu);
    // SAFETY: the arguments are those of the kernel; every address is that of as many elements as `s` implies, alive until
    // the launch is in the stream, behind which the allocator frees; nobody else reads `stats` yet.
    unsafe { arguments.launch(blocks(s.count() as u32)) }.w()?;
    Ok(f32::wrap_cuda_slice(y, device.clone()))
}

/// Write the gradient of `x` to `to`, given that of the output.
pub(crate) fn data_gradient(
    device: &CudaDevice,
    s: &Sets,
    inputs: Inputs<'_>,
    activation: Activation,
    stats: &Tensor,
    gradient: &Tensor,
    to: &Tensor,
) -> Result<()> {
    let addresses = [
        &addresses(device, s, inputs)?[..],
        &[address(device, stats, 2 * s.count())?, address(device, gradient, s.elements())?],
        &[address(device, to, s.elements())?],
    ];
    launch(device, s, "data_gradient", &addresses.concat(), activation, s.count())
}

/// Write the gradients of `gamma` and `beta` to `to`, given that of the output.
pub(crate) fn parameter_gradients(
    device: &CudaDevice,
    s: &Sets,
    inputs: Inputs<'_>,
    activation: Activation,
    stats: &Tensor,
    gradient: &Tensor,
    to: [&Tensor; 2],
) -> Result<()> {
    let addresses = [
        &addresses(device, s, inputs)?[..],
        &[address(device, stats, 2 * s.count())?, address(device, gradient, s.elements())?],
        &[address(device, to[0], s.channels)?, address(device, to[1], s.channels)?],
    ];
    launch(device, s, "parameter_gradients", &addresses.concat(), activation, s.channels)
}

/// A kernel that takes addresses, the sizes, and the activation.
fn launch(
    device: &CudaDevice,
    s: &Sets,
    name: &str,
    addresses: &[u64],
    activation: Activation,
    count: usize,
) -> Result<()> {
    let (numbers, silu) = (s.numbers(), i32::from(activation == Activation::Silu));
    let (function, stream) = (function(device, &SOURCE, name)?, device.cuda_stream());
    let mut arguments = stream.launch_builder(&function);
    for address in addresses {
        arguments.arg(address);
    }
    for number in &numbers {
        arguments.arg(number);
    }
    arguments.arg(&silu);
    // SAFETY: as in `forward`; what the kernel writes, nobody else holds yet.
    unsafe { arguments.launch(blocks(count as u32)) }.w()?;
    Ok(())
}
