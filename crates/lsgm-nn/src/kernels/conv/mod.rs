//! Convolution: forward, data gradient and weight gradient.
//!
//! 3×3 kernels at stride 1 with enough channels go through [`winograd`], large strides through [`windows`]. Else all three
//! are sums over taps of zero-padded planes ([`source`]), read in place: no tap's copy of the input is ever made. The forward pass and the data gradient are correlations ([`correlate`]); the weight gradient is a sum of
//! outer products over positions ([`weight`]). A transposed convolution is the data gradient of a convolution, and the
//! other way round, so that three functions serve both. One-dimensional convolution is the case of height 1.

mod correlate;
mod source;
mod weight;
mod windows;
mod winograd;

use candle_core::Shape;
use rayon::prelude::*;

use self::correlate::{Correlation, Grid};
use self::source::{Content, Planes};
use self::windows::Windows;
use self::winograd::Problem;
use super::Float;

/// Sizes of a convolution from `[batch, groups · cin, h, w]` to `[batch, groups · cout, oh, ow]` with weights
/// `[groups · cout, cin, kh, kw]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) groups: usize,
    pub(crate) cin: usize,
    pub(crate) cout: usize,
    pub(crate) input: (usize, usize),
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: (usize, usize),
    pub(crate) padding: (usize, usize),
    pub(crate) dilation: (usize, usize),
    pub(crate) output: (usize, usize),
}

/// Three maps, linear in each of their inputs: each is what the gradients of the other two are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// `x` and `w` to `y`.
    Forward,
    /// `y` and `w` to `x`.
    DataGradient,
    /// `x` and `y` to `w`.
    WeightGradient,
}

impl Part {
    /// The shape of what it makes.
    pub(crate) fn shape(self, g: &Geometry) -> Shape {
        match self {
            Self::Forward => (g.batch, g.groups * g.cout, g.output.0, g.output.1),
            Self::DataGradient => (g.batch, g.groups * g.cin, g.input.0, g.input.1),
            Self::WeightGradient => (g.groups * g.cout, g.cin, g.kernel.0, g.kernel.1),
        }
        .into()
    }
}

impl Geometry {
    /// The same convolution with its planes as lines where the kernel sees one point only: no position borders another.
    /// (Output padding of a transposed convolution makes its planes differ in size.)
    fn simplified(mut self) -> Self {
        let pointwise = self.kernel == (1, 1) && self.stride == (1, 1) && self.padding == (0, 0);
        if pointwise && self.input == self.output {
            self.input = (1, self.input.0 * self.input.1);
            self.output = self.input;
        }
        self
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    /// Taps as (row, column) in order.
    pub(crate) fn each_tap(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (kh, kw) = self.kernel;
        (0..kh).flat_map(move |ky| (0..kw).map(move |kx| (ky, kx)))
    }

    /// Elements of one group's weights.
    fn weights(&self) -> usize {
        self.cout * self.cin * self.taps()
    }

    /// The padded input with its taps: with a stride, one plane for every phase (row and column modulo the stride) that
    /// a tap reads.
    fn input_planes(&self) -> Planes {
        let (stride, dilation) = (self.stride, self.dilation);
        let place = |tap: usize, d: usize, s: usize| (tap * d % s, tap * d / s);
        let mut phases = Vec::new();
        let taps: Vec<(usize, (usize, usize))> = self
            .each_tap()
            .map(|(ky, kx)| {
                let ((py, dy), (px, dx)) = (place(ky, dilation.0, stride.0), place(kx, dilation.1, stride.1));
                let phase = phases.iter().position(|p| *p == (py, px)).unwrap_or_else(|| {
                    phases.push((py, px));
                    phases.len() - 1
                });
                (phase, (dy, dx))
            })
            .collect();
        let content = |phase: usize, padding: usize, size: usize, step: usize| {
            let left = padding.saturating_sub(phase).div_ceil(step);
            let start = left * step + phase - padding;
            Content { left, start, count: size.saturating_sub(start).div_ceil(step), step }
        };
        let contents = phases
            .iter()
            .map(|(py, px)| {
                let rows = content(*py, self.padding.0, self.input.0, stride.0);
                (rows, content(*px, self.padding.1, self.input.1, stride.1))
            })
            .collect();
        Planes::new(contents, taps, self.output, self.input)
    }
}

/// `y = x ∗ w (+ bias)`.
pub(crate) fn forward<T: Float>(g: &Geometry, x: &[T], w: &[T], bias: Option<&[T]>) -> Vec<T> {
    if let Some(problem) = Problem::forward(g) {
        return problem.run(x, w, bias);
    }
    if let Some(windows) = Windows::of(g) {
        return windows.forward(x, w, bias);
    }
    let g = g.simplified();
    let planes = g.input_planes();
    let offsets = (0..g.cin).flat_map(|c| (0..g.taps()).map(move |tap| (c, tap)));
    let grid = Grid {
        size: g.output,
        first: (0, 0),
        step: (1, 1),
        reads: offsets.collect(),
        weights: ((0..g.cin * g.taps()).collect(), g.cin * g.taps()),
    };
    Correlation {
        batch: g.batch,
        groups: g.groups,
        channels: (g.cin, g.cout),
        output: g.output,
        weights_per_group: g.weights(),
        planes,
        grids: vec![grid],
    }
    .run(x, w, bias)
}

/// The gradient of [`forward`] with respect to `x`, given that of `y`; with `bias` (one value for each input channel)
/// it is a transposed convolution.
///
/// Input row `i = phase + stride · j` receives from tap `t` the output row `(i + padding − t · dilation) / stride`
/// where that is whole: for each phase a correlation with some of the taps.
pub(crate) fn data_gradient<T: Float>(g: &Geometry, gy: &[T], w: &[T], bias: Option<&[T]>) -> Vec<T> {
    if let Some(problem) = Problem::data_gradient(g) {
        return problem.run(gy, w, bias);
    }
    if let Some(windows) = Windows::of(g) {
        return windows.data_gradient(gy, w, bias);
    }
    let g = g.simplified();
    let (rows, columns) = (phases(&g, |p| p.0), phases(&g, |p| p.1));
    // Rows of zeros before the first: as far as a tap reaches back.
    let before = |axis: &[Phase]| {
        let shifts = axis.iter().flat_map(|p| p.taps.iter().map(|(_, shift)| *shift));
        shifts.min().unwrap_or(0).min(0).unsigned_abs()
    };
    let left = (before(&rows), before(&columns));
    let mut taps = Vec::new();
    let mut grids = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        for (j, column) in columns.iter().enumerate() {
            let first = taps.len();
            let mut kernel_taps = Vec::new();
            for (ky, dy) in &row.taps {
                for (kx, dx) in &column.taps {
                    let offset = ((dy + left.0 as isize) as usize, (dx + left.1 as isize) as usize);
                    taps.push((0, offset));
                    kernel_taps.push(ky * g.kernel.1 + kx);
                }
            }
            let count = kernel_taps.len();
            let place = |o: usize, tap: &usize| o * g.cin * g.taps() + tap;
            grids.push(Grid {
                size: (row.count, column.count),
                first: (i, j),
                step: g.stride,
                reads: (0..g.cout).flat_map(|o| (first..first + count).map(move |t| (o, t))).collect(),
                weights: ((0..g.cout).flat_map(|o| kernel_taps.iter().map(move |t| place(o, t))).collect(), g.taps()),
            });
        }
    }
    let content = |left: usize, size: usize| Content { left, start: 0, count: size, step: 1 };
    let contents = vec![(content(left.0, g.output.0), content(left.1, g.output.1))];
    let largest = (rows.iter().map(|p| p.count).max(), columns.iter().map(|p| p.count).max());
    let planes = Planes::new(contents, taps, (largest.0.unwrap_or(0), largest.1.unwrap_or(0)), g.output);
    Correlation {
        batch: g.batch,
        groups: g.groups,
        channels: (g.cout, g.cin),
        output: g.input,
        weights_per_group: g.weights(),
        planes,
        grids,
    }
    .run(gy, w, bias)
}

