//! Log-probability of pixels under mixtures of logistic distributions that are cut into bins.

use rayon::prelude::*;

use super::pointwise::{sigmoid, softplus};
use super::{Float, Isa, dispatch, uninit};

/// Positions that are computed together.
const BLOCK: usize = 128;

/// Smallest logarithm of a scale; smaller ones are raised to it.
pub(crate) const LOWEST_LOG_SCALE: f64 = -7.0;

/// Where the parameters of one item lie: planes of `positions` elements, one after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Logistics {
    /// Channels of a pixel, 3 at most for mixtures.
    pub(crate) channels: usize,
    /// Positions of an item.
    pub(crate) positions: usize,
    /// Components; 0 stands for independent channels without weights.
    pub(crate) mixtures: usize,
    /// Half the width of a bin.
    pub(crate) half_bin: f64,
}

impl Logistics {
    fn components(&self) -> usize {
        self.mixtures.max(1)
    }

    /// Kinds of planes of a channel: means, log scales, and couplings between three channels.
    fn kinds(&self) -> usize {
        if self.mixtures > 0 && self.channels == 3 { 3 } else { 2 }
    }

    /// Planes of an item.
    pub(crate) fn planes(&self) -> usize {
        self.mixtures + self.channels * self.kinds() * self.components()
    }

    /// The plane of a kind (0: mean, 1: log scale, 2: coupling) of a component.
    fn plane(&self, kind: usize, channel: usize, component: usize) -> usize {
        match self.mixtures {
            0 => kind * self.channels + channel,
            m => m + (channel * self.kinds() + kind) * m + component,
        }
    }

    /// The couplings that shift the mean of `channel`: their planes (by channel) and the channels they multiply.
    fn couplings(&self, channel: usize) -> &'static [(usize, usize)] {
        match channel {
            1 if self.kinds() == 3 => &[(0, 0)],
            2 if self.kinds() == 3 => &[(1, 0), (2, 1)],
            _ => &[],
        }
    }
}

/// The hyperbolic tangent, to within the precision of numbers near 1.
#[inline(always)]
fn tanh<I: Isa, T: Float>(x: T) -> T {
    T::of(2.0) * sigmoid::<I, T>(x + x) - T::ONE
}

/// `ln(1 − exp(−width))` without loss of digits at any width.
#[inline(always)]
fn log_width<I: Isa, T: Float>(width: T, log_of_width: T) -> T {
    // ln(sinh(y) / y) for y = width / 2.
    let y2 = width * width * T::of(0.25);
    let mut series = T::of(1.0 / 467_775.0);
    for c in [-1.0 / 37_800.0, 1.0 / 2835.0, -1.0 / 180.0, 1.0 / 6.0] {
        series = I::fma(series, y2, T::of(c));
    }
    let narrow = I::fma(series, y2, log_of_width - width * T::of(0.5));
    let tail = (T::ZERO - width).exp::<I>();
    let tail = if tail > T::of(0.5) { T::of(0.5) } else { tail };
    let wide = T::ZERO - (tail / (T::ONE - tail)).ln_1p_unit::<I>();
    if width < T::of(std::f64::consts::LN_2) { narrow } else { wide }
}

/// A bin around `x` in units of the scale.
struct Bin<T> {
    upper: T,
    lower: T,
    inverse_scale: T,
    width: T,
}

#[inline(always)]
fn bin<I: Isa, T: Float>(x: T, mean: T, log_scale: T, half: T) -> Bin<T> {
    let inverse_scale = (T::ZERO - log_scale).exp::<I>();
    let centred = x - mean;
    Bin {
        upper: inverse_scale * (centred + half),
        lower: inverse_scale * (centred - half),
        inverse_scale,
        width: T::of(2.0) * half * inverse_scale,
    }
}

/// The larger of a log scale and the lowest one.
#[inline(always)]
fn raised<T: Float>(log_scale: T) -> T {
    let lowest = T::of(LOWEST_LOG_SCALE);
    if log_scale < lowest { lowest } else { log_scale }
}

/// The logarithm of the mass of the bin around `x`; the first and the last bin reach to infinity. `log_bin` is the
/// logarithm of a bin's width.
#[inline(always)]
fn log_mass<I: Isa, T: Float>(x: T, mean: T, log_scale: T, half: T, log_bin: T) -> T {
    let log_scale = raised(log_scale);
    let b = bin::<I, T>(x, mean, log_scale, half);
    let below_upper = b.upper - softplus::<I, T>(b.upper);
    let above_lower = T::ZERO - softplus::<I, T>(b.lower);
    let inner = below_upper + above_lower + log_width::<I, T>(b.width, log_bin - log_scale);
    let inner = if x > T::ONE - half { above_lower } else { inner };
    if x < half - T::ONE { below_upper } else { inner }
}

