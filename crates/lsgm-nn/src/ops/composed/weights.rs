use candle_core::Tensor;
use lsgm_core::Result;

use super::filled;
use super::functions::at_least;
use crate::kernels::spectral::SHORTEST;

pub(crate) fn weight_norm(v: &Tensor, g: &Tensor, eps: f64) -> Result<Tensor> {
    let rows = v.reshape((v.dim(0)?, ()))?;
    let squares = rows.sqr()?.sum_keepdim(1)?;
    // The norm of a row of zeros is 0 without a gradient, where the square root's own would be infinite.
    let zero = squares.eq(&squares.zeros_like()?)?.to_dtype(v.dtype())?;
    let norm = ((squares + &zero)?.sqrt()? * zero.affine(-1.0, 1.0)?)?;
    let scale = (g.reshape(norm.shape())? / (norm + eps)?)?;
    Ok(rows.broadcast_mul(&scale)?.reshape(v.shape())?)
}

/// The spectral norm and the next start. Whether `u` is a fresh start is not read back from the device: such a start makes
/// no more than the `iterations`.
pub(crate) fn spectral_norm(w: &Tensor, u: &Tensor, iterations: usize) -> Result<(Tensor, Tensor)> {
    let rows = w.reshape((w.dim(0)?, ()))?;
    let matrix = rows.detach();
    let transposed = matrix.t()?.contiguous()?;
    let u = u.to_dtype(w.dtype())?.reshape(((), 1))?.detach();
    let fresh = u.sqr()?.sum_keepdim(0)?.eq(&filled(&u, 0.0)?.narrow(0, 0, 1)?)?.to_dtype(w.dtype())?;
    let mut u = u.broadcast_add(&(fresh / (rows.dim(0)? as f64).sqrt())?)?;
    let mut v = normalized(&transposed.matmul(&u)?)?;
    for step in 0..iterations {
        if step > 0 {
            v = normalized(&transposed.matmul(&u)?)?;
        }
        u = normalized(&matrix.matmul(&v)?)?;
    }
    let sigma = (rows.matmul(&v)? * &u)?.sum_all()?;
    Ok((sigma, u.flatten_all()?))
}

/// A column of length 1, or shorter where it was very short.
fn normalized(x: &Tensor) -> Result<Tensor> {
    let length = at_least(&x.sqr()?.sum_keepdim(0)?.sqrt()?, SHORTEST)?;
    Ok(x.broadcast_div(&length)?)
}
