//! Group norm and batch norm as a node with kernels of our own on a GPU.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp3, DType, Layout, Shape, Tensor, bail};
use lsgm_core::Result;

use crate::kernels::cuda::norm::{Sets, data_gradient, forward, parameter_gradients};
use crate::ops::Activation;

/// Whether the kernels take `x`.
pub(super) fn serves(x: &Tensor) -> bool {
    x.device().is_cuda() && x.dtype() == DType::F32
}

/// The output, and mean and reciprocal standard deviation of each set, `[sets, 2]`. `groups` is 0 for batch norm.
pub(super) fn apply(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<(Tensor, Tensor)> {
    let (x, gamma, beta) = (x.contiguous()?, gamma.contiguous()?, beta.contiguous()?);
    let (batch, channels) = (x.dim(0)?, gamma.elem_count());
    let sets = Sets { batch, channels, positions: x.elem_count() / (batch * channels), groups };
    let stats = Tensor::zeros((sets.count(), 2), DType::F32, x.device())?;
    let y = x.apply_op3(&gamma, &beta, FusedNorm { sets, eps, activation, stats: stats.clone() })?;
    Ok((y, stats))
}

struct FusedNorm {
    sets: Sets,
    eps: f64,
    activation: Activation,
    /// Written by the forward pass, read on the way back.
    stats: Tensor,
}

impl CustomOp3 for FusedNorm {
    fn name(&self) -> &'static str {
        "fused norm"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        bail!("fused norm: a GPU kernel got tensors of the CPU")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        gamma: &CudaStorage,
        gamma_layout: &Layout,
        beta: &CudaStorage,
        beta_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let inputs = [(x, x_layout), (gamma, gamma_layout), (beta, beta_layout)];
        let y = forward(x.device(), &self.sets, inputs, self.eps, self.activation, &self.stats)?;
        Ok((y, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (device, inputs, gradient) = (x.device().as_cuda_device()?, [x, gamma, beta], gradient.contiguous()?);
        let (sets, activation, stats) = (&self.sets, self.activation, &self.stats);
        let dx = x.track_op().then(|| x.zeros_like()).transpose()?;
        if let Some(dx) = &dx {
            data_gradient(device, sets, inputs, activation, stats, &gradient, dx)?;
        }
        if !gamma.track_op() && !beta.track_op() {
            return Ok((dx, None, None));
        }
        let (dgamma, dbeta) = (gamma.zeros_like()?, beta.zeros_like()?);
        parameter_gradients(device, sets, inputs, activation, stats, &gradient, [&dgamma, &dbeta])?;
        Ok((dx, Some(dgamma), Some(dbeta)))
    }
}
