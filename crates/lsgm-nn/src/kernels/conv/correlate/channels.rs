//! The correlation with vectors of output channels: the input is read value by value.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Correlation, Grid};
use crate::kernels::conv::source::GroupPlanes;
use crate::kernels::tile::{gather, panels, reduce_rows};
use crate::kernels::transpose::deinterleave;
use crate::kernels::{Float, InstructionSet, uninit};

/// The output of `c`; see [`Correlation::run`].
pub(super) fn run<T: Float>(c: &Correlation, x: &[T], w: &[T], bias: Option<&[T]>) -> Vec<T> {
    let set = InstructionSet::selected();
    let weights: Vec<Vec<T>> = w
        .par_chunks(c.weights_per_group)
        .flat_map(|w| c.grids.par_iter().map(move |grid| set.run(Pack { c, grid, w })))
        .collect();
    let images = c.images_per_task::<T>();
    let (read, written) = (x.len() / c.batch, c.groups * c.channels.1 * c.output.0 * c.output.1);
    let mut y = uninit(c.batch * written);
    y.par_chunks_mut(images * written).zip(x.par_chunks(images * read)).for_each(|(y, x)| {
        set.run(Task { c, images: x.len() / read, x, weights: &weights, bias, y });
    });
    y
}

/// The weights of a grid by panels of output channels: `[panel, term, columns]`.
struct Pack<'a, T> {
    c: &'a Correlation,
    grid: &'a Grid,
    w: &'a [T],
}

impl<T: Float> WithSimd for Pack<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<T> {
        let (lanes, terms, channels) = (T::lanes::<S>(), self.grid.reads.len(), self.c.channels.1);
        let mut packed = vec![T::ZERO; terms * channels.next_multiple_of(lanes)];
        let mut first = 0;
        for columns in panels::<S, T>(channels).map(|vectors| vectors * lanes) {
            let panel = &mut packed[first * terms..(first + columns) * terms];
            let (terms, step) = (&self.grid.weights.0, self.grid.weights.1);
            panel.par_chunks_mut(columns).with_min_len(64).zip(terms).for_each(|(to, term)| {
                let from = self.w[term + first * step..].iter().step_by(step);
                to.iter_mut().take(channels - first).zip(from).for_each(|(to, w)| *to = *w);
            });
            first += columns;
        }
        packed
    }
}

/// The correlation of a few images on one thread.
struct Task<'a, T> {
    c: &'a Correlation,
    images: usize,
    x: &'a [T],
    /// Of each group and grid.
    weights: &'a [Vec<T>],
    bias: Option<&'a [T]>,
    y: &'a mut [T],
}

impl<T: Float> WithSimd for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (c, lanes) = (self.c, T::lanes::<S>());
        let (read, written) = c.channels;
        let positions = c.output.0 * c.output.1;
        let mut planes = GroupPlanes::new(&c.planes, self.x, self.images, c.groups, read, 0);
        let offsets: Vec<Vec<usize>> = c
            .grids
            .iter()
            .map(|grid| grid.reads.iter().map(|(channel, tap)| c.planes.offset(self.images, *channel, *tap)).collect())
            .collect();
        let rows: Vec<Vec<Row>> = c.grids.iter().map(|grid| rows(c, grid, self.images)).collect();
        let mut block = uninit(self.images * positions * written.next_multiple_of(lanes).min(4 * lanes));
        for group in 0..c.groups {
            let planes = planes.of(group);
            let weights = &self.weights[group * c.grids.len()..][..c.grids.len()];
            let mut first = 0;
            for vectors in panels::<S, T>(written) {
                let columns = vectors * lanes;
                for ((offsets, rows), weights) in offsets.iter().zip(&rows).zip(weights) {
                    let panel = &weights[first * offsets.len()..(first + columns) * offsets.len()];
                    products::<S, T>(simd, vectors, planes, offsets, rows, panel, &mut block);
                }
                let count = columns.min(written - first);
                let channel = group * written + first;
                let bias = self.bias.map_or_else(|| vec![T::ZERO; count], |b| b[channel..channel + count].to_vec());
                let places: Vec<usize> = (0..positions).map(|p| p * columns).collect();
                for (image, block) in block.chunks_exact(positions * columns).take(self.images).enumerate() {
                    let to = (image * c.groups * written + channel) * positions;
                    deinterleave(block, &places, positions, &bias, &mut self.y[to..to + count * positions]);
                }
                first += columns;
            }
        }
    }
}

/// A position of a grid: where it lies in the planes, and its number in the output of all images.
#[derive(Clone, Copy)]
struct Row {
    from: usize,
    to: usize,
}

fn rows(c: &Correlation, grid: &Grid, images: usize) -> Vec<Row> {
    let mut rows = Vec::with_capacity(images * grid.size.0 * grid.size.1);
    for image in 0..images {
        for y in 0..grid.size.0 {
            let from = image * c.planes.image_size() + y * c.planes.pitch;
            let to = (image * c.output.0 + grid.first.0 + y * grid.step.0) * c.output.1 + grid.first.1;
            rows.extend((0..grid.size.1).map(|x| Row { from: from + x, to: to + x * grid.step.1 }));
        }
    }
    rows
}

/// `block[to, ..] = Σ_k planes[from + offsets[k]] · panel[k, ..]` for each row.
#[inline(always)]
fn products<S: Simd, T: Float>(
    simd: S,
    vectors: usize,
    planes: &[T],
    offsets: &[usize],
    rows: &[Row],
    panel: &[T],
    block: &mut [T],
) {
    let columns = vectors * T::lanes::<S>();
    let height = reduce_rows::<S>(vectors);
    let (mut from, mut to) = (Vec::with_capacity(height), Vec::with_capacity(height));
    let Some(last) = rows.last() else { return };
    let farthest = offsets.iter().max().copied().unwrap_or(0);
    assert!(rows.iter().all(|r| r.from + farthest < planes.len() && (r.to + 1) * columns <= block.len()));
    assert!(offsets.len() * columns <= panel.len());
    for rows in rows.chunks(height) {
        // A last block that is not full computes its last row again.
        from.clear();
        to.clear();
        for row in rows.iter().chain(std::iter::repeat_n(last, height - rows.len())) {
            from.push(row.from);
            to.push(row.to * columns);
        }
        // SAFETY: the assertions above.
        unsafe {
            let (a, b, c) = (planes.as_ptr(), panel.as_ptr(), block.as_mut_ptr());
            gather(simd, vectors, a, &from, offsets, b, c, &to);
        }
    }
}
