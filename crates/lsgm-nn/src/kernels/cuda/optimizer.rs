//! An optimizer's step over all parameters as one kernel on a GPU, and the norm of all gradients as two.

use candle_core::cuda::cudarc::driver::{CudaSlice, PushKernelArg};
use candle_core::cuda::{CudaDType, CudaDevice, WrapErr};
use candle_core::{DType, Device, Result, Storage, Tensor, bail};

use super::{Source, address, blocks, function};
use crate::kernels::optimizer::{Rule, Step};

pub(super) const SOURCE: Source = Source { name: "optimizer.cu", text: include_str!("optimizer.cu") };

/// Elements of a block of threads, as in the source.
const ELEMENTS: usize = 16384;

/// What the kernels do to one parameter: contiguous `f32` tensors of one size on one device.
#[derive(Default)]
pub(crate) struct Piece<'a> {
    pub(crate) parameter: Option<&'a Tensor>,
    pub(crate) gradient: Option<&'a Tensor>,
    pub(crate) moments: Option<(&'a Tensor, &'a Tensor)>,
    pub(crate) average: Option<&'a Tensor>,
}

/// Pieces on the device, and which block of threads does what.
struct Table {
    pieces: CudaSlice<u64>,
    blocks: CudaSlice<u32>,
    count: u32,
}

impl Table {
    fn new(device: &CudaDevice, pieces: &[Piece<'_>]) -> Result<Self> {
        let (mut numbers, mut blocks) = (Vec::with_capacity(6 * pieces.len()), Vec::new());
        for (i, piece) in pieces.iter().enumerate() {
            let (m, v) = piece.moments.unzip();
            let parts = [piece.parameter, piece.gradient, m, v, piece.average];
            let length = parts.iter().flatten().map(|t| t.elem_count()).next().unwrap_or(0);
            for part in parts {
                numbers.push(part.map_or(Ok(0), |t| address(device, t, length))?);
            }
            numbers.push(length as u64);
            blocks.extend((0..length.div_ceil(ELEMENTS)).flat_map(|run| [i as u32, run as u32]));
        }
        let count = (blocks.len() / 2) as u32;
        Ok(Self { pieces: device.clone_htod(&numbers)?, blocks: device.clone_htod(&blocks)?, count })
    }
}

/// One step: every parameter that has a gradient moves, and every average follows. `gradient_scale` is a scalar (`f64`) on
/// the device. Parameters, moments and averages change in place.
pub(crate) fn step(device: &Device, step: &Step, gradient_scale: &Tensor, pieces: &[Piece<'_>]) -> Result<()> {
    let device = device.as_cuda_device()?;
    let table = Table::new(device, pieces)?;
    if table.count == 0 {
        return Ok(());
    }
    let (storage, layout) = gradient_scale.storage_and_layout();
    let scale = match &*storage {
        Storage::Cuda(storage) => f64::as_cuda_slice(storage)?.slice(layout.start_offset()..layout.start_offset() + 1),
        _ => bail!("optimizer: the factor on the gradients is not on the GPU"),
    };
    let adamax = i32::from(step.rule == Rule::Adamax);
    let (keep, decay) = match step.rule {
        Rule::AdamW => (1.0 - step.lr * step.weight_decay, 0.0),
        _ => (1.0, step.weight_decay),
    };
    let numbers = [
        step.beta1,
        1.0 - step.beta1,
        step.beta2,
        1.0 - step.beta2,
        step.eps,
        step.lr / step.correction.0,
        1.0 / step.correction.1.sqrt(),
        keep,
        decay,
        step.ema_decay,
    ]
    .map(|n| n as f32);
    let (function, stream) = (function(device, &SOURCE, "step")?, device.cuda_stream());
    let mut arguments = stream.launch_builder(&function);
    arguments.arg(&table.pieces).arg(&table.blocks).arg(&scale).arg(&adamax);
    for number in &numbers {
        arguments.arg(number);
    }
    // SAFETY: the arguments are those of the kernel. Every address is that of as many elements of f32 as the table says,
    // alive until the launch is in the stream, behind which the allocator frees; no other kernel runs beside this stream.
    unsafe { arguments.launch(blocks(table.count)) }.w()?;
    Ok(())
}

/// The Euclidean norm of all gradients, a scalar (`f64`) on the device.
pub(crate) fn norm(device: &Device, gradients: &[&Tensor]) -> Result<Tensor> {
    let norm = Tensor::zeros((), DType::F64, device)?;
    let device = device.as_cuda_device()?;
    let pieces: Vec<_> = gradients.iter().map(|&g| Piece { gradient: Some(g), ..Piece::default() }).collect();
    let table = Table::new(device, &pieces)?;
    if table.count == 0 {
        return Ok(norm);
    }
    let sums = device.alloc_zeros::<f64>(table.count as usize)?;
    let (squares, root, stream) =
        (function(device, &SOURCE, "squares")?, function(device, &SOURCE, "root")?, device.cuda_stream());
    let mut arguments = stream.launch_builder(&squares);
    arguments.arg(&table.pieces).arg(&table.blocks).arg(&sums);
    // SAFETY: as in `step`; each block writes one of as many sums as there are blocks.
    unsafe { arguments.launch(blocks(table.count)) }.w()?;
    {
        let (storage, layout) = norm.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { bail!("optimizer: the norm is not on the GPU") };
        let place = f64::as_cuda_slice(storage)?.slice(layout.start_offset()..layout.start_offset() + 1);
        let mut arguments = stream.launch_builder(&root);
        arguments.arg(&sums).arg(&table.count).arg(&place);
        // SAFETY: the arguments are those of the kernel; nobody else knows the fresh scalar that it writes.
        unsafe { arguments.launch(blocks(1)) }.w()?;
    }
    Ok(norm)
}
