//! What every op shares: how a kernel becomes a node of candle's graph.

use std::cell::Cell;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Shape, Storage, Tensor};
use lsgm_core::{Error, Result};

use crate::backward::hand_over;
use crate::kernels::Float;

/// A contiguous input of a kernel.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) dims: &'a [usize],
}

/// An op with `N` inputs of one element type. The public function has checked all shapes before it is applied.
pub(crate) trait Op<const N: usize>: Send + Sync + 'static {
    const NAME: &'static str;

    /// The name of the public function, for errors: [`Self::NAME`] where the op serves only one.
    fn name(&self) -> &'static str {
        Self::NAME
    }

    /// The output and its shape.
    fn forward<T: Float>(&self, inputs: [View<'_, T>; N]) -> (Vec<T>, Shape);

    /// The gradient of each input whose place in `needed` is true, given the output's.
    fn backward<T: Float>(
        &self,
        inputs: [View<'_, T>; N],
        output: View<'_, T>,
        gradient: &[T],
        needed: [bool; N],
    ) -> [Option<Vec<T>>; N];
}

/// The gradients that someone needs.
pub(crate) fn keep<T, const N: usize>(needed: [bool; N], gradients: [Vec<T>; N]) -> [Option<Vec<T>>; N] {
    let mut needed = needed.into_iter();
    gradients.map(|g| needed.next().unwrap_or(false).then_some(g))
}

/// An error of op `op`: what is wrong with which shapes.
pub(crate) fn fault(op: &str, message: impl std::fmt::Display) -> Error {
    Error::Tensor(candle_core::Error::Msg(format!("{op}: {message}")))
}

thread_local! {
    static KERNELS: Cell<bool> = const { Cell::new(true) };
}

/// Whether kernels of this crate serve `x`; if not, an op is composed of tensor operations (`composed`).
pub(crate) fn has_kernel(x: &Tensor) -> bool {
    is_synchronous(x.device())
}

/// Whether an op is done when its call returns. Elsewhere the host runs ahead of the device until it asks for a value, and
/// should seldom ask.
pub fn is_synchronous(device: &Device) -> bool {
    device.is_cpu() && KERNELS.get()
}

/// Run `f` as on a device without kernels: every op that this thread applies is composed of tensor operations, which agree
/// with the kernels up to rounding. It serves tests.
pub fn without_kernels<R>(f: impl FnOnce() -> R) -> R {
    /// Ends when dropped, whatever happens.
    struct Outer(bool);
    impl Drop for Outer {
        fn drop(&mut self) {
            KERNELS.set(self.0);
        }
    }
    let _outer = Outer(KERNELS.replace(false));
    f()
}

/// Contiguous inputs of one float type on the CPU, none of them empty.
fn prepare<const N: usize>(op: &str, inputs: [&Tensor; N]) -> Result<[Tensor; N]> {
    let shapes = || inputs.iter().map(|t| format!("{:?} {:?}", t.dtype(), t.dims())).collect::<Vec<_>>().join(", ");
    let dtype = inputs[0].dtype();
    if !matches!(dtype, DType::F32 | DType::F64) || inputs.iter().any(|t| t.dtype() != dtype) {
        return Err(fault(op, format!("inputs must all be f32 or all be f64, not {}", shapes())));
    }
    if inputs.iter().any(|t| t.elem_count() == 0) {
        return Err(fault(op, format!("an input is empty: {}", shapes())));
    }
    if inputs.iter().any(|t| !has_kernel(t)) {
        let devices = inputs.map(|t| format!("{:?}", t.device().location()));
        return Err(fault(op, format!("inputs must be on one device, not on {}", devices.join(", "))));
    }
    let mut contiguous = inputs.map(Tensor::clone);
    for t in &mut contiguous {
        if !t.is_contiguous() {
            *t = t.contiguous()?;
        }
    }
    Ok(contiguous)
}

/// Apply an op with one input.
pub(crate) fn apply1<O: Op<1>>(op: O, inputs: [&Tensor; 1]) -> Result<Tensor> {
    let [a] = prepare(op.name(), inputs)?;
    Ok(a.apply_op1(Node(op))?)
}

/// Apply an op with two inputs.
pub(crate) fn apply2<O: Op<2>>(op: O, inputs: [&Tensor; 2]) -> Result<Tensor> {
    let [a, b] = prepare(op.name(), inputs)?;
    Ok(a.apply_op2(&b, Node(op))?)
}

/// Apply an op with three inputs.
pub(crate) fn apply3<O: Op<3>>(op: O, inputs: [&Tensor; 3]) -> Result<Tensor> {
    let [a, b, c] = prepare(op.name(), inputs)?;
    Ok(a.apply_op3(&b, &c, Node(op))?)
}

struct Node<O>(O);

fn view<'a, T: Float>(storage: &'a CpuStorage, layout: &'a Layout) -> candle_core::Result<View<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(View { data: &storage.as_slice::<T>()?[start..end], dims: layout.dims() }),
        None => candle_core::bail!("a kernel got an input that is not contiguous: {:?}", layout),
    }
}

