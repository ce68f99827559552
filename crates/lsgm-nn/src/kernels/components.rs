//! Softmax over the components of a mixture, and means under it, a few rows at a time: the logits of all rows by all
//! components are never in memory as a whole, for they are cheaper to compute again than to read.

use rayon::prelude::*;

use super::pointwise::dot;
use super::softmax::{softmax_gradient_rows, softmax_in_place};
use super::{Float, Isa, Mat, dispatch, gemm, uninit};

/// Rows that are worked on together: their logits stay in the cache.
const ROWS: usize = 32;

/// Sizes of items that have rows of `width` features each, and of as many factors of each of their components.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) rows: usize,
    pub(crate) components: usize,
    pub(crate) width: usize,
}

/// What the components are compared with: features of all rows of all items, and the factors of components that all items
/// share.
pub(crate) struct Targets<T> {
    pub(crate) features: Vec<T>,
    pub(crate) factors: Vec<T>,
}

#[inline(always)]
fn add_body<I: Isa, T: Float>(y: &mut [T], x: &[T]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += *x;
    }
}

/// `y ← y + scale · (a − b)`.
#[inline(always)]
fn add_difference_body<I: Isa, T: Float>(y: &mut [T], a: &[T], b: &[T], scale: T) {
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        *y = I::fma(scale, *a - *b, *y);
    }
}

dispatch! {
    fn add<T>(y: &mut [T], x: &[T]) = add_body;
    fn add_difference<T>(y: &mut [T], a: &[T], b: &[T], scale: T) = add_difference_body;
}

impl Sizes {
    fn item(&self) -> usize {
        self.rows * self.width
    }

    fn factors(&self) -> usize {
        self.components * self.width
    }

    /// `features · factorsᵀ`.
    fn logits<T: Float>(&self, features: &[T], factors: &[T], y: &mut [T]) {
        let (features_of, factors_of) = (Mat::rows(features, self.width), Mat::rows(factors, self.width).t());
        gemm(
            features.len() / self.width,
            self.components,
            self.width,
            features_of,
            factors_of,
            y,
            self.components,
            false,
        );
    }

    /// The softmax of [`Sizes::logits`], and the logarithms of the sums.
    fn softmax<T: Float>(&self, features: &[T], factors: &[T], y: &mut [T]) -> Vec<T> {
        self.logits(features, factors, y);
        self.normalise(y)
    }

    fn normalise<T: Float>(&self, logits: &mut [T]) -> Vec<T> {
        let mut log_sums = uninit(logits.len() / self.components);
        softmax_in_place(logits, self.components, T::ONE, &mut log_sums);
        log_sums
    }

    /// Add what the gradient `d` of logits says of the factors, and write what it says of the features.
    fn logits_gradients<T: Float>(
        &self,
        [features, factors]: [&[T]; 2],
        d: &[T],
        [of_features, of_factors]: [&mut [T]; 2],
    ) {
        let (rows, k, w) = (features.len() / self.width, self.components, self.width);
        gemm(k, w, rows, Mat::rows(d, k).t(), Mat::rows(features, w), of_factors, w, true);
        gemm(rows, w, k, Mat::rows(d, k), Mat::rows(factors, w), of_features, w, false);
    }
}

/// `softmax(features · factorsᵀ)`: `[B, rows, components]`.
pub(crate) fn shares<T: Float>(s: &Sizes, features: &[T], factors: &[T]) -> Vec<T> {
    let mut y = uninit(features.len() / s.width * s.components);
    y.par_chunks_mut(s.rows * s.components)
        .zip(features.par_chunks(s.item()))
        .zip(factors.par_chunks(s.factors()))
        .for_each(|((y, features), factors)| {
            y.par_chunks_mut(ROWS * s.components).zip(features.par_chunks(ROWS * s.width)).for_each(|(y, features)| {
                s.softmax(features, factors, y);
            });
        });
    y
}

/// The gradients of [`shares`] with respect to features and factors, from its result.
pub(crate) fn shares_gradients<T: Float>(
    s: &Sizes,
    [features, factors]: [&[T]; 2],
    shares: &[T],
    g: &[T],
) -> [Vec<T>; 2] {
    let (mut of_features, mut of_factors) = (uninit(features.len()), vec![T::ZERO; factors.len()]);
    let all = s.rows * s.components;
    of_features
        .par_chunks_mut(s.item())
        .zip(of_factors.par_chunks_mut(s.factors()))
        .zip(features.par_chunks(s.item()).zip(factors.par_chunks(s.factors())))
        .zip(shares.par_chunks(all).zip(g.par_chunks(all)))
        .for_each(|(((of_features, of_factors), (features, factors)), (shares, g))| {
            let mut d = uninit(ROWS.min(s.rows) * s.components);
            let blocks = of_features.chunks_mut(ROWS * s.width).zip(features.chunks(ROWS * s.width));
            let of_blocks = shares.chunks(ROWS * s.components).zip(g.chunks(ROWS * s.components));
            for ((of_features, features), (shares, g)) in blocks.zip(of_blocks) {
                let d = &mut d[..shares.len()];
                softmax_gradient_rows(shares, g, s.components, d);
                s.logits_gradients([features, factors], d, [of_features, &mut *of_factors]);
            }
        });
    [of_features, of_factors]
}

/// A few rows of one item.
struct Block<'a, T> {
    features: &'a [T],
    factors: &'a [T],
    context: &'a [T],
    /// Features and factors of the targets.
    targets: Option<[&'a [T]; 2]>,
}