/// The derivatives of [`log_mass`] with respect to mean and log scale.
#[inline(always)]
fn log_mass_gradient<I: Isa, T: Float>(x: T, mean: T, log_scale: T, half: T) -> (T, T) {
    let b = bin::<I, T>(x, mean, raised(log_scale), half);
    let below = sigmoid::<I, T>(T::ZERO - b.upper);
    let above = sigmoid::<I, T>(b.lower);
    let (first, last) = (x < half - T::ONE, x > T::ONE - half);
    // Neither bin at the ends has the other border.
    let below = if last { T::ZERO } else { below };
    let above = if first { T::ZERO } else { above };
    // width / (exp(width) − 1)
    let w2 = b.width * b.width;
    let narrow = T::ONE - b.width * T::of(0.5) + w2 * T::of(1.0 / 12.0) - w2 * w2 * T::of(1.0 / 720.0);
    let tail = (T::ZERO - b.width).exp::<I>();
    let wide = b.width * tail / (T::ONE - tail);
    let spread = if b.width < T::of(0.05) { narrow } else { wide };
    let spread = if first || last { T::ZERO } else { spread };
    let mean_slope = b.inverse_scale * (above - below);
    let scale_slope = b.lower * above - b.upper * below - spread;
    (mean_slope, if log_scale < T::of(LOWEST_LOG_SCALE) { T::ZERO } else { scale_slope })
}

/// One item's parameters and pixels, and the positions in work.
struct Item<'a, T> {
    s: &'a Logistics,
    parameters: &'a [T],
    x: &'a [T],
    start: usize,
    len: usize,
}

impl<'a, T: Float> Item<'a, T> {
    #[inline(always)]
    fn parameter(&self, plane: usize) -> &'a [T] {
        &self.parameters[plane * self.s.positions + self.start..][..self.len]
    }

    #[inline(always)]
    fn pixel(&self, channel: usize) -> &'a [T] {
        &self.x[channel * self.s.positions + self.start..][..self.len]
    }

    /// The means of a channel of a component, shifted by the channels before it.
    #[inline(always)]
    fn means<I: Isa>(&self, channel: usize, component: usize, means: &mut [T]) {
        means.copy_from_slice(self.parameter(self.s.plane(0, channel, component)));
        for &(coupling, other) in self.s.couplings(channel) {
            let raw = self.parameter(self.s.plane(2, coupling, component));
            for ((mean, raw), x) in means.iter_mut().zip(raw).zip(self.pixel(other)) {
                *mean += tanh::<I, T>(*raw) * *x;
            }
        }
    }

    /// The logarithm of weight and density of each component, `[components, len]`, and of the mixture, `[len]`; the
    /// logarithm of the sum of the weights, `[len]`.
    #[inline(always)]
    fn densities<I: Isa>(&self, joint: &mut [T], total: &mut [T], weights: &mut [T], means: &mut [T]) {
        let (half, log_bin) = (T::of(self.s.half_bin), T::of((2.0 * self.s.half_bin).ln()));
        for (component, joint) in joint.chunks_exact_mut(self.len).enumerate() {
            match self.s.mixtures {
                0 => joint.fill(T::ZERO),
                _ => joint.copy_from_slice(self.parameter(component)),
            }
            for channel in 0..self.s.channels {
                self.means::<I>(channel, component, means);
                let scales = self.parameter(self.s.plane(1, channel, component));
                let pixels = self.pixel(channel);
                for (((joint, x), mean), scale) in joint.iter_mut().zip(pixels).zip(&*means).zip(scales) {
                    *joint += log_mass::<I, T>(*x, *mean, *scale, half, log_bin);
                }
            }
        }
        log_sum_exp::<I, T>(|i| &joint[i * self.len..][..self.len], self.s.components(), total);
        match self.s.mixtures {
            0 => weights.fill(T::ZERO),
            m => log_sum_exp::<I, T>(|i| self.parameter(i), m, weights),
        }
    }
}

/// `ln Σ exp` over `n` rows.
#[inline(always)]
fn log_sum_exp<'a, I: Isa, T: Float>(row: impl Fn(usize) -> &'a [T], n: usize, total: &mut [T]) {
    let mut largest = [T::of(f64::NEG_INFINITY); BLOCK];
    let mut sum = [T::ZERO; BLOCK];
    for i in 0..n {
        largest.iter_mut().zip(row(i)).for_each(|(l, v)| *l = l.larger(*v));
    }
    for i in 0..n {
        for ((s, v), l) in sum.iter_mut().zip(row(i)).zip(&largest) {
            *s += (*v - *l).exp::<I>();
        }
    }
    for ((total, s), l) in total.iter_mut().zip(&sum).zip(&largest) {
        *total = *l + s.ln();
    }
}

