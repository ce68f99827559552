//! Convolutions as matrix products, or through cuDNN where there is one.
//!
//! Output `i` of an axis reads the padded input at `i·stride + tap·dilation`. Cut into `stride` phases, element `p` of the
//! padded input is element `p / stride` of phase `p % stride`: what a tap reads is a slice of one phase, for every stride and
//! dilation.

use candle_core::Tensor;
use lsgm_core::Result;

use super::products::matmul;
use super::{in_full_precision, over_channels};
use crate::full_precision;
use crate::kernels::conv::{Geometry, Part};
use crate::kernels::device::serves;
#[cfg(feature = "cudnn")]
use crate::ops::cudnn;
use crate::ops::device;

/// One axis of a convolution.
struct Axis {
    input: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    output: usize,
}

impl Axis {
    fn of(g: &Geometry) -> [Self; 2] {
        let axis = |i: usize| {
            let at = |pair: (usize, usize)| if i == 0 { pair.0 } else { pair.1 };
            Self {
                input: at(g.input),
                kernel: at(g.kernel),
                stride: at(g.stride),
                padding: at(g.padding),
                dilation: at(g.dilation),
                output: at(g.output),
            }
        };
        [axis(0), axis(1)]
    }

    /// The phase that a tap reads, and from which element on.
    fn place(&self, tap: usize) -> (usize, usize) {
        let at = tap * self.dilation;
        (at % self.stride, at / self.stride)
    }

    /// Elements of each phase: all of the padded input, and all that a tap reads.
    fn phase(&self) -> usize {
        let read = self.dilation * (self.kernel - 1) / self.stride + self.output;
        read.max((self.input + self.padding).div_ceil(self.stride))
    }
}

/// For each tap the elements of `x: [B, C, H, W]` that it reads: `[B, C, H', W']`.
fn slices(g: &Geometry, x: &Tensor) -> Result<Vec<Tensor>> {
    let (b, c, ..) = x.dims4()?;
    let [rows, columns] = Axis::of(g);
    let (height, width) = (rows.phase(), columns.phase());
    let x = x.pad_with_zeros(2, rows.padding, height * rows.stride - rows.padding - rows.input)?;
    let x = x.pad_with_zeros(3, columns.padding, width * columns.stride - columns.padding - columns.input)?;
    let x = x.reshape((b, c, height, rows.stride, width, columns.stride))?;
    g.each_tap()
        .map(|(u, v)| {
            let ((row_phase, top), (column_phase, left)) = (rows.place(u), columns.place(v));
            let slice = x.narrow(3, row_phase, 1)?.narrow(5, column_phase, 1)?;
            let slice = slice.narrow(2, top, rows.output)?.narrow(4, left, columns.output)?;
            Ok(slice.reshape((b, c, rows.output, columns.output))?)
        })
        .collect()
}

/// The transpose of [`slices`]: the sum of what each tap adds, `[B, C, H', W']` each, to `[B, C, H, W]`.
fn spread(g: &Geometry, parts: &[Tensor]) -> Result<Tensor> {
    let [rows, columns] = Axis::of(g);
    let (height, width) = (rows.phase(), columns.phase());
    let mut phases: Vec<Option<Tensor>> = vec![None; rows.stride * columns.stride];
    for ((u, v), part) in g.each_tap().zip(parts) {
        let ((row_phase, top), (column_phase, left)) = (rows.place(u), columns.place(v));
        let part = part.pad_with_zeros(2, top, height - top - rows.output)?;
        let part = part.pad_with_zeros(3, left, width - left - columns.output)?;
        let phase = &mut phases[row_phase * columns.stride + column_phase];
        *phase = Some(match phase.take() {
            Some(sum) => (sum + part)?,
            None => part,
        });
    }
    let (b, c, ..) = parts[0].dims4()?;
    let zeros = Tensor::zeros((b, c, height, width), parts[0].dtype(), parts[0].device())?;
    let phases: Vec<Tensor> = phases.into_iter().map(|phase| phase.unwrap_or_else(|| zeros.clone())).collect();
    let lines =
        phases.chunks(columns.stride).map(|line| Tensor::stack(line, 4)).collect::<candle_core::Result<Vec<_>>>()?;
    let y = Tensor::stack(&lines, 3)?.reshape((b, c, height * rows.stride, width * columns.stride))?;
    Ok(y.narrow(2, rows.padding, rows.input)?.narrow(3, columns.padding, columns.input)?.contiguous()?)
}

