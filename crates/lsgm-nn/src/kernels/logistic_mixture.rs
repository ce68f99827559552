//! Mixtures of logistic distributions, integrated over equal bins.
//!
//! With `a = (x − μ) / s` and `h` half a bin's width over `s`, a component gives a bin the probability
//! `σ(a + h) − σ(a − h) = sinh h / (cosh a + cosh h)`. In that form nothing cancels, however narrow the bin is and however
//! far it lies from the mean.

use super::{Float, Isa, dispatch};

/// Positions that are computed together.
const BLOCK: usize = 64;

/// The bins: `levels` of them, of equal width, centred at `−1 + 2·i / levels`. The first takes all below it, the last all
/// above.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bins {
    pub(crate) levels: usize,
}

impl Bins {
    fn half_width(self) -> f64 {
        1.0 / self.levels as f64
    }

    /// Values from here downwards lie in the first bin.
    fn low(self) -> f64 {
        -1.0 + 0.5 * self.half_width()
    }

    /// Values from here upwards lie in the last bin.
    fn high(self) -> f64 {
        1.0 - 2.5 * self.half_width()
    }
}

/// A component's log-probability of a bin, and its derivatives by mean and log-scale.
#[derive(Clone, Copy)]
struct Term<T> {
    log_p: T,
    by_mean: T,
    by_log_scale: T,
}

/// `ln x` for `x` in [1, 4], in a form that vectorises.
#[inline(always)]
fn ln_1_4<I: Isa, T: Float>(x: T) -> T {
    let two = T::of(2.0);
    let large = x > two;
    let u = if large { (x - two) / two } else { x - T::ONE };
    u.ln_1p_unit::<I>() + if large { T::of(std::f64::consts::LN_2) } else { T::ZERO }
}

/// `ln(2·sinh h)` and `h·coth h`, given `ln h`.
#[inline(always)]
fn sinh_parts<I: Isa, T: Float>(h: T, log_h: T) -> (T, T) {
    let h2 = h * h;
    let series = h2 * I::fma(h2, I::fma(h2, T::of(1.0 / 2835.0), T::of(-1.0 / 180.0)), T::of(1.0 / 6.0));
    let near = (log_h + T::of(std::f64::consts::LN_2) + series, {
        let tail = I::fma(h2, I::fma(h2, T::of(2.0 / 945.0), T::of(-1.0 / 45.0)), T::of(1.0 / 3.0));
        I::fma(h2, tail, T::ONE)
    });
    let q = (h * T::of(-2.0)).exp::<I>();
    // ln(1 − q) by 1 / (1 − q) = 1 + q / (1 − q); q ≤ e^(−1/2) makes the fraction at most 1.55.
    let rest = T::ONE + q / (T::ONE - q);
    let far = (h - ln_1_4::<I, T>(if rest > T::ZERO && h > T::of(0.25) { rest } else { T::ONE }), {
        h * (T::ONE + q) / (T::ONE - q)
    });
    if h < T::of(0.25) { near } else { far }
}

#[inline(always)]
fn interior<I: Isa, T: Float>(x: T, mean: T, log_scale: T, half: T, log_half: T) -> Term<T> {
    let inverse = (T::ZERO - log_scale).exp::<I>();
    let (a, h) = ((x - mean) * inverse, half * inverse);
    let (log_sinh, h_coth) = sinh_parts::<I, T>(h, log_half - log_scale);
    let size = a.abs();
    let m = if size > h { size } else { h };
    let minus_m = T::ZERO - m;
    let (a_up, a_down) = ((size - m).exp::<I>(), (minus_m - size).exp::<I>());
    let (h_up, h_down) = ((h - m).exp::<I>(), (minus_m - h).exp::<I>());
    let sum = a_up + a_down + h_up + h_down;
    let ratio_a = (a_up - a_down) / sum;
    let ratio_a = if a < T::ZERO { T::ZERO - ratio_a } else { ratio_a };
    let ratio_h = (h_up - h_down) / sum;
    Term {
        log_p: log_sinh - m - ln_1_4::<I, T>(sum),
        by_mean: ratio_a * inverse,
        by_log_scale: a * ratio_a - h_coth + h * ratio_h,
    }
}

/// The first bin (`sign` 1) or the last (`sign` −1): everything on one side of its inner edge.
#[inline(always)]
fn tail<I: Isa, T: Float>(edge: T, sign: T, mean: T, log_scale: T) -> Term<T> {
    let inverse = (T::ZERO - log_scale).exp::<I>();
    // ln σ(b), b = ± (edge − mean) / s.
    let b = sign * (edge - mean) * inverse;
    let log_p = T::ZERO - super::pointwise::softplus::<I, T>(T::ZERO - b);
    let slope = super::pointwise::sigmoid::<I, T>(T::ZERO - b);
    Term { log_p, by_mean: T::ZERO - sign * slope * inverse, by_log_scale: T::ZERO - b * slope }
}

