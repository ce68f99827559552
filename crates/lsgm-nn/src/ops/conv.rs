//! Convolution and transposed convolution over lines and planes.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;

use super::affine::{self, Affine};
use super::composed;
use super::custom::{View, fault, has_kernel};
use crate::kernels::Float;
use crate::kernels::conv::{Geometry, channel_sums, data_gradient, forward, weight_gradient};

/// How a kernel moves over a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Step in rows and columns.
    pub stride: (usize, usize),
    /// Zeros added on each side.
    pub padding: (usize, usize),
    /// Distance between taps.
    pub dilation: (usize, usize),
    /// Channels are split into this many groups that do not mix.
    pub groups: usize,
}

impl Default for Conv2dConfig {
    fn default() -> Self {
        Self { stride: (1, 1), padding: (0, 0), dilation: (1, 1), groups: 1 }
    }
}

impl Conv2dConfig {
    /// Padding that keeps the size for an odd kernel at stride 1.
    pub fn same(kernel: (usize, usize)) -> Self {
        Self { padding: (kernel.0 / 2, kernel.1 / 2), ..Self::default() }
    }

    /// The same with another stride.
    pub fn with_stride(self, stride: (usize, usize)) -> Self {
        Self { stride, ..self }
    }

    /// The same with another number of groups.
    pub fn with_groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }
}

/// How a kernel moves over a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv1dConfig {
    /// Step.
    pub stride: usize,
    /// Zeros added on each side.
    pub padding: usize,
    /// Distance between taps.
    pub dilation: usize,
    /// Channels are split into this many groups that do not mix.
    pub groups: usize,
}

impl Default for Conv1dConfig {
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

impl Conv1dConfig {
    /// Padding that keeps the length for an odd kernel at stride 1.
    pub fn same(kernel: usize) -> Self {
        Self { padding: kernel / 2, ..Self::default() }
    }

    fn plane(self) -> Conv2dConfig {
        Conv2dConfig {
            stride: (1, self.stride),
            padding: (0, self.padding),
            dilation: (1, self.dilation),
            groups: self.groups,
        }
    }
}

/// How a transposed convolution moves over a plane: the numbers of the convolution whose data gradient it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTranspose2dConfig {
    /// Step in rows and columns of the output.
    pub stride: (usize, usize),
    /// Rows and columns cut from each side of the output.
    pub padding: (usize, usize),
    /// Rows and columns added at the end of the output; smaller than the stride or the dilation.
    pub output_padding: (usize, usize),
    /// Distance between taps.
    pub dilation: (usize, usize),
    /// Channels are split into this many groups that do not mix.
    pub groups: usize,
}

impl Default for ConvTranspose2dConfig {
    fn default() -> Self {
        Self { stride: (1, 1), padding: (0, 0), output_padding: (0, 0), dilation: (1, 1), groups: 1 }
    }
}

/// How a transposed convolution moves over a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTranspose1dConfig {
    /// Step of the output.
    pub stride: usize,
    /// Elements cut from each side of the output.
    pub padding: usize,
    /// Elements added at the end of the output; smaller than the stride or the dilation.
    pub output_padding: usize,
    /// Distance between taps.
    pub dilation: usize,
    /// Channels are split into this many groups that do not mix.
    pub groups: usize,
}

impl Default for ConvTranspose1dConfig {
    fn default() -> Self {
        Self { stride: 1, padding: 0, output_padding: 0, dilation: 1, groups: 1 }
    }
}

impl ConvTranspose1dConfig {
    fn plane(self) -> ConvTranspose2dConfig {
        ConvTranspose2dConfig {
            stride: (1, self.stride),
            padding: (0, self.padding),
            output_padding: (0, self.output_padding),
            dilation: (1, self.dilation),
            groups: self.groups,
        }
    }
}

/// Convolution (cross-correlation) of `x: [B, C, H, W]` with `w: [O, C/groups, kh, kw]` and `bias: [O]` to
/// `[B, O, H', W']`, `H' = (H + 2·padding − dilation·(kh − 1) − 1) / stride + 1`.
///
/// # Errors
/// Shapes that do not fit, a kernel larger than the padded input, zero strides, dilations or groups.
pub fn conv2d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, config: &Conv2dConfig) -> Result<Tensor> {
    apply_conv("conv2d", 2, x, w, bias, config)
}

/// Convolution of `x: [B, C, L]` with `w: [O, C/groups, k]` and `bias: [O]` to `[B, O, L']`; see [`conv2d`].
///
/// # Errors
/// As [`conv2d`].
pub fn conv1d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, config: &Conv1dConfig) -> Result<Tensor> {
    apply_conv("conv1d", 1, x, w, bias, &config.plane())
}

