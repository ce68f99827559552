//! The ops as kernels of a GPU ([`crate::kernels::device`]): how a kernel becomes a node of candle's graph.
//!
//! Activations are f32 or bf16, parameters f32. The public functions have checked all shapes.

mod convolution;
mod norm;
mod planes;
mod pointwise;
mod random;
mod rows;
mod spectral;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result as Candle, Shape, Storage, Tensor, bail,
};
use lsgm_core::Result;

use crate::backward::hand_over;
use crate::kernels::device::{Element, Memory, fresh, input};

pub(super) use convolution::depthwise;
#[cfg(any(test, feature = "cudnn"))]
pub(super) use convolution::gradients_of_parts;
pub(super) use norm::{batch_norm_eval, batch_norm_train, group_norm};
pub(super) use planes::{add_bias, gated_residual, global_avg_pool, snake, squeeze_excite};
pub(super) use pointwise::function;
pub(super) use random::dropout;
pub(super) use rows::{
    add_row, embedding, gated_sum, layer_norm, modulated_layer_norm, rms_norm, softmax, weight_norm,
};
pub(super) use spectral::power_iterations;

/// An op with `N` inputs whose output has the type of the first.
trait DeviceOp<const N: usize>: Send + Sync + 'static {
    const NAME: &'static str;

    /// The shape of the output, given that of the first input.
    fn shape(&self, first: &Shape) -> Shape {
        first.clone()
    }

    /// Which inputs are parameters, always f32. All others have the type of the first.
    fn parameters(&self) -> [bool; N] {
        [false; N]
    }

    /// Launch what writes the output, given addresses.
    fn forward(&self, device: &Device, element: Element, inputs: [u64; N], output: u64) -> Candle<()>;

    /// The gradients of the inputs that are tracked, given the output's, which is contiguous.
    fn backward(&self, inputs: [&Tensor; N], output: &Tensor, gradient: &Tensor) -> Candle<[Option<Tensor>; N]>;
}

struct Node<O>(O);

/// Apply an op to inputs that are made contiguous first.
fn apply1<O: DeviceOp<1>>(op: O, [a]: [&Tensor; 1]) -> Result<Tensor> {
    Ok(a.contiguous()?.apply_op1(Node(op))?)
}

fn apply2<O: DeviceOp<2>>(op: O, [a, b]: [&Tensor; 2]) -> Result<Tensor> {
    Ok(a.contiguous()?.apply_op2(&b.contiguous()?, Node(op))?)
}

fn apply3<O: DeviceOp<3>>(op: O, [a, b, c]: [&Tensor; 3]) -> Result<Tensor> {
    Ok(a.contiguous()?.apply_op3(&b.contiguous()?, &c.contiguous()?, Node(op))?)
}

/// On the CPU a test launches the kernels.
fn cpu_forward<const N: usize, O: DeviceOp<N>>(
    op: &O,
    inputs: [(&CpuStorage, &Layout); N],
) -> Candle<(CpuStorage, Shape)> {
    let (dtype, shape) = (inputs[0].0.dtype(), op.shape(inputs[0].1.shape()));
    let output = match &*fresh(&shape, dtype, &Device::Cpu)?.storage_and_layout().0 {
        Storage::Cpu(storage) => storage.clone(),
        _ => bail!("{}: memory of another device", O::NAME),
    };
    let inputs = inputs.map(|(storage, layout)| (Memory::Cpu(storage), layout));
    launch(op, &Device::Cpu, dtype, inputs, (Memory::Cpu(&output), &shape))?;
    Ok((output, shape))
}

#[cfg(feature = "cuda")]
fn cuda_forward<const N: usize, O: DeviceOp<N>>(
    op: &O,
    inputs: [(&candle_core::CudaStorage, &Layout); N],
) -> Candle<(candle_core::CudaStorage, Shape)> {
    let (dtype, shape) = (inputs[0].0.dtype(), op.shape(inputs[0].1.shape()));
    let device = inputs[0].0.device().clone();
    let output = crate::kernels::device::fresh_storage(&device, &shape, dtype)?;
    let inputs = inputs.map(|(storage, layout)| (Memory::Cuda(storage), layout));
    launch(op, &Device::Cuda(device), dtype, inputs, (Memory::Cuda(&output), &shape))?;
    Ok((output, shape))
}

fn launch<const N: usize, O: DeviceOp<N>>(
    op: &O,
    device: &Device,
    dtype: DType,
    inputs: [(Memory<'_>, &Layout); N],
    (output, shape): (Memory<'_>, &Shape),
) -> Candle<()> {
    let mut addresses = [0; N];
    for ((to, (memory, layout)), parameter) in addresses.iter_mut().zip(inputs).zip(op.parameters()) {
        if memory.dtype() != if parameter { DType::F32 } else { dtype } {
            bail!("{}: an input of {:?} beside activations of {dtype:?}", O::NAME, memory.dtype());
        }
        *to = input(memory, layout)?;
    }
    op.forward(device, Element::of(dtype)?, addresses, input(output, &Layout::contiguous(shape))?)
}

fn backward<const N: usize, O: DeviceOp<N>>(
    op: &O,
    inputs: [&Tensor; N],
    output: &Tensor,
    gradient: &Tensor,
) -> Candle<[Option<Tensor>; N]> {
    let mut gradients = op.backward(inputs, output, &gradient.contiguous()?)?;
    for (gradient, input) in gradients.iter_mut().zip(inputs) {
        if let Some(found) = gradient.take() {
            *gradient = hand_over(input, found)?;
        }
    }
    Ok(gradients)
}

macro_rules! node {
    ($custom:ident, $n:literal, |$($storage:ident $layout:ident $tensor:ident),*|, |$gradients:ident| $result:expr, $output:ty) => {
        impl<O: DeviceOp<$n>> $custom for Node<O> {
            fn name(&self) -> &'static str {
                O::NAME
            }
            fn cpu_fwd(&self, $($storage: &CpuStorage, $layout: &Layout),*) -> Candle<(CpuStorage, Shape)> {
                cpu_forward(&self.0, [$(($storage, $layout)),*])
            }
            #[cfg(feature = "cuda")]
            fn cuda_fwd(
                &self,
                $($storage: &candle_core::CudaStorage, $layout: &Layout),*
            ) -> Candle<(candle_core::CudaStorage, Shape)> {
                cuda_forward(&self.0, [$(($storage, $layout)),*])
            }
            fn bwd(&self, $($tensor: &Tensor,)* output: &Tensor, gradient: &Tensor) -> Candle<$output> {
                let $gradients = backward(&self.0, [$($tensor),*], output, gradient)?;
                Ok($result)
            }
        }
    };
}

node!(CustomOp1, 1, |s a t|, |g| { let [a] = g; a }, Option<Tensor>);
node!(CustomOp2, 2, |s1 l1 a, s2 l2 b|, |g| { let [a, b] = g; (a, b) }, (Option<Tensor>, Option<Tensor>));
node!(
    CustomOp3, 3, |s1 l1 a, s2 l2 b, s3 l3 c|, |g| { let [a, b, c] = g; (a, b, c) },
    (Option<Tensor>, Option<Tensor>, Option<Tensor>)
);
