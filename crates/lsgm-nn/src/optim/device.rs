//! An optimizer's step over all parameters as one kernel of a GPU, and the norm of all gradients as two.

use candle_core::{DType, Device, Tensor};
use lsgm_core::{Result, upload};

use crate::kernels::device::{Element, Launch, OPTIMIZER, THREADS, address, fresh};
use crate::kernels::optimizer::{Rule, Step};

/// Elements of a block of threads, as in the source.
const ELEMENTS: usize = 16384;

/// What the kernels do to one parameter: contiguous `f32` tensors of one size on one device.
#[derive(Default)]
pub(super) struct Piece<'a> {
    pub(super) parameter: Option<&'a Tensor>,
    pub(super) gradient: Option<&'a Tensor>,
    pub(super) moments: Option<(&'a Tensor, &'a Tensor)>,
    pub(super) average: Option<&'a Tensor>,
}

/// Pieces on the device, and which block of threads does what.
struct Table {
    pieces: Tensor,
    blocks: Tensor,
    count: usize,
}

impl Table {
    fn new(device: &Device, pieces: &[Piece<'_>]) -> Result<Self> {
        let (mut numbers, mut blocks) = (Vec::with_capacity(6 * pieces.len()), Vec::new());
        for (i, piece) in pieces.iter().enumerate() {
            let (m, v) = piece.moments.unzip();
            let parts = [piece.parameter, piece.gradient, m, v, piece.average];
            let length = parts.iter().flatten().map(|t| t.elem_count()).next().unwrap_or(0);
            for part in parts {
                numbers.push(part.map_or(Ok(0), address)?.cast_signed());
            }
            numbers.push(length as i64);
            blocks.extend((0..length.div_ceil(ELEMENTS)).flat_map(|run| [i as u32, run as u32]));
        }
        let count = blocks.len() / 2;
        let pieces = upload(&Tensor::new(numbers, &Device::Cpu)?, device)?;
        Ok(Self { pieces, blocks: upload(&Tensor::new(blocks, &Device::Cpu)?, device)?, count })
    }

    /// A kernel on all of it.
    fn launch(&self, kernel: &'static str) -> Result<Launch> {
        Ok(Launch::new(&OPTIMIZER, kernel, Element::F32).addresses(&[address(&self.pieces)?, address(&self.blocks)?]))
    }

    fn threads(&self) -> usize {
        self.count * THREADS as usize
    }
}

/// One step: every parameter that has a gradient moves, and every average follows. `gradient_scale` is a scalar (`f64`) on
/// the device. Parameters, moments and averages change in place.
pub(super) fn step(device: &Device, step: &Step, gradient_scale: &Tensor, pieces: &[Piece<'_>]) -> Result<()> {
    let table = Table::new(device, pieces)?;
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
    ];
    table
        .launch("step")?
        .addresses(&[address(gradient_scale)?])
        .sizes([usize::from(step.rule == Rule::Adamax)])
        .numbers(numbers)
        .run(device, table.threads())?;
    Ok(())
}

/// The Euclidean norm of all gradients, a scalar (`f64`) on the device.
pub(super) fn norm(device: &Device, gradients: &[&Tensor]) -> Result<Tensor> {
    let pieces: Vec<_> = gradients.iter().map(|&g| Piece { gradient: Some(g), ..Piece::default() }).collect();
    let table = Table::new(device, &pieces)?;
    if table.count == 0 {
        return Ok(Tensor::zeros((), DType::F64, device)?);
    }
    let (sums, norm) = (fresh(table.count, DType::F64, device)?, fresh((), DType::F64, device)?);
    table.launch("squares")?.addresses(&[address(&sums)?]).run(device, table.threads())?;
    Launch::new(&OPTIMIZER, "root", Element::F32)
        .addresses(&[address(&sums)?])
        .sizes([table.count])
        .addresses(&[address(&norm)?])
        .run(device, THREADS as usize)?;
    Ok(norm)
}
