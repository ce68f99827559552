//! Change of resolution by whole factors, and means over space.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;

use super::composed;
use super::custom::{Op, View, apply1, apply2, fault, has_kernel};
use crate::kernels::Float;
use crate::kernels::resample::{gate, gate_gradient, pool, spread};

/// Repeat every element of `x: [B, C, H, W]` to a square of `factor × factor`: `[B, C, factor·H, factor·W]`.
///
/// # Errors
/// Another number of dimensions, or a factor of zero.
pub fn upsample_nearest2d(x: &Tensor, factor: usize) -> Result<Tensor> {
    resample("upsample_nearest2d", x, 4, (factor, factor), true)
}

/// Repeat every element of `x: [B, C, L]` `factor` times: `[B, C, factor·L]`.
///
/// # Errors
/// Another number of dimensions, or a factor of zero.
pub fn upsample_nearest1d(x: &Tensor, factor: usize) -> Result<Tensor> {
    resample("upsample_nearest1d", x, 3, (1, factor), true)
}

/// The mean of each square of `factor × factor` of `x: [B, C, H, W]`: `[B, C, H/factor, W/factor]`.
///
/// # Errors
/// Another number of dimensions, or sizes that `factor` does not divide.
pub fn avg_pool2d(x: &Tensor, factor: usize) -> Result<Tensor> {
    resample("avg_pool2d", x, 4, (factor, factor), false)
}

/// The mean of each run of `factor` elements of `x: [B, C, L]`: `[B, C, L/factor]`.
///
/// # Errors
/// Another number of dimensions, or a length that `factor` does not divide.
pub fn avg_pool1d(x: &Tensor, factor: usize) -> Result<Tensor> {
    resample("avg_pool1d", x, 3, (1, factor), false)
}

/// The mean over all positions of `x: [B, C, ..]`: `[B, C]`.
///
/// # Errors
/// Fewer than two dimensions.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    let [batch, channels, rest @ ..] = x.dims() else {
        return Err(fault("global_avg_pool", format!("input {:?} must be [B, C, ..]", x.dims())));
    };
    if !has_kernel(x) {
        return composed::global_avg_pool(x);
    }
    let positions = rest.iter().product();
    let output = vec![*batch, *channels];
    let op = "global_avg_pool";
    apply1(Resample { op, up: false, rows: 1, width: positions, factor: (1, positions), output }, [x])
}

/// `x · sigmoid(gate)` for `x: [B, C, ..]` and one gate `[B, C]` for each channel of each item (Hu et al. 2018).
///
/// # Errors
/// Shapes that do not fit.
pub fn squeeze_excite(x: &Tensor, gate_logits: &Tensor) -> Result<Tensor> {
    if x.rank() < 2 || x.dims()[..2] != *gate_logits.dims() {
        let (x, gate) = (x.dims(), gate_logits.dims());
        return Err(fault("squeeze_excite", format!("input {x:?} must be [B, C, ..] and gates {gate:?} [B, C]")));
    }
    if !has_kernel(x) {
        return composed::squeeze_excite(x, gate_logits);
    }
    apply2(SqueezeExcite, [x, gate_logits])
}

fn resample(op: &'static str, x: &Tensor, rank: usize, factor: (usize, usize), up: bool) -> Result<Tensor> {
    let dims = x.dims();
    if dims.len() != rank || factor.1 == 0 {
        return Err(fault(
            op,
            format!("input {dims:?} must have {rank} dimensions, and the factor {} be positive", factor.1),
        ));
    }
    let (rows, width) = (if rank == 4 { dims[2] } else { 1 }, dims[rank - 1]);
    if !up && (!rows.is_multiple_of(factor.0) || !width.is_multiple_of(factor.1)) {
        return Err(fault(op, format!("the factor {} must divide the size of {dims:?}", factor.1)));
    }
    let scale = |n: usize, f: usize| if up { n.saturating_mul(f) } else { n / f };
    let mut output = dims.to_vec();
    output[rank - 1] = scale(width, factor.1);
    if rank == 4 {
        output[2] = scale(rows, factor.0);
    }
    if output.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).is_none_or(|n| n > isize::MAX as usize / 64) {
        return Err(fault(op, format!("an output {output:?} is too large")));
    }
    if !has_kernel(x) {
        let planes = x.reshape((dims[0], dims[1], rows, width))?;
        let y = if up { composed::upsample_nearest(&planes, factor) } else { composed::avg_pool(&planes, factor) };
        return Ok(y?.reshape(output)?);
    }
    apply1(Resample { op, up, rows, width, factor, output }, [x])
}

struct Resample {
    /// The public function.
    op: &'static str,
    /// Up-sampling if true, averaging if false.
    up: bool,
    rows: usize,
    width: usize,
    factor: (usize, usize),
    output: Vec<usize>,
}

impl Op<1> for Resample {
    const NAME: &'static str = "resample";

    fn name(&self) -> &'static str {
        self.op
    }

    fn forward<T: Float>(&self, [x]: [View<'_, T>; 1]) -> (Vec<T>, Shape) {
        let size = (self.rows, self.width);
        let y = if self.up {
            spread(x.data, size, self.factor, T::ONE)
        } else {
            pool(x.data, size, self.factor, self.weight())
        };
        (y, self.output.as_slice().into())
    }

    fn backward<T: Float>(&self, _: [View<'_, T>; 1], _: View<'_, T>, gy: &[T], _: [bool; 1]) -> [Option<Vec<T>>; 1] {
        let f = self.factor;
        [Some(if self.up {
            pool(gy, (self.rows * f.0, self.width * f.1), f, T::ONE)
        } else {
            spread(gy, (self.rows / f.0, self.width / f.1), f, self.weight())
        })]
    }
}

impl Resample {
    fn weight<T: Float>(&self) -> T {
        T::of(1.0 / (self.factor.0 * self.factor.1) as f64)
    }
}

struct SqueezeExcite;

impl Op<2> for SqueezeExcite {
    const NAME: &'static str = "squeeze_excite";

    fn forward<T: Float>(&self, [x, logits]: [View<'_, T>; 2]) -> (Vec<T>, Shape) {
        (gate(x.data, logits.data), x.dims.into())
    }

    fn backward<T: Float>(
        &self,
        [x, logits]: [View<'_, T>; 2],
        _: View<'_, T>,
        gy: &[T],
        needed: [bool; 2],
    ) -> [Option<Vec<T>>; 2] {
        [needed[0].then(|| gate(gy, logits.data)), needed[1].then(|| gate_gradient(x.data, logits.data, gy))]
    }
}
