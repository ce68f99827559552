//! The likelihood of latents under the probability-flow ODE: instantaneous change of variables (Chen et al. 2018; Song et
//! al. 2021, appendix D.2).

use candle_core::{DType, Tensor, Var};
use lsgm_core::{Error, Pass, Result, Rng};
use serde::{Deserialize, Serialize};

use crate::Prior;
use crate::prior::sum_per_item;
use crate::solvers::{Rk45Options, State, drift, integrate};

/// How the divergence of the drift is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trace {
    /// Hutchinson's estimator with probes of ±1.
    #[default]
    Rademacher,
    /// Hutchinson's estimator with standard Normal probes.
    Gaussian,
    /// The trace itself: one backward pass per latent dimension, for small latents.
    Exact,
}

/// Options of [`ode_log_prob`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OdeOptions {
    /// Relative and absolute tolerance of the solver.
    pub tolerance: f64,
    /// Where the ODE starts.
    pub t_eps: f64,
    /// How the divergence is found.
    pub trace: Trace,
    /// Number of probes of a Hutchinson estimator; they stay the same within a solve.
    pub probes: usize,
}

impl Default for OdeOptions {
    fn default() -> Self {
        Self { tolerance: 1e-5, t_eps: 1e-5, trace: Trace::Rademacher, probes: 1 }
    }
}

/// What [`ode_log_prob`] returns.
#[derive(Debug, Clone)]
pub struct OdeLogProb {
    /// `log p(z_0)` of each latent in nats, `[B]`, `f64`.
    pub log_p: Tensor,
    /// Standard error of it over the probes, `[B]`; `None` for one probe or the exact trace.
    pub standard_error: Option<Tensor>,
    /// The latents at `t = 1`, in the shape of `z_0`.
    pub z1: Tensor,
    /// Number of network evaluations.
    pub nfe: usize,
}

/// `log p(z_0)` of latents `[B, C, *spatial]` under the probability-flow ODE of a prior.
///
/// Give a prior on frozen parameters: its gradients are neither needed nor free.
///
/// # Errors
/// [`Error::Config`] for options out of range, [`crate::solvers::SolverError`] when the solve fails.
pub fn ode_log_prob(prior: &Prior, z0: &Tensor, options: &OdeOptions, rng: &mut Rng) -> Result<OdeLogProb> {
    prior.sde().check_t_eps("t_eps", options.t_eps)?;
    let solver = Rk45Options::with_tolerance(options.tolerance);
    solver.validate()?;
    let probes = Probes::draw(prior, z0, options, rng)?;
    let (batch, dtype, dim) = (z0.dim(0)?, z0.dtype(), prior.shape().dim() as f64);
    let sde = prior.sde();
    let mut derivative = |t: f64, y: &State| -> Result<State> {
        let z = y.first().ok_or_else(|| Error::contract("solver", "empty state"))?;
        let (epsilon, divergence) = probes.divergence(prior, &z.to_dtype(dtype)?, t)?;
        let divergence = divergence.affine(0.5 * sde.g2(t) / sde.sigma(t), sde.f(t) * dim)?;
        Ok(vec![drift(prior, z, &epsilon, t)?, divergence])
    };
    let change = Tensor::zeros((probes.estimates(), batch), DType::F64, z0.device())?;
    let start = vec![z0.detach().to_dtype(DType::F64)?, change];
    let found = integrate(&mut derivative, start, options.t_eps, 1.0, &solver, &mut |_, _, _| Ok(()))?;
    let [z1, change] = found.y.as_slice() else {
        return Err(Error::contract("solver", "a state of another length"));
    };
    let log_p = (prior.base_log_prob(z1)? + change.mean(0)?)?;
    let standard_error = match probes.estimates() {
        0 | 1 => None,
        n => Some((change.var(0)? / n as f64)?.sqrt()?),
    };
    Ok(OdeLogProb { log_p, standard_error, z1: z1.to_dtype(dtype)?, nfe: found.nfe })
}

/// The vectors `v` of `Σ vᵀ J v`, in the shape of the latents.
struct Probes {
    vectors: Vec<Tensor>,
    exact: bool,
}

impl Probes {
    fn draw(prior: &Prior, z0: &Tensor, options: &OdeOptions, rng: &mut Rng) -> Result<Self> {
        prior.shape().check("likelihood", z0)?;
        let (shape, dtype, device) = (z0.shape(), z0.dtype(), z0.device());
        if options.probes == 0 {
            return Err(Error::config("probes", "the trace estimator needs at least 1 probe"));
        }
        let vectors = match options.trace {
            Trace::Exact => (0..prior.shape().dim()).map(|i| unit(z0, i)).collect::<Result<_>>()?,
            Trace::Gaussian => {
                (0..options.probes).map(|_| rng.normal_tensor(shape.clone(), dtype, device)).collect::<Result<_>>()?
            }
            Trace::Rademacher => (0..options.probes)
                .map(|_| {
                    let signs: Vec<f32> = (0..shape.elem_count()).map(|_| sign(rng)).collect();
                    Ok(Tensor::from_vec(signs, shape.clone(), &candle_core::Device::Cpu)?
                        .to_dtype(dtype)?
                        .to_device(device)?)
                })
                .collect::<Result<_>>()?,
        };
        Ok(Self { vectors, exact: options.trace == Trace::Exact })
    }

    /// Number of independent estimates.
    fn estimates(&self) -> usize {
        if self.exact { 1 } else { self.vectors.len() }
    }

    /// `ε_θ` and estimates `[estimates, B]` (`f64`) of its divergence at `z`.
    fn divergence(&self, prior: &Prior, z: &Tensor, t: f64) -> Result<(Tensor, Tensor)> {
        let z = Var::from_tensor(z)?;
        // The network is in evaluation mode and draws nothing.
        let epsilon = prior.epsilon_all(z.as_tensor(), t, &mut Pass::eval(&mut Rng::new(0)))?;
        let mut each = Vec::with_capacity(self.vectors.len());
        for v in &self.vectors {
            let grads = (&epsilon * v)?.sum_all()?.backward()?;
            let product = match grads.get(z.as_tensor()) {
                Some(grad) => sum_per_item(&(grad.detach() * v)?.to_dtype(DType::F64)?)?,
                // A score that ignores its input has no divergence.
                None => Tensor::zeros(z.dim(0)?, DType::F64, z.device())?,
            };
            each.push(product);
        }
        let each = Tensor::stack(&each, 0)?;
        let divergence = if self.exact { each.sum_keepdim(0)? } else { each };
        Ok((epsilon.detach(), divergence))
    }
}

fn sign(rng: &mut Rng) -> f32 {
    if rng.bits() >> 63 == 0 { 1.0 } else { -1.0 }
}

/// The latents whose dimension `i` is 1 and all others 0.
fn unit(like: &Tensor, i: usize) -> Result<Tensor> {
    let dim = like.elem_count() / like.dim(0)?.max(1);
    let mut values = vec![0f32; dim];
    if let Some(value) = values.get_mut(i) {
        *value = 1.0;
    }
    let row = Tensor::from_vec(values, (1, dim), &candle_core::Device::Cpu)?;
    let rows = row.broadcast_as((like.dim(0)?, dim))?.contiguous()?.reshape(like.shape())?;
    Ok(rows.to_dtype(like.dtype())?.to_device(like.device())?)
}
