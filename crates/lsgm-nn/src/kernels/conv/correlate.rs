//! `y[m, position] = Σ_k w[m, k] · planes[position + offset(k)]`, block by block in registers.

mod channels;

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::source::{GroupPlanes, Planes};
use crate::kernels::tile::{LARGEST, Shape, outer, tail_vectors};
use crate::kernels::{Float, InstructionSet, uninit};

/// A regular subset of the output positions, and what each sums over.
pub(crate) struct Grid {
    /// Rows and columns of the grid.
    pub(crate) size: (usize, usize),
    /// The output position of the grid's first.
    pub(crate) first: (usize, usize),
    /// The output's distance from one to the next.
    pub(crate) step: (usize, usize),
    /// Channel and tap of each term.
    pub(crate) reads: Vec<(usize, usize)>,
    /// Where the weights of each term lie in those of a group, and how far it is from one output channel to the next.
    pub(crate) weights: (Vec<usize>, usize),
}

/// A correlation of the planes of `batch` images, group by group.
pub(crate) struct Correlation {
    pub(crate) batch: usize,
    pub(crate) groups: usize,
    /// Channels of a group: read and written.
    pub(crate) channels: (usize, usize),
    /// Rows and columns of the output.
    pub(crate) output: (usize, usize),
    pub(crate) weights_per_group: usize,
    pub(crate) planes: Planes,
    /// They cover the output without overlap.
    pub(crate) grids: Vec<Grid>,
}

/// Bytes of padded planes that a task works on: well inside a core's second-level cache.
const PLANES: usize = 512 * 1024;

impl Correlation {
    /// Whether vectors are to hold output channels, and not positions: that wastes no positions on padding, but fills
    /// registers with whole vectors of channels only, and transposes the output.
    fn along_channels(&self) -> bool {
        let terms = |grid: &Grid| grid.reads.len() as f64 / 32.0;
        let channels = self.channels.1;
        let (wide, even) = (channels.next_multiple_of(16) as f64, channels.next_multiple_of(8) as f64);
        let cost = |f: &dyn Fn(&Grid) -> f64| self.grids.iter().map(f).sum::<f64>();
        let here = cost(&|g| (g.size.0 * g.size.1) as f64 * (terms(g) * wide + 0.6 * channels as f64));
        let there = cost(&|g| (g.size.0 * self.planes.pitch) as f64 * terms(g) * even * 1.05);
        here < there
    }

    /// The output `[batch, groups · channels.1, output]` for `x: [batch, groups · channels.0, ..]`.
    pub(crate) fn run<T: Float>(&self, x: &[T], w: &[T], bias: Option<&[T]>) -> Vec<T> {
        if self.along_channels() {
            return channels::run(self, x, w, bias);
        }
        let outputs = self.groups * self.channels.1;
        let positions = self.output.0 * self.output.1;
        let set = InstructionSet::selected();
        let packed = set.run(Pack { correlation: self, w });
        let images = self.images_per_task::<T>();
        let mut y = uninit(self.batch * outputs * positions);
        let input = x.len() / self.batch;
        y.par_chunks_mut(images * outputs * positions).enumerate().for_each(|(task, y)| {
            let (x, images) = (&x[task * images * input..], y.len() / (outputs * positions));
            set.run(Task { correlation: self, images, x, packed: &packed, bias, y });
        });
        y
    }

    /// Images whose planes fit the cache, and enough tasks for many threads, whatever their number.
    fn images_per_task<T: Float>(&self) -> usize {
        let bytes = self.planes.channel(1) * self.channels.0 * size_of::<T>();
        (PLANES / bytes).clamp(1, self.batch.div_ceil(8))
    }

    fn shape(&self) -> Shape {
        Shape::for_rows(self.channels.1)
    }
}

/// Blocks of `rows` output channels, the last with half the rows where those are enough: `(first, rows)`.
fn blocks(channels: usize, rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..channels).step_by(rows).map(move |first| (first, if channels - first <= rows / 2 { rows / 2 } else { rows }))
}

/// The weights in the order in which a task reads them: for every group, grid and block of output channels, the channels
/// of the block for each term.
struct Pack<'a, T> {
    correlation: &'a Correlation,
    w: &'a [T],
}

impl<T: Float> WithSimd for Pack<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<T> {
        pack(self.correlation, self.w, self.correlation.shape().size::<S>().0)
    }
}

fn pack<T: Float>(c: &Correlation, w: &[T], rows: usize) -> Vec<T> {
    let channels = c.channels.1;
    let terms: usize = c.grids.iter().map(|grid| grid.reads.len()).sum();
    let padded: usize = blocks(channels, rows).map(|(_, rows)| rows).sum();
    let mut packed = vec![T::ZERO; c.groups * terms * padded];
    packed.par_chunks_mut((terms * padded).max(1)).zip(w.par_chunks(c.weights_per_group)).for_each(
        |(mut packed, w)| {
            for grid in &c.grids {
                let (terms, step) = (&grid.weights.0, grid.weights.1);
                for (first, rows) in blocks(channels, rows) {
                    let (block, rest) = packed.split_at_mut(rows * grid.reads.len());
                    block.par_chunks_mut(64 * rows).zip(terms.par_chunks(64)).for_each(|(block, terms)| {
                        for (to, term) in block.chunks_exact_mut(rows).zip(terms) {
                            let from = w[term + first * step..].iter().step_by(step);
                            to.iter_mut().take(channels - first).zip(from).for_each(|(to, w)| *to = *w);
                        }
                    });
                    packed = rest;
                }
            }
        },
    );
    packed
}