/// Transposed convolution of `x: [B, C, H, W]` with `w: [C, O/groups, kh, kw]` and `bias: [O]` to `[B, O, H', W']`,
/// `H' = (H − 1)·stride − 2·padding + dilation·(kh − 1) + output_padding + 1`.
///
/// # Errors
/// Shapes that do not fit, an empty output, zero strides, dilations or groups.
pub fn conv_transpose2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    config: &ConvTranspose2dConfig,
) -> Result<Tensor> {
    apply_transpose("conv_transpose2d", 2, x, w, bias, config)
}

/// Transposed convolution of `x: [B, C, L]` with `w: [C, O/groups, k]` and `bias: [O]` to `[B, O, L']`; see
/// [`conv_transpose2d`].
///
/// # Errors
/// As [`conv_transpose2d`].
pub fn conv_transpose1d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    config: &ConvTranspose1dConfig,
) -> Result<Tensor> {
    apply_transpose("conv_transpose1d", 1, x, w, bias, &config.plane())
}

/// `[n, c, h, w]` of a tensor over a line (`h = 1`) or a plane.
fn planes(op: &str, what: &str, rank: usize, t: &Tensor) -> Result<[usize; 4]> {
    match (rank, t.dims()) {
        (1, &[n, c, l]) => Ok([n, c, 1, l]),
        (2, &[n, c, h, w]) => Ok([n, c, h, w]),
        (_, dims) => Err(fault(op, format!("{what} {dims:?} must have {} dimensions", rank + 2))),
    }
}

/// The largest number of elements of an output: its size in bytes must not overflow.
const LARGEST: usize = isize::MAX as usize / 64;

fn check_size(op: &str, batch: usize, channels: usize, (h, w): (usize, usize)) -> Result<()> {
    let elements = batch.checked_mul(channels).and_then(|n| n.checked_mul(h)).and_then(|n| n.checked_mul(w));
    match elements {
        Some(n) if n <= LARGEST => Ok(()),
        _ => Err(fault(op, format!("an output [{batch}, {channels}, {h}, {w}] is too large"))),
    }
}

/// The parts that both directions check alike.
fn check(op: &str, bias: Option<&Tensor>, outputs: usize, numbers: [usize; 5]) -> Result<()> {
    if numbers.contains(&0) {
        return Err(fault(op, "stride, dilation and groups must be at least 1"));
    }
    match bias {
        Some(b) if b.dims() != [outputs] => Err(fault(op, format!("bias {:?} must be [{outputs}]", b.dims()))),
        _ => Ok(()),
    }
}

fn apply_conv(
    op: &'static str,
    rank: usize,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    c: &Conv2dConfig,
) -> Result<Tensor> {
    let [batch, channels, height, width] = planes(op, "input", rank, x)?;
    let [outputs, cin, kh, kw] = planes(op, "weight", rank, w)?;
    check(op, bias, outputs, [c.stride.0, c.stride.1, c.dilation.0, c.dilation.1, c.groups])?;
    if channels != cin * c.groups || !outputs.is_multiple_of(c.groups) {
        let (x, w) = (x.dims(), w.dims());
        return Err(fault(op, format!("input {x:?} and weight {w:?} do not fit together in {} groups", c.groups)));
    }
    let size = |input: usize, kernel: usize, stride: usize, padding: usize, dilation: usize| {
        let padded = padding.checked_mul(2)?.checked_add(input)?;
        Some(padded.checked_sub(dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?)? / stride + 1)
    };
    let output = size(height, kh, c.stride.0, c.padding.0, c.dilation.0)
        .zip(size(width, kw, c.stride.1, c.padding.1, c.dilation.1))
        .ok_or_else(|| {
            let (x, w) = (x.dims(), w.dims());
            fault(op, format!("kernel {w:?} is empty or larger than the padded input {x:?}"))
        })?;
    check_size(op, batch, outputs, output)?;
    let geometry = Geometry {
        batch,
        groups: c.groups,
        cin,
        cout: outputs / c.groups,
        input: (height, width),
        kernel: (kh, kw),
        stride: c.stride,
        padding: c.padding,
        dilation: c.dilation,
        output,
    };
    if !has_kernel(x) {
        let y = composed::conv(&geometry, &plane(rank, x)?, &plane(rank, w)?, bias)?;
        return Ok(y.reshape(shape(rank, batch, outputs, output))?);
    }
    affine::apply(Conv { geometry, rank }, x, w, bias)
}

