//! Power iteration for the largest singular value of a matrix.

use super::pointwise::{dot_body as dot, square_sum_body as square_sum};
use super::{Float, Isa, dispatch};

/// Vectors shorter than this are divided by it in place of their length.
pub(crate) const SHORTEST: f64 = 1e-3;

/// Scale `x` to length 1 and return its former length.
#[inline(always)]
fn normalize<I: Isa, T: Float>(x: &mut [T]) -> f64 {
    let length = square_sum::<I, T>(x).sqrt();
    let scale = T::of(1.0 / length.max(SHORTEST));
    for v in x {
        *v *= scale;
    }
    length
}

#[inline(always)]
fn power_body<I: Isa, T: Float>(w: &[T], u: &mut [T], v: &mut [T], iterations: usize) -> f64 {
    let mut sigma = 0.0;
    for _ in 0..iterations {
        v.fill(T::ZERO);
        for (row, u) in w.chunks_exact(v.len()).zip(&*u) {
            for (v, w) in v.iter_mut().zip(row) {
                *v = I::fma(*u, *w, *v);
            }
        }
        normalize::<I, T>(v);
        for (row, u) in w.chunks_exact(v.len()).zip(&mut *u) {
            *u = T::of(dot::<I, T>(row, v));
        }
        let length = normalize::<I, T>(u);
        sigma = length * (length / length.max(SHORTEST));
    }
    sigma
}

dispatch! {
    /// `iterations` steps of power iteration on `w: [|u|, |v|]`, from `u` on: moves `u` and `v` to the left and right
    /// singular vectors, and returns `uᵀ w v`.
    fn power_iteration<T>(w: &[T], u: &mut [T], v: &mut [T], iterations: usize) -> f64 = power_body;
}