/// The gradient of [`forward`] with respect to `w`, given that of `y`.
pub(crate) fn weight_gradient<T: Float>(g: &Geometry, x: &[T], gy: &[T]) -> Vec<T> {
    if let Some(problem) = Problem::forward(g) {
        return problem.weight_gradient(x, gy);
    }
    match Windows::of(g) {
        Some(windows) => windows.weight_gradient(x, gy),
        None => weight::weight_gradient(g, x, gy),
    }
}

/// The input rows (or columns) of one phase: how many there are, and the taps they receive from, each with the
/// distance from row `j` of the phase to the output's row.
struct Phase {
    count: usize,
    taps: Vec<(usize, isize)>,
}

fn phases(g: &Geometry, axis: impl Fn((usize, usize)) -> usize) -> Vec<Phase> {
    let (size, stride, kernel) = (axis(g.input), axis(g.stride), axis(g.kernel));
    let (padding, dilation) = (axis(g.padding), axis(g.dilation));
    (0..stride.min(size))
        .map(|phase| {
            let shift = |tap: usize| (phase + padding) as isize - (tap * dilation) as isize;
            let taps = (0..kernel).filter(|t| shift(*t) % stride as isize == 0);
            Phase {
                count: (size - phase).div_ceil(stride),
                taps: taps.map(|t| (t, shift(t) / stride as isize)).collect(),
            }
        })
        .collect()
}

/// Sum of each channel of `y: [batch, channels, p]` over the batch and the positions.
pub(crate) fn channel_sums<T: Float>(y: &[T], channels: usize, p: usize) -> Vec<T> {
    let mut totals = vec![0.0; channels];
    let images = (64 * 1024 / (channels * p)).max(1);
    let parts: Vec<Vec<f64>> = y
        .par_chunks(images * channels * p)
        .map(|ys| {
            let mut part = vec![0.0; channels];
            for (i, plane) in ys.chunks_exact(p).enumerate() {
                part[i % channels] += super::pointwise::total(plane);
            }
            part
        })
        .collect();
    for part in parts {
        totals.iter_mut().zip(part).for_each(|(t, v)| *t += v);
    }
    totals.into_iter().map(T::of).collect()
}