/// `ln p` of the positions `x` of a block, which begins at `start`, and the terms of its components. `params` is
/// `[3·K, stride]`.
#[inline(always)]
fn block<I: Isa, T: Float>(
    bins: Bins,
    params: &[T],
    stride: usize,
    start: usize,
    x: &[T],
    terms: &mut [[Term<T>; BLOCK]],
    log_p: &mut [T; BLOCK],
) {
    let components = terms.len();
    let (half, log_half) = (T::of(bins.half_width()), T::of(bins.half_width().ln()));
    let (low, high) = (T::of(bins.low()), T::of(bins.high()));
    let n = x.len();
    let row = |r: usize| &params[r * stride + start..r * stride + start + n];
    for (k, terms) in terms.iter_mut().enumerate() {
        let (means, log_scales) = (row(components + k), row(2 * components + k));
        for i in 0..n {
            terms[i] = interior::<I, T>(x[i], means[i], log_scales[i], half, log_half);
        }
        for i in 0..n {
            if x[i] < low {
                terms[i] = tail::<I, T>(T::of(-1.0 + bins.half_width()), T::ONE, means[i], log_scales[i]);
            } else if x[i] > high {
                let edge = T::of(1.0 - 3.0 * bins.half_width());
                terms[i] = tail::<I, T>(edge, T::ZERO - T::ONE, means[i], log_scales[i]);
            }
        }
    }
    // Both sums over components are shifted by their largest term.
    for i in 0..n {
        let (mut top_w, mut top) = (T::of(f64::NEG_INFINITY), T::of(f64::NEG_INFINITY));
        for (k, terms) in terms.iter().enumerate() {
            let logit = row(k)[i];
            top_w = top_w.larger(logit);
            top = top.larger(logit + terms[i].log_p);
        }
        let (mut weights, mut joint) = (T::ZERO, T::ZERO);
        for (k, terms) in terms.iter().enumerate() {
            let logit = row(k)[i];
            weights += (logit - top_w).exp::<I>();
            joint += (logit + terms[i].log_p - top).exp::<I>();
        }
        log_p[i] = top - top_w + joint.ln() - weights.ln();
    }
}

#[inline(always)]
fn value_body<I: Isa, T: Float>(bins: Bins, params: &[T], x: &[T]) -> f64 {
    let components = params.len() / x.len() / 3;
    let nothing = Term { log_p: T::ZERO, by_mean: T::ZERO, by_log_scale: T::ZERO };
    let mut terms = vec![[nothing; BLOCK]; components];
    let mut log_p = [T::ZERO; BLOCK];
    let mut total = 0.0;
    for (b, chunk) in x.chunks(BLOCK).enumerate() {
        block::<I, T>(bins, params, x.len(), b * BLOCK, chunk, &mut terms, &mut log_p);
        total += log_p[..chunk.len()].iter().map(|v| v.to_f64()).sum::<f64>();
    }
    total
}

#[inline(always)]
fn gradient_body<I: Isa, T: Float>(bins: Bins, params: &[T], x: &[T], g: T, d: &mut [T]) {
    let stride = x.len();
    let components = params.len() / stride / 3;
    let nothing = Term { log_p: T::ZERO, by_mean: T::ZERO, by_log_scale: T::ZERO };
    let mut terms = vec![[nothing; BLOCK]; components];
    let mut log_p = [T::ZERO; BLOCK];
    for (b, chunk) in x.chunks(BLOCK).enumerate() {
        let start = b * BLOCK;
        block::<I, T>(bins, params, stride, start, chunk, &mut terms, &mut log_p);
        for i in 0..chunk.len() {
            let at = |row: usize| row * stride + start + i;
            let mut top = T::of(f64::NEG_INFINITY);
            for k in 0..components {
                top = top.larger(params[at(k)]);
            }
            let mut weights = T::ZERO;
            for k in 0..components {
                weights += (params[at(k)] - top).exp::<I>();
            }
            let log_weights = top + weights.ln();
            for (k, terms) in terms.iter().enumerate() {
                let log_weight = params[at(k)] - log_weights;
                let share = (log_weight + terms[i].log_p - log_p[i]).exp::<I>();
                d[at(k)] = g * (share - log_weight.exp::<I>());
                d[at(components + k)] = g * share * terms[i].by_mean;
                d[at(2 * components + k)] = g * share * terms[i].by_log_scale;
            }
        }
    }
}

dispatch! {
    /// `Σ ln p(x)` over the positions of an item; `params` holds `[3·K, L]` logits, means and log-scales.
    fn item_log_prob<T>(bins: Bins, params: &[T], x: &[T]) -> f64 = value_body;
    /// Its gradient by `params`, times `g`.
    fn item_gradient<T>(bins: Bins, params: &[T], x: &[T], g: T, d: &mut [T]) = gradient_body;
}
