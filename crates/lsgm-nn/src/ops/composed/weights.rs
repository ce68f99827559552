use candle_core::Tensor;
use lsgm_core::Result;

use super::filled;
use super::functions::at_least;
use crate::kernels::device::serves_f32;
use crate::kernels::spectral::SHORTEST;
use crate::ops::device;

pub(crate) fn weight_norm(v: &Tensor, g: &Tensor, eps: f64) -> Result<Tensor> {
    if serves_f32(v) {
        return device::weight_norm(v, g, eps);
    }
    let rows = v.reshape((v.dim(0)?, ()))?;
    let squares = rows.sqr()?.sum_keepdim(1)?;
    // The norm of a row of zeros is 0 without a gradient, where the square root's own would be infinite.
    let zero = squares.eq(&squares.zeros_like()?)?.to_dtype(v.dtype())?;
    let norm = ((squares + &zero)?.sqrt()? * zero.affine(-1.0, 1.0)?)?;
    let scale = (g.reshape(norm.shape())? / (norm + eps)?)?;
    Ok(rows.broadcast_mul(&scale)?.reshape(v.shape())?)
}

/// The spectral norm of each weight, and the next start. Whether a start is a fresh one is not read back from the device: it
/// makes no more than the `iterations`.
pub(crate) fn spectral_norms(weights: &[(&Tensor, &Tensor)], iterations: usize) -> Result<Vec<(Tensor, Tensor)>> {
    let matrix = |w: &Tensor| Ok(w.reshape((w.dim(0)?, ()))?);
    let rows = weights.iter().map(|(w, _)| matrix(w)).collect::<Result<Vec<_>>>()?;
    let matrices = rows.iter().map(|w| w.detach().contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
    let start = |(w, u): &(&Tensor, &Tensor)| u.to_dtype(w.dtype())?.detach().contiguous();
    let starts = weights.iter().map(start).collect::<candle_core::Result<Vec<_>>>()?;
    let vectors = if matrices.iter().all(serves_f32) {
        device::power_iterations(&matrices, &starts, iterations)?
    } else {
        let each = matrices.iter().zip(&starts);
        each.map(|(w, u)| power_iteration(w, u, iterations)).collect::<Result<Vec<_>>>()?
    };
    let finished = rows.iter().zip(vectors).map(|(rows, [u, v])| {
        let products = rows.matmul(&v.reshape(((), 1))?)?.flatten_all()?;
        Ok(((products * &u)?.sum_all()?, u))
    });
    finished.collect()
}

/// The left and the right singular vector.
fn power_iteration(matrix: &Tensor, start: &Tensor, iterations: usize) -> Result<[Tensor; 2]> {
    let transposed = matrix.t()?.contiguous()?;
    let u = start.reshape(((), 1))?;
    let fresh = u.sqr()?.sum_keepdim(0)?.eq(&filled(&u, 0.0)?.narrow(0, 0, 1)?)?.to_dtype(u.dtype())?;
    let mut u = u.broadcast_add(&(fresh / (matrix.dim(0)? as f64).sqrt())?)?;
    let mut v = normalized(&transposed.matmul(&u)?)?;
    for step in 0..iterations {
        if step > 0 {
            v = normalized(&transposed.matmul(&u)?)?;
        }
        u = normalized(&matrix.matmul(&v)?)?;
    }
    Ok([u.flatten_all()?, v.flatten_all()?])
}

/// A column of length 1, or shorter where it was very short.
fn normalized(x: &Tensor) -> Result<Tensor> {
    let length = at_least(&x.sqr()?.sum_keepdim(0)?.sqrt()?, SHORTEST)?;
    Ok(x.broadcast_div(&length)?)
}
