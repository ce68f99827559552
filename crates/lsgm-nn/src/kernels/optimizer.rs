//! One step of an optimizer over a block of one parameter, with the moving average of the parameter.

use super::{Float, Isa, dispatch};

/// The scalars of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) rule: Rule,
    pub(crate) lr: f64,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) eps: f64,
    pub(crate) weight_decay: f64,
    /// `1 − beta1^t` and `1 − beta2^t`.
    pub(crate) correction: (f64, f64),
    pub(crate) gradient_scale: f64,
    pub(crate) ema_decay: f64,
}

/// How moments become an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    Adam,
    AdamW,
    Adamax,
}

/// The slices of a block, all of one length; `average` may be empty.
pub(crate) struct Slices<'a, T> {
    pub(crate) p: &'a mut [T],
    pub(crate) g: &'a [T],
    pub(crate) m: &'a mut [T],
    pub(crate) v: &'a mut [T],
}

#[inline(always)]
fn update<T: Float>(s: Slices<'_, T>, f: impl Fn(T, T, T, T) -> (T, T, T)) {
    for (((p, g), m), v) in s.p.iter_mut().zip(s.g).zip(s.m).zip(s.v) {
        (*p, *m, *v) = f(*p, *g, *m, *v);
    }
}

#[inline(always)]
fn step_body<I: Isa, T: Float>(step: &Step, s: Slices<'_, T>) {
    let (b1, b2, eps) = (T::of(step.beta1), T::of(step.beta2), T::of(step.eps));
    let (a1, a2) = (T::of(1.0 - step.beta1), T::of(1.0 - step.beta2));
    let scale = T::of(step.gradient_scale);
    let rate = T::of(step.lr / step.correction.0);
    let unbias = T::of(1.0 / step.correction.1.sqrt());
    match step.rule {
        Rule::Adam | Rule::AdamW => {
            let (keep, decay) = if step.rule == Rule::AdamW {
                (T::of(1.0 - step.lr * step.weight_decay), T::ZERO)
            } else {
                (T::ONE, T::of(step.weight_decay))
            };
            update(s, |p, g, m, v| {
                let g = I::fma(g, scale, decay * p);
                let m = I::fma(b1, m, a1 * g);
                let v = I::fma(b2, v, a2 * g * g);
                (p * keep - rate * m / I::fma(v.sqrt(), unbias, eps), m, v)
            });
        }
        Rule::Adamax => {
            let decay = T::of(step.weight_decay);
            update(s, |p, g, m, v| {
                let g = I::fma(g, scale, decay * p);
                let m = I::fma(b1, m, a1 * g);
                let v = (b2 * v).larger(g.abs() + eps);
                (p - rate * m / v, m, v)
            });
        }
    }
}

#[inline(always)]
fn average_body<I: Isa, T: Float>(average: &mut [T], p: &[T], decay: T) {
    for (a, p) in average.iter_mut().zip(p) {
        *a = I::fma(decay, *a - *p, *p);
    }
}

dispatch! {
    /// Update the parameter and its moments.
    fn step<T>(step: &Step, slices: Slices<'_, T>) = step_body;
    /// `average ← decay · average + (1 − decay) · p`.
    fn average<T>(average: &mut [T], p: &[T], decay: T) = average_body;
}