fn apply_transpose(
    op: &'static str,
    rank: usize,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    c: &ConvTranspose2dConfig,
) -> Result<Tensor> {
    let [batch, channels, height, width] = planes(op, "input", rank, x)?;
    let [inputs, per_group, kh, kw] = planes(op, "weight", rank, w)?;
    check(op, bias, per_group * c.groups, [c.stride.0, c.stride.1, c.dilation.0, c.dilation.1, c.groups])?;
    if channels != inputs || !inputs.is_multiple_of(c.groups) {
        let (x, w) = (x.dims(), w.dims());
        return Err(fault(op, format!("input {x:?} and weight {w:?} do not fit together in {} groups", c.groups)));
    }
    let too_far = |padding: usize, stride: usize, dilation: usize| padding >= stride.max(dilation);
    if (c.output_padding.0 > 0 && too_far(c.output_padding.0, c.stride.0, c.dilation.0))
        || (c.output_padding.1 > 0 && too_far(c.output_padding.1, c.stride.1, c.dilation.1))
    {
        return Err(fault(op, "output_padding must be smaller than the stride or the dilation"));
    }
    let size = |input: usize, kernel: usize, stride: usize, padding: usize, dilation: usize, extra: usize| {
        let taps = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(extra)?.checked_add(1)?;
        let full = input.checked_sub(1)?.checked_mul(stride)?.checked_add(taps)?;
        full.checked_sub(padding.checked_mul(2)?).filter(|n| *n > 0)
    };
    let output = size(height, kh, c.stride.0, c.padding.0, c.dilation.0, c.output_padding.0)
        .zip(size(width, kw, c.stride.1, c.padding.1, c.dilation.1, c.output_padding.1))
        .ok_or_else(|| fault(op, format!("input {:?} and kernel {:?} give an empty output", x.dims(), w.dims())))?;
    check_size(op, batch, per_group * c.groups, output)?;
    let geometry = Geometry {
        batch,
        groups: c.groups,
        cin: per_group,
        cout: inputs / c.groups,
        input: output,
        kernel: (kh, kw),
        stride: c.stride,
        padding: c.padding,
        dilation: c.dilation,
        output: (height, width),
    };
    if !has_kernel(x) {
        let y = composed::conv_transpose(&geometry, &plane(rank, x)?, &plane(rank, w)?, bias)?;
        return Ok(y.reshape(shape(rank, batch, per_group * c.groups, output))?);
    }
    affine::apply(ConvTranspose { geometry, rank }, x, w, bias)
}

fn shape(rank: usize, batch: usize, channels: usize, (h, w): (usize, usize)) -> Shape {
    if rank == 1 { (batch, channels, w).into() } else { (batch, channels, h, w).into() }
}

/// A line as a plane of one row.
fn plane(rank: usize, t: &Tensor) -> Result<Tensor> {
    Ok(if rank == 1 { t.unsqueeze(2)? } else { t.clone() })
}

struct Conv {
    geometry: Geometry,
    rank: usize,
}

impl Affine for Conv {
    fn name(&self) -> &'static str {
        if self.rank == 1 { "conv1d" } else { "conv2d" }
    }

    fn forward<T: Float>(&self, x: View<'_, T>, w: &[T], bias: Option<&[T]>) -> (Vec<T>, Shape) {
        let g = &self.geometry;
        (forward(g, x.data, w, bias), shape(self.rank, g.batch, g.groups * g.cout, g.output))
    }

    fn gradients<T: Float>(&self, x: &[T], w: &[T], gy: &[T], needed: [bool; 2]) -> [Option<Vec<T>>; 2] {
        let g = &self.geometry;
        [needed[0].then(|| data_gradient(g, gy, w, None)), needed[1].then(|| weight_gradient(g, x, gy))]
    }

    fn bias_gradient<T: Float>(&self, gy: &[T]) -> Vec<T> {
        let g = &self.geometry;
        channel_sums(gy, g.groups * g.cout, g.output.0 * g.output.1)
    }
}

/// A transposed convolution, described by the geometry of the convolution whose data gradient it is.
struct ConvTranspose {
    geometry: Geometry,
    rank: usize,
}

impl Affine for ConvTranspose {
    fn name(&self) -> &'static str {
        if self.rank == 1 { "conv_transpose1d" } else { "conv_transpose2d" }
    }

    fn forward<T: Float>(&self, x: View<'_, T>, w: &[T], bias: Option<&[T]>) -> (Vec<T>, Shape) {
        let g = &self.geometry;
        (data_gradient(g, x.data, w, bias), shape(self.rank, g.batch, g.groups * g.cin, g.input))
    }

    fn gradients<T: Float>(&self, x: &[T], w: &[T], gy: &[T], needed: [bool; 2]) -> [Option<Vec<T>>; 2] {
        let g = &self.geometry;
        [needed[0].then(|| forward(g, gy, w, None)), needed[1].then(|| weight_gradient(g, gy, x))]
    }

    fn bias_gradient<T: Float>(&self, gy: &[T]) -> Vec<T> {
        let g = &self.geometry;
        channel_sums(gy, g.groups * g.cin, g.input.0 * g.input.1)
    }
}