/// A convolution of `x: [B, G·C, H, W]` with `w: [G·O, C, kh, kw]`: `[B, G·O, H', W']`.
pub(crate) fn conv(g: &Geometry, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let w = &w.to_dtype(x.dtype())?;
    if is_depthwise(g, x) {
        return with_bias(depthwise(g, x, w)?, bias);
    }
    #[cfg(feature = "cudnn")]
    if x.device().is_cuda() && cudnn::serves(g) {
        return with_bias(cudnn::conv(g, x, w)?, bias);
    }
    // [B, G·C, T, H', W'] to [G, C·T, B·H'·W'].
    let columns = Tensor::stack(&slices(g, x)?, 2)?.reshape((g.batch, g.groups, columns(g), positions(g)))?;
    let columns = columns.permute((1, 2, 0, 3))?.reshape((g.groups, (), g.batch * positions(g)))?;
    let y = matmul(&w.reshape((g.groups, g.cout, ()))?, &columns)?;
    let y = y.reshape((g.groups, g.cout, g.batch, positions(g)))?.permute((2, 0, 1, 3))?;
    with_bias(y.reshape((g.batch, g.groups * g.cout, g.output.0, g.output.1))?, bias)
}

/// The transposed convolution of `y: [B, G·O, H', W']` with `w: [G·O, C, kh, kw]`: `[B, G·C, H, W]`.
pub(crate) fn conv_transpose(g: &Geometry, y: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let w = &w.to_dtype(y.dtype())?;
    if is_depthwise(g, y) {
        return with_bias(depthwise_transpose(g, y, w)?, bias);
    }
    #[cfg(feature = "cudnn")]
    if y.device().is_cuda() && cudnn::serves(g) {
        return with_bias(cudnn::conv_transpose(g, y, w)?, bias);
    }
    let lines = y.reshape((g.batch, g.groups, g.cout, positions(g)))?.permute((1, 2, 0, 3))?;
    let lines = lines.reshape((g.groups, g.cout, g.batch * positions(g)))?;
    let parts = matmul(&w.reshape((g.groups, g.cout, ()))?.transpose(1, 2)?, &lines)?;
    // [G, C, T, B, H'·W'] to [T, B, G, C, H'·W'].
    let parts = parts.reshape((g.groups, g.cin, g.taps(), g.batch, positions(g)))?;
    let parts = full_precision(&parts.permute((2, 3, 0, 1, 4))?)?.contiguous()?;
    let dims = (g.batch, g.groups * g.cin, g.output.0, g.output.1);
    let parts = (0..g.taps()).map(|t| Ok(parts.get(t)?.reshape(dims)?)).collect::<Result<Vec<_>>>()?;
    with_bias(spread(g, &parts)?.to_dtype(y.dtype())?, bias)
}

/// A filter of its own for each channel; a single one, as in a change of resolution, where kernels serve.
fn is_depthwise(g: &Geometry, x: &Tensor) -> bool {
    g.cin == 1 && g.cout == 1 && (g.groups > 1 || serves(x))
}

/// Where there is no kernel, shifted products in the place of matrices of one row.
fn depthwise(g: &Geometry, x: &Tensor, w: &Tensor) -> Result<Tensor> {
    if serves(x) {
        return device::depthwise(g, Part::Forward, x, w);
    }
    in_full_precision(x, |x| {
        let factors = factors(g, w)?;
        sum(slices(g, x)?.iter().zip(&factors).map(|(slice, factor)| Ok(slice.broadcast_mul(factor)?)))
    })
}

fn depthwise_transpose(g: &Geometry, y: &Tensor, w: &Tensor) -> Result<Tensor> {
    if serves(y) {
        return device::depthwise(g, Part::DataGradient, y, w);
    }
    in_full_precision(y, |y| {
        let parts = factors(g, w)?.iter().map(|factor| Ok(y.broadcast_mul(factor)?)).collect::<Result<Vec<_>>>()?;
        spread(g, &parts)
    })
}

fn positions(g: &Geometry) -> usize {
    g.output.0 * g.output.1
}

/// Inputs of one output element within a group.
fn columns(g: &Geometry) -> usize {
    g.cin * g.taps()
}

/// The factor `[1, G, 1, 1]` of each tap of a depthwise convolution.
fn factors(g: &Geometry, w: &Tensor) -> Result<Vec<Tensor>> {
    let w = full_precision(w)?.reshape((1, g.groups, (), 1))?;
    (0..g.taps()).map(|tap| Ok(w.narrow(2, tap, 1)?)).collect()
}

fn sum(mut terms: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let first = terms.next().unwrap_or_else(|| Err(lsgm_core::Error::contract("conv", "a kernel without taps")))?;
    terms.try_fold(first, |total, term| Ok((total + term?)?))
}

fn with_bias(y: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) if serves(&y) => device::add_bias(&y, bias),
        Some(bias) => in_full_precision(&y, |y| Ok(y.broadcast_add(&over_channels(bias, 4)?)?)),
        None => Ok(y),
    }
}
