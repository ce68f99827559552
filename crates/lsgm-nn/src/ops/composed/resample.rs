use candle_core::Tensor;
use lsgm_core::Result;

use super::{constant, in_full_precision, sigmoid};
use crate::full_precision;
use crate::kernels::bilinear::stencil;
use crate::kernels::device::serves;
use crate::ops::device;

/// `[B, C, H, W]` to `[B, C, rows·H, columns·W]` by repetition.
pub(crate) fn upsample_nearest(x: &Tensor, (rows, columns): (usize, usize)) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let y = x.reshape((b, c, h, 1, w, 1))?.broadcast_as((b, c, h, rows, w, columns))?;
    Ok(y.reshape((b, c, rows * h, columns * w))?)
}

/// `[B, C, H, W]` to `[B, C, H/rows, W/columns]` by means.
pub(crate) fn avg_pool(x: &Tensor, (rows, columns): (usize, usize)) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    Ok(x.reshape((b, c, h / rows, rows, w / columns, columns))?.mean((3, 5))?)
}

pub(crate) fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    if serves(x) {
        return device::global_avg_pool(x);
    }
    in_full_precision(x, |x| Ok(x.reshape((x.dim(0)?, x.dim(1)?, ()))?.mean(2)?))
}

pub(crate) fn squeeze_excite(x: &Tensor, gate_logits: &Tensor) -> Result<Tensor> {
    if serves(x) {
        return device::squeeze_excite(x, gate_logits);
    }
    in_full_precision(x, |x| gated(x, gate_logits))
}

pub(crate) fn gated_residual(skip: &Tensor, x: &Tensor, gate_logits: &Tensor, scale: f64) -> Result<Tensor> {
    if serves(x) {
        return device::gated_residual(skip, x, gate_logits, scale);
    }
    in_full_precision(x, |x| Ok((full_precision(skip)? + (gated(x, gate_logits)? * scale)?)?))
}

fn gated(x: &Tensor, gate_logits: &Tensor) -> Result<Tensor> {
    let mut dims = gate_logits.dims().to_vec();
    dims.resize(x.rank(), 1);
    Ok(x.broadcast_mul(&sigmoid(&full_precision(gate_logits)?)?.reshape(dims)?)?)
}

/// Bilinear interpolation as two products with constant matrices, one for each axis.
pub(crate) fn upsample_bilinear(x: &Tensor, factor: usize) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    // [.., N] to [.., factor·N].
    let along = |x: &Tensor, n: usize| -> Result<Tensor> {
        Ok(x.reshape(((), n))?.matmul(&interpolation(n, factor * n, x)?)?.reshape((b * c, (), factor * n))?)
    };
    in_full_precision(x, |x| {
        let wide = along(x, w)?.transpose(1, 2)?.contiguous()?;
        Ok(along(&wide, h)?.transpose(1, 2)?.reshape((b, c, factor * h, factor * w))?)
    })
}

/// The matrix `[inputs, outputs]` of linear interpolation.
fn interpolation(inputs: usize, outputs: usize, like: &Tensor) -> Result<Tensor> {
    let mut matrix = vec![0.0; inputs * outputs];
    for (column, (below, above, share)) in stencil::<f64>(inputs, outputs).into_iter().enumerate() {
        matrix[below * outputs + column] += 1.0 - share;
        matrix[above * outputs + column] += share;
    }
    constant(matrix, (inputs, outputs), like)
}
