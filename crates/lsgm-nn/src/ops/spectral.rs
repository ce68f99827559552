//! The spectral norm of a weight.

use std::sync::{Arc, OnceLock};

use candle_core::{Device, Shape, Tensor};
use lsgm_core::Result;

use super::composed;
use super::custom::{Op, View, apply1, fault, has_kernel};
use crate::kernels::Float;
use crate::kernels::spectral::power_iteration;

/// The largest singular value of each `w: [O, ..]` as a matrix of `O` rows, by power iteration (Yoshida & Miyato 2017,
/// arXiv 1705.10941): a scalar, and the vector `[O]` from which the next call goes on.
///
/// A weight stands beside its `u: [O]`, where the iteration starts: the vector that an earlier call returned, or zeros to start
/// afresh. A fresh start makes ten times the `iterations` (on a GPU, where telling it from another would stop the host, the same
/// number). The gradient takes the singular vectors for constants, which is exact for converged ones.
///
/// # Errors
/// Shapes that do not fit; no iteration.
pub fn spectral_norms(weights: &[(&Tensor, &Tensor)], iterations: usize) -> Result<Vec<(Tensor, Tensor)>> {
    if iterations == 0 {
        return Err(fault("spectral_norms", "at least one iteration is needed"));
    }
    for (w, u) in weights {
        if w.rank() < 2 || u.dims() != [w.dim(0)?] {
            let message = format!("start {:?} must have one element for each row of {:?}", u.dims(), w.dims());
            return Err(fault("spectral_norms", message));
        }
    }
    if weights.iter().all(|(w, _)| has_kernel(w)) {
        return weights.iter().map(|(w, u)| by_kernel(w, u, iterations)).collect();
    }
    let found = composed::spectral_norms(weights, iterations)?;
    let typed = found.into_iter().zip(weights).map(|((sigma, next), (_, u))| Ok((sigma, next.to_dtype(u.dtype())?)));
    typed.collect()
}

/// [`spectral_norms`] of one weight.
///
/// # Errors
/// As there.
pub fn spectral_norm(w: &Tensor, u: &Tensor, iterations: usize) -> Result<(Tensor, Tensor)> {
    let found = spectral_norms(&[(w, u)], iterations)?;
    found.into_iter().next().ok_or_else(|| fault("spectral_norm", "there is no weight"))
}

fn by_kernel(w: &Tensor, u: &Tensor, iterations: usize) -> Result<(Tensor, Tensor)> {
    let mut start = u.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
    let fresh = start.iter().all(|u| *u == 0.0);
    if fresh {
        let even = 1.0 / (start.len() as f64).sqrt();
        start.fill(even);
    }
    let iterations = if fresh { 10 * iterations } else { iterations };
    let saved = Arc::new(OnceLock::new());
    let sigma = apply1(SpectralNorm { start, iterations, saved: saved.clone() }, [w])?;
    let vectors: &Vectors = saved.get_or_init(Vectors::default);
    let next = Tensor::new(vectors.left.as_slice(), &Device::Cpu)?.to_dtype(u.dtype())?.to_device(u.device())?;
    Ok((sigma, next))
}

#[derive(Default)]
struct Vectors {
    left: Vec<f64>,
    right: Vec<f64>,
}

struct SpectralNorm {
    start: Vec<f64>,
    iterations: usize,
    saved: Arc<OnceLock<Vectors>>,
}

impl Op<1> for SpectralNorm {
    const NAME: &'static str = "spectral_norm";

    fn forward<T: Float>(&self, [w]: [View<'_, T>; 1]) -> (Vec<T>, Shape) {
        let mut u: Vec<T> = self.start.iter().map(|u| T::of(*u)).collect();
        let mut v = vec![T::ZERO; w.data.len() / u.len()];
        let sigma = power_iteration(w.data, &mut u, &mut v, self.iterations);
        let wide = |x: Vec<T>| x.into_iter().map(|v| v.to_f64()).collect();
        self.saved.get_or_init(|| Vectors { left: wide(u), right: wide(v) });
        (vec![T::of(sigma)], ().into())
    }

    fn backward<T: Float>(&self, _: [View<'_, T>; 1], _: View<'_, T>, g: &[T], _: [bool; 1]) -> [Option<Vec<T>>; 1] {
        let Vectors { left, right } = self.saved.get_or_init(Vectors::default);
        let right: Vec<T> = right.iter().map(|v| T::of(*v)).collect();
        let rows = left.iter().map(|u| g[0] * T::of(*u));
        [Some(rows.flat_map(|u| right.iter().map(move |v| u * *v)).collect())]
    }
}