#[inline(always)]
fn item_body<I: Isa, T: Float>(s: &Logistics, parameters: &[T], x: &[T]) -> f64 {
    let mut joint = vec![T::ZERO; s.components() * BLOCK];
    let (mut total, mut weights, mut means) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK], [T::ZERO; BLOCK]);
    let mut sum = 0.0;
    for start in (0..s.positions).step_by(BLOCK) {
        let len = BLOCK.min(s.positions - start);
        let item = Item { s, parameters, x, start, len };
        let joint = &mut joint[..s.components() * len];
        item.densities::<I>(joint, &mut total[..len], &mut weights[..len], &mut means[..len]);
        sum += total[..len].iter().zip(&weights).map(|(t, w)| t.to_f64() - w.to_f64()).sum::<f64>();
    }
    sum
}

#[inline(always)]
fn item_gradient_body<I: Isa, T: Float>(s: &Logistics, parameters: &[T], x: &[T], g: T, d: &mut [T]) {
    let half = T::of(s.half_bin);
    let mut joint = vec![T::ZERO; s.components() * BLOCK];
    let (mut total, mut weights, mut means) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK], [T::ZERO; BLOCK]);
    let mut slopes = [T::ZERO; BLOCK];
    d.fill(T::ZERO);
    for start in (0..s.positions).step_by(BLOCK) {
        let len = BLOCK.min(s.positions - start);
        let item = Item { s, parameters, x, start, len };
        let joint = &mut joint[..s.components() * len];
        item.densities::<I>(joint, &mut total[..len], &mut weights[..len], &mut means[..len]);
        let place = |plane: usize| plane * s.positions + start..plane * s.positions + start + len;
        for (component, joint) in joint.chunks_exact_mut(len).enumerate() {
            // From here on the share of the component in the mixture, times the output's gradient.
            for (joint, total) in joint.iter_mut().zip(&total) {
                *joint = g * (*joint - *total).exp::<I>();
            }
            let joint = &*joint;
            if s.mixtures > 0 {
                let logits = item.parameter(component);
                for (((d, share), logit), w) in d[place(component)].iter_mut().zip(joint).zip(logits).zip(&weights) {
                    *d = *share - g * (*logit - *w).exp::<I>();
                }
            }
            for channel in 0..s.channels {
                item.means::<I>(channel, component, &mut means[..len]);
                let (pixels, scales) = (item.pixel(channel), item.parameter(s.plane(1, channel, component)));
                let scale_gradients = &mut d[place(s.plane(1, channel, component))];
                let sources = joint.iter().zip(pixels).zip(&means).zip(scales);
                for ((d, slope), (((share, x), mean), scale)) in
                    scale_gradients.iter_mut().zip(&mut slopes).zip(sources)
                {
                    let (dmean, dscale) = log_mass_gradient::<I, T>(*x, *mean, *scale, half);
                    *slope = *share * dmean;
                    *d = *share * dscale;
                }
                d[place(s.plane(0, channel, component))].copy_from_slice(&slopes[..len]);
                for &(coupling, other) in s.couplings(channel) {
                    let plane = s.plane(2, coupling, component);
                    let sources = item.parameter(plane).iter().zip(item.pixel(other)).zip(&slopes);
                    for (d, ((raw, x), slope)) in d[place(plane)].iter_mut().zip(sources) {
                        let c = tanh::<I, T>(*raw);
                        *d = *slope * *x * (T::ONE - c * c);
                    }
                }
            }
        }
    }
}

dispatch! {
    fn item<T>(s: &Logistics, parameters: &[T], x: &[T]) -> f64 = item_body;
    fn item_gradient<T>(s: &Logistics, parameters: &[T], x: &[T], g: T, d: &mut [T]) = item_gradient_body;
}

/// The log-probability of each item.
pub(crate) fn log_prob<T: Float>(s: &Logistics, parameters: &[T], x: &[T]) -> Vec<T> {
    let (planes, pixels) = (s.planes() * s.positions, s.channels * s.positions);
    parameters.par_chunks(planes).zip(x.par_chunks(pixels)).map(|(p, x)| T::of(item(s, p, x))).collect()
}

/// The gradient of [`log_prob`] with respect to the parameters.
pub(crate) fn log_prob_gradient<T: Float>(s: &Logistics, parameters: &[T], x: &[T], g: &[T]) -> Vec<T> {
    let (planes, pixels) = (s.planes() * s.positions, s.channels * s.positions);
    let mut d = uninit(parameters.len());
    d.par_chunks_mut(planes)
        .zip(parameters.par_chunks(planes))
        .zip(x.par_chunks(pixels))
        .zip(g)
        .for_each(|(((d, p), x), g)| item_gradient(s, p, x, *g, d));
    d
}