fn cpu(storage: &Storage) -> candle_core::Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => candle_core::bail!("a CPU kernel got a tensor of another device"),
    }
}

/// `[f(a), f(b), ...]`, or the first error.
fn try_map<A: Copy, B: Copy, const N: usize>(
    items: [A; N],
    f: impl Fn(A) -> candle_core::Result<B>,
) -> candle_core::Result<[B; N]> {
    let mut mapped = [f(items[0])?; N];
    for (to, item) in mapped.iter_mut().zip(items).skip(1) {
        *to = f(item)?;
    }
    Ok(mapped)
}

fn forward<const N: usize, O: Op<N>>(
    op: &O,
    inputs: [(&CpuStorage, &Layout); N],
) -> candle_core::Result<(CpuStorage, Shape)> {
    fn typed<T: Float, const N: usize, O: Op<N>>(
        op: &O,
        inputs: [(&CpuStorage, &Layout); N],
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (y, shape) = op.forward::<T>(try_map(inputs, |(s, l)| view(s, l))?);
        Ok((T::to_cpu_storage_owned(y), shape))
    }
    match inputs[0].0 {
        CpuStorage::F32(_) => typed::<f32, N, O>(op, inputs),
        _ => typed::<f64, N, O>(op, inputs),
    }
}

fn backward<const N: usize, O: Op<N>>(
    op: &O,
    inputs: [&Tensor; N],
    output: &Tensor,
    gradient: &Tensor,
) -> candle_core::Result<[Option<Tensor>; N]> {
    fn typed<T: Float, const N: usize, O: Op<N>>(
        op: &O,
        inputs: [&Tensor; N],
        output: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; N]> {
        let held = inputs.map(Tensor::storage_and_layout);
        let mut views = [View { data: &[][..], dims: &[][..] }; N];
        for (to, (storage, layout)) in views.iter_mut().zip(&held) {
            *to = view::<T>(cpu(storage)?, layout)?;
        }
        let (storage, layout) = output.storage_and_layout();
        let (gradient_storage, gradient_layout) = gradient.storage_and_layout();
        let gradients = op.backward::<T>(
            views,
            view(cpu(&storage)?, layout)?,
            view(cpu(&gradient_storage)?, gradient_layout)?.data,
            inputs.map(Tensor::track_op),
        );
        let mut tensors = [const { None }; N];
        for ((to, gradient), input) in tensors.iter_mut().zip(gradients).zip(inputs) {
            if let Some(gradient) = gradient {
                *to = hand_over(input, Tensor::from_vec(gradient, input.shape(), &Device::Cpu)?)?;
            }
        }
        Ok(tensors)
    }
    let gradient = gradient.contiguous()?;
    match gradient.dtype() {
        DType::F32 => typed::<f32, N, O>(op, inputs, output, &gradient),
        _ => typed::<f64, N, O>(op, inputs, output, &gradient),
    }
}

impl<O: Op<1>> CustomOp1 for Node<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        forward(&self.0, [(s, l)])
    }
    fn bwd(&self, a: &Tensor, y: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let [a] = backward(&self.0, [a], y, g)?;
        Ok(a)
    }
}

impl<O: Op<2>> CustomOp2 for Node<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        forward(&self.0, [(s1, l1), (s2, l2)])
    }
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        g: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = backward(&self.0, [a, b], y, g)?;
        Ok((a, b))
    }
}

impl<O: Op<3>> CustomOp3 for Node<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        forward(&self.0, [(s1, l1), (s2, l2), (s3, l3)])
    }
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        y: &Tensor,
        g: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = backward(&self.0, [a, b, c], y, g)?;
        Ok((a, b, c))
    }
}
