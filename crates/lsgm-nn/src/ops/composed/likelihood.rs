use candle_core::Tensor;
use lsgm_core::Result;

use super::functions::{at_least, log_sum_exp};
use super::{filled, softplus};
use crate::kernels::logistic::{LOWEST_LOG_SCALE, Logistics};

/// The sum over all dimensions but the first.
fn sum_of_items(x: &Tensor) -> Result<Tensor> {
    Ok(x.reshape((x.dim(0)?, ()))?.sum(1)?)
}

pub(crate) fn bernoulli_log_prob(logits: &Tensor, x: &Tensor) -> Result<Tensor> {
    sum_of_items(&((x * logits)? - softplus(logits)?)?)
}

/// Bins of width `2·half` around data on a grid, and the data (constants), which broadcast over the components.
struct Bins<'a> {
    x: &'a Tensor,
    half: f64,
    /// Below it data lie in the first bin, which takes all below it.
    first: f64,
    /// Above it data lie in the last bin, which takes all above it.
    last: f64,
}

impl Bins<'_> {
    /// The logarithm of the mass that logistic distributions give to the bins of the data:
    /// `ln σ(upper) + ln σ(−lower) + ln(1 − exp(lower − upper))` between the ends.
    fn log_mass(&self, mean: &Tensor, log_scale: &Tensor) -> Result<Tensor> {
        let inverse_scale = log_scale.neg()?.exp()?;
        let centred = self.x.broadcast_sub(mean)?;
        let below_upper = softplus(&((&centred + self.half)? * &inverse_scale)?.neg()?)?.neg()?;
        let above_lower = softplus(&((&centred - self.half)? * &inverse_scale)?)?.neg()?;
        let width = (inverse_scale * (2.0 * self.half))?;
        let log_width = log_width(&width, &((2.0 * self.half).ln() - log_scale)?)?;
        let number = |bin: Tensor| bin.to_dtype(self.x.dtype());
        let first = number(self.x.lt(&filled(self.x, self.first)?)?)?;
        let last = number(self.x.gt(&filled(self.x, self.last)?)?)?;
        let (above_first, below_last) = (first.affine(-1.0, 1.0)?, last.affine(-1.0, 1.0)?);
        let inner = (&above_first * &below_last)?;
        let ends = (below_upper.broadcast_mul(&below_last)? + above_lower.broadcast_mul(&above_first)?)?;
        Ok((ends + log_width.broadcast_mul(&inner)?)?)
    }
}

/// `ln(1 − exp(−width))` without loss of digits at any width: below `ln 2` by a series of `ln(sinh(y) / y)`, `y = width/2`.
fn log_width(width: &Tensor, log_of_width: &Tensor) -> Result<Tensor> {
    let border = filled(width, std::f64::consts::LN_2)?;
    let narrow = width.lt(&border)?;
    // Each branch sees numbers that it can take: what is not chosen must be finite on the way back too.
    let small = narrow.where_cond(width, &border)?;
    let large = narrow.where_cond(&border, width)?;
    let y2 = (small.sqr()? * 0.25)?;
    let mut series = filled(&y2, 1.0 / 467_775.0)?;
    for c in [-1.0 / 37_800.0, 1.0 / 2835.0, -1.0 / 180.0, 1.0 / 6.0] {
        series = ((series * &y2)? + c)?;
    }
    let of_small = ((series * &y2)? + (log_of_width - (small * 0.5)?)?)?;
    let of_large = large.neg()?.exp()?.affine(-1.0, 1.0)?.log()?;
    Ok(narrow.where_cond(&of_small, &of_large)?)
}

pub(crate) fn discretized_logistic_log_prob(s: &Logistics, parameters: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (batch, half) = (x.dim(0)?, s.half_bin);
    let data = x.detach().reshape((batch, s.channels, 1, s.positions))?;
    let bins = Bins { x: &data, half, first: half - 1.0, last: 1.0 - half };
    let components = s.mixtures.max(1);
    let parameters = parameters.reshape((batch, s.planes(), s.positions))?;
    if s.mixtures == 0 {
        let kind = |k: usize| -> Result<Tensor> {
            Ok(parameters.narrow(1, k * s.channels, s.channels)?.reshape((batch, s.channels, 1, s.positions))?)
        };
        return sum_of_items(&bins.log_mass(&kind(0)?, &at_least(&kind(1)?, LOWEST_LOG_SCALE)?)?);
    }
    let logits = parameters.narrow(1, 0, components)?;
    let kinds = (s.planes() - components) / (s.channels * components);
    let rest = parameters.narrow(1, components, s.planes() - components)?;
    let rest = rest.reshape((batch, s.channels, kinds, components, s.positions))?;
    let kind = |k: usize| rest.narrow(2, k, 1)?.squeeze(2);
    let mut means = kind(0)?;
    if kinds == 3 {
        means = coupled(&means, &kind(2)?.tanh()?, &data)?;
    }
    let joint = bins.log_mass(&means, &at_least(&kind(1)?, LOWEST_LOG_SCALE)?)?.sum(1)?;
    mixture(&logits, &joint)
}

/// The means `[B, 3, M, N]` of green shifted by red, of blue by red and green.
fn coupled(means: &Tensor, couplings: &Tensor, x: &Tensor) -> Result<Tensor> {
    let channel = |t: &Tensor, c: usize| t.narrow(1, c, 1);
    let shift = |coupling: usize, of: usize| channel(couplings, coupling)?.broadcast_mul(&channel(x, of)?);
    let green = (channel(means, 1)? + shift(0, 0)?)?;
    let blue = ((channel(means, 2)? + shift(1, 0)?)? + shift(2, 1)?)?;
    Ok(Tensor::cat(&[channel(means, 0)?, green, blue], 1)?)
}

/// `Σ ln Σ_m softmax(logits)_m exp(joint_m)` of each item, for `[B, M, N]`.
fn mixture(logits: &Tensor, joint: &Tensor) -> Result<Tensor> {
    sum_of_items(&(log_sum_exp(&(logits + joint)?, 1)? - log_sum_exp(logits, 1)?)?)
}

pub(crate) fn logistic_mixture_log_prob(params: &Tensor, x: &Tensor, levels: usize) -> Result<Tensor> {
    let half = 1.0 / levels as f64;
    let (batch, channels, length) = params.dims3()?;
    let k = channels / 3;
    let part = |i: usize| params.narrow(1, i * k, k)?.contiguous();
    let data = x.detach().reshape((batch, 1, length))?;
    let bins = Bins { x: &data, half, first: -1.0 + 0.5 * half, last: 1.0 - 2.5 * half };
    mixture(&part(0)?, &bins.log_mass(&part(1)?, &part(2)?)?)
}