impl<T: Float> Block<'_, T> {
    fn rows(&self, s: &Sizes) -> usize {
        self.features.len() / s.width
    }

    /// `features · factorsᵀ + context`.
    fn logits(&self, s: &Sizes) -> Vec<T> {
        let mut logits = uninit(self.context.len());
        s.logits(self.features, self.factors, &mut logits);
        add(&mut logits, self.context);
        logits
    }

    fn forward(&self, s: &Sizes, y: &mut [T]) {
        let (rows, columns) = (self.rows(s), y.len() / self.rows(s));
        let mut p = self.logits(s);
        let expected: Option<Vec<f64>> = self.targets.map(|[features, factors]| {
            let mut r = uninit(p.len());
            s.softmax(features, factors, &mut r);
            r.chunks_exact(s.components).zip(p.chunks_exact(s.components)).map(|(r, logits)| dot(r, logits)).collect()
        });
        let log_sums = s.normalise(&mut p);
        let (p, factors) = (Mat::rows(&p, s.components), Mat::rows(self.factors, s.width));
        gemm(rows, s.width, s.components, p, factors, y, columns, false);
        for ((y, log_sum), logit) in y.chunks_exact_mut(columns).zip(log_sums).zip(expected.into_iter().flatten()) {
            y[s.width] = T::of(log_sum.to_f64() - logit);
        }
    }

    /// Gradients of features (written), factors (added) and context (written).
    fn backward(&self, s: &Sizes, gy: &[T], [of_features, of_factors, of_context]: [&mut [T]; 3]) {
        let (rows, k, w) = (self.rows(s), s.components, s.width);
        let columns = gy.len() / rows;
        let mut p = self.logits(s);
        s.normalise(&mut p);
        let mut other = uninit(p.len());
        gemm(rows, k, w, Mat::rows(gy, columns), Mat::rows(self.factors, w).t(), &mut other, k, false);
        gemm(k, w, rows, Mat::rows(&p, k).t(), Mat::rows(gy, columns), of_factors, w, true);
        softmax_gradient_rows(&p, &other, k, of_context);
        s.logits_gradients([self.features, self.factors], of_context, [of_features, of_factors]);
        let Some([features, factors]) = self.targets else { return };
        // The cross entropy is a matter of the context alone.
        s.softmax(features, factors, &mut other);
        let of_rows = of_context.chunks_exact_mut(k).zip(p.chunks_exact(k)).zip(other.chunks_exact(k));
        for (((of_context, p), r), gy) in of_rows.zip(gy.chunks_exact(columns)) {
            add_difference(of_context, p, r, gy[w]);
        }
    }
}

/// `p · factors` with `p = softmax(features · factorsᵀ + context)`, `[B, rows, width]`; with targets one column more, the
/// cross entropy of their softmax and `p`.
pub(crate) fn expected<T: Float>(
    s: &Sizes,
    [features, factors, context]: [&[T]; 3],
    targets: Option<&Targets<T>>,
) -> Vec<T> {
    let columns = s.width + usize::from(targets.is_some());
    let mut y = uninit(features.len() / s.width * columns);
    y.par_chunks_mut(s.rows * columns).enumerate().for_each(|(i, y)| {
        y.par_chunks_mut(ROWS * columns).enumerate().for_each(|(j, y)| {
            block(s, [features, factors, context], targets, i, j).forward(s, y);
        });
    });
    y
}

/// Block `j` of item `i`.
fn block<'a, T>(
    s: &Sizes,
    [features, factors, context]: [&'a [T]; 3],
    targets: Option<&'a Targets<T>>,
    i: usize,
    j: usize,
) -> Block<'a, T> {
    let (first, last) = (i * s.rows + j * ROWS, i * s.rows + s.rows.min((j + 1) * ROWS));
    let rows = first * s.width..last * s.width;
    Block {
        features: &features[rows.clone()],
        factors: &factors[i * s.factors()..(i + 1) * s.factors()],
        context: &context[first * s.components..last * s.components],
        targets: targets.map(|t| [&t.features[rows], t.factors.as_slice()]),
    }
}

/// The gradients of [`expected`].
pub(crate) fn expected_gradients<T: Float>(
    s: &Sizes,
    inputs: [&[T]; 3],
    targets: Option<&Targets<T>>,
    gy: &[T],
) -> [Vec<T>; 3] {
    let [features, factors, context] = inputs;
    let mut of_features = uninit(features.len());
    let mut of_factors = vec![T::ZERO; factors.len()];
    let mut of_context = uninit(context.len());
    let columns = s.width + usize::from(targets.is_some());
    of_features
        .par_chunks_mut(s.item())
        .zip(of_factors.par_chunks_mut(s.factors()))
        .zip(of_context.par_chunks_mut(s.rows * s.components))
        .zip(gy.par_chunks(s.rows * columns))
        .enumerate()
        .for_each(|(i, (((of_features, of_factors), of_context), gy))| {
            let blocks = of_features.chunks_mut(ROWS * s.width).zip(of_context.chunks_mut(ROWS * s.components));
            for (j, ((of_features, of_context), gy)) in blocks.zip(gy.chunks(ROWS * columns)).enumerate() {
                block(s, inputs, targets, i, j).backward(s, gy, [of_features, &mut *of_factors, of_context]);
            }
        });
    [of_features, of_factors, of_context]
}