/// The correlation of a few images on one thread.
struct Task<'a, T> {
    correlation: &'a Correlation,
    images: usize,
    /// These images, and those after them.
    x: &'a [T],
    packed: &'a [T],
    bias: Option<&'a [T]>,
    y: &'a mut [T],
}

impl<T: Float> WithSimd for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.correlation;
        let (rows, vectors) = c.shape().size::<S>();
        let lanes = T::lanes::<S>();
        let width = vectors * lanes;
        let (read, written) = c.channels;
        let positions = c.output.0 * c.output.1;
        let mut planes = GroupPlanes::new(&c.planes, self.x, self.images, c.groups, read, width);
        let panels: Vec<Vec<Segment>> = c.grids.iter().map(|grid| segments(c, grid, self.images, width)).collect();
        let offsets: Vec<Vec<usize>> = c
            .grids
            .iter()
            .map(|grid| grid.reads.iter().map(|(channel, tap)| c.planes.offset(self.images, *channel, *tap)).collect())
            .collect();
        let mut packed = self.packed;
        for group in 0..c.groups {
            let planes = planes.of(group);
            for ((grid, segments), offsets) in c.grids.iter().zip(&panels).zip(&offsets) {
                let column_step = grid.step.1;
                let (weights, rest) =
                    packed.split_at(offsets.len() * blocks(written, rows).map(|b| b.1).sum::<usize>());
                packed = rest;
                for segments in segments.chunk_by(|a, b| a.panel == b.panel) {
                    let start = segments[0].panel * width;
                    debug_assert!(offsets.iter().all(|o| start + o + width <= planes.len()));
                    // The last panel may need fewer vectors.
                    let held = segments.iter().map(|s| s.column + s.len).max().unwrap_or(width);
                    let vectors = tail_vectors(held.div_ceil(lanes), vectors);
                    let width = vectors * lanes;
                    let mut weights = weights;
                    for (first, rows) in blocks(written, rows) {
                        let (block, rest) = weights.split_at(rows * offsets.len());
                        weights = rest;
                        let mut sums = [MaybeUninit::<T>::uninit(); LARGEST];
                        // SAFETY: `block` holds `rows` weights for each offset. A panel starts at a position of the
                        // grid, or less than `width` before one; `Planes::len` leaves room for `width` elements at
                        // every tap of every position. `sums` has room for the largest block, and all of the block is
                        // written before it is read as initialised.
                        let sums = unsafe {
                            let b = planes.as_ptr().add(start);
                            outer(simd, (rows, vectors), block.as_ptr(), b, offsets, sums.as_mut_ptr().cast());
                            std::slice::from_raw_parts(sums.as_ptr().cast::<T>(), rows * width)
                        };
                        let channels = first..written.min(first + rows);
                        for (channel, sums) in channels.zip(sums.chunks_exact(width)) {
                            let channel = group * written + channel;
                            let bias = self.bias.map_or(T::ZERO, |b| b[channel]);
                            for s in segments {
                                let sums = &sums[s.column..s.column + s.len];
                                let to = (s.image * c.groups * written + channel) * positions + s.to;
                                store(&mut self.y[to..], sums, column_step, bias);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn store<T: Float>(to: &mut [T], sums: &[T], step: usize, bias: T) {
    if step == 1 {
        for (to, sum) in to[..sums.len()].iter_mut().zip(sums) {
            *to = *sum + bias;
        }
    } else {
        for (to, sum) in to.iter_mut().step_by(step).zip(sums) {
            *to = *sum + bias;
        }
    }
}

/// Neighbouring positions of a panel (a run of `width` elements of the planes) that belong to one row of the output.
struct Segment {
    panel: usize,
    /// The first position inside the panel.
    column: usize,
    len: usize,
    image: usize,
    /// Where it goes inside a plane of the output.
    to: usize,
}

fn segments(c: &Correlation, grid: &Grid, images: usize, width: usize) -> Vec<Segment> {
    let mut segments = Vec::new();
    for image in 0..images {
        for row in 0..grid.size.0 {
            let start = image * c.planes.image_size() + row * c.planes.pitch;
            let to = (grid.first.0 + row * grid.step.0) * c.output.1 + grid.first.1;
            let mut x = 0;
            while x < grid.size.1 {
                let (panel, column) = ((start + x) / width, (start + x) % width);
                let len = (width - column).min(grid.size.1 - x);
                segments.push(Segment { panel, column, len, image, to: to + x * grid.step.1 });
                x += len;
            }
        }
    }
    segments
}
