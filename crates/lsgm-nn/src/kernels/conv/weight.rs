//! The weight gradient: `dw[o, k] = Σ_position gy[o, position] · planes[position + offset(k)]`.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::Geometry;
use super::source::Planes;
use crate::kernels::tile::{DOTS, Reduction, Run, dots, panels, reduce, reduce_rows};
use crate::kernels::transpose::interleave;
use crate::kernels::{Float, InstructionSet, add_up};

/// Output channels of a group up to which scalar products along the positions are faster than outer products, whose
/// vectors lie along the output channels.
const FEW: usize = 6;

/// Positions after which the sums leave the registers: what they read in the meantime stays in the first-level cache.
const POSITIONS: usize = 96;

/// The gradient of [`super::forward`] with respect to `w`, given that of `y`.
pub(crate) fn weight_gradient<T: Float>(g: &Geometry, x: &[T], gy: &[T]) -> Vec<T> {
    let g = &g.simplified();
    let planes = g.input_planes();
    let (terms, set) = (g.cin * g.taps(), InstructionSet::selected());
    // Blocks of output channels times parts of the batch make eight tasks or a few more, whatever the number of threads.
    let channels = if g.cout <= FEW { g.cout } else { g.cout.div_ceil(g.cout.div_ceil(128)).next_multiple_of(16) };
    let blocks = g.cout.div_ceil(channels);
    let images = g.batch.div_ceil(8usize.div_ceil(blocks * g.groups.min(4)).next_power_of_two().max(2));
    let (input, output) = (x.len() / g.batch, gy.len() / g.batch);
    let parts: Vec<Vec<T>> = x
        .par_chunks(images * input)
        .zip(gy.par_chunks(images * output))
        .map(|(x, gy)| {
            let mut dw = vec![T::ZERO; g.groups * g.cout * terms];
            dw.par_chunks_mut(g.cout * terms).enumerate().for_each(|(group, dw)| {
                dw.par_chunks_mut(channels * terms).enumerate().for_each(|(block, dw)| {
                    let part = Part { g, planes: &planes, group, first: block * channels, x, gy, dw };
                    set.run(part);
                });
            });
            dw
        })
        .collect();
    add_up(parts)
}

/// The gradient of some output channels' weights from some images, on one thread.
struct Part<'a, T> {
    g: &'a Geometry,
    planes: &'a Planes,
    group: usize,
    /// First output channel inside the group.
    first: usize,
    x: &'a [T],
    gy: &'a [T],
    /// `[channels, terms]`.
    dw: &'a mut [T],
}

impl<T: Float> WithSimd for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.g.cout <= FEW { self.along_positions(simd) } else { self.along_channels(simd) }
    }
}

impl<T: Float> Part<'_, T> {
    fn terms(&self) -> usize {
        self.g.cin * self.g.taps()
    }

    fn images(&self) -> usize {
        self.gy.len() / (self.g.groups * self.g.cout * self.positions())
    }

    fn positions(&self) -> usize {
        self.g.output.0 * self.g.output.1
    }

    /// The gradient of one image and one of this part's channels.
    fn gradient(&self, image: usize, channel: usize) -> &[T] {
        let p = self.positions();
        let channel = self.group * self.g.cout + self.first + channel;
        &self.gy[(image * self.g.groups * self.g.cout + channel) * p..][..p]
    }

    /// Copy the planes of some images.
    fn fill(&self, planes: &mut [T], first: usize, images: usize) {
        let (g, size) = (self.g, self.g.input.0 * self.g.input.1);
        self.planes.fill(planes, images, g.cin, |image, channel| {
            &self.x[(((first + image) * g.groups + self.group) * g.cin + channel) * size..][..size]
        });
    }

    fn offsets(&self, images: usize) -> Vec<usize> {
        let taps = self.g.taps();
        (0..self.terms()).map(|k| self.planes.offset(images, k / taps, k % taps)).collect()
    }

    /// Outer products: a vector holds output channels, and the input is read value by value.
    #[inline(always)]
    fn along_channels<S: Simd>(self, simd: S) {
        let (lanes, terms) = (T::lanes::<S>(), self.terms());
        let channels = self.dw.len() / terms;
        let stacked = self.stacked(channels);
        let mut planes = vec![T::ZERO; self.planes.len(stacked, self.g.cin, 0)];
        let mut transposed = Vec::new();
        let widths: Vec<usize> = panels::<S, T>(channels).collect();
        let mut sums: Vec<Vec<T>> =
            widths.iter().map(|w| vec![T::ZERO; terms.next_multiple_of(reduce_rows::<S>(*w)) * w * lanes]).collect();
        let mut first = 0;
        while first < self.images() {
            let images = stacked.min(self.images() - first);
            if images < stacked {
                planes = vec![T::ZERO; self.planes.len(images, self.g.cin, 0)];
            }
            self.fill(&mut planes, first, images);
            let offsets = self.offsets(images);
            let mut channel = 0;
            for (sums, width) in sums.iter_mut().zip(&widths) {
                let count = (width * lanes).min(channels - channel);
                self.transpose(first, images, channel..channel + count, width * lanes, &mut transposed);
                self.add_outer(simd, *width, &planes, &offsets, images, &transposed, sums);
                channel += count;
            }
            first += images;
        }
        let mut channel = 0;
        for (sums, width) in sums.iter().zip(&widths) {
            let width = width * lanes;
            for c in channel..channels.min(channel + width) {
                for (k, to) in self.dw[c * terms..(c + 1) * terms].iter_mut().enumerate() {
                    *to = sums[k * width + c - channel];
                }
            }
            channel += width;
        }
    }

    /// Images that one pass takes together: small ones share the cost of a block's start and end.
    fn stacked(&self, channels: usize) -> usize {
        let bytes = (self.planes.channel(1) * self.g.cin + self.positions() * channels) * size_of::<T>();
        (512 * 1024 / bytes).min(512usize.div_ceil(self.positions())).clamp(1, self.images())
    }

    /// The gradients of `channels` as `[images · positions, width]`.
    #[inline(always)]
    fn transpose(&self, first: usize, images: usize, channels: std::ops::Range<usize>, width: usize, to: &mut Vec<T>) {
        let p = self.positions();
        to.clear();
        to.resize(images * p * width, T::ZERO);
        let places: Vec<usize> = (0..p).map(|p| p * width).collect();
        for (image, to) in to.chunks_exact_mut(p * width).enumerate() {
            let first_channel = self.group * self.g.cout + self.first + channels.start;
            let planes = &self.gy[((first + image) * self.g.groups * self.g.cout + first_channel) * p..];
            interleave(&planes[..channels.len() * p], p, &places, channels.len(), to);
        }
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn add_outer<S: Simd>(
        &self,
        simd: S,
        vectors: usize,
        planes: &[T],
        offsets: &[usize],
        images: usize,
        gradients: &[T],
        sums: &mut [T],
    ) {
        let (height, width) = self.g.output;
        let (rows, lanes) = (reduce_rows::<S>(vectors), T::lanes::<S>());
        let runs: Vec<Run> = (0..images * height)
            .map(|row| {
                let start = row / height * self.planes.image_size() + row % height * self.planes.pitch;
                Run { start, len: width }
            })
            .collect();
        let columns = vectors * lanes;
        let to: Vec<usize> = (0..rows).map(|i| i * columns).collect();
        let mut block = Vec::with_capacity(rows);
        for (part, runs) in runs.chunks(POSITIONS.div_ceil(width)).enumerate() {
            let b = &gradients[part * POSITIONS.div_ceil(width) * width * columns..];
            let reduction = Reduction { a: planes, a_step: 1, runs, b, b_step: columns, add: true };
            for (offsets, sums) in offsets.chunks(rows).zip(sums.chunks_exact_mut(rows * columns)) {
                // A last block that is not full repeats its first term; nobody reads those sums.
                block.clear();
                block.extend_from_slice(offsets);
                block.resize(rows, offsets[0]);
                // SAFETY: a run lies inside the grid of positions, and `Planes::len` has room for every tap there;
                // `b` has a row for each position; `sums` is a whole block.
                unsafe { reduce(simd, vectors, &reduction, &block, sums.as_mut_ptr(), &to) };
            }
        }
    }

    /// Scalar products: a vector holds positions, zeros of the gradient where the planes have padding.
    #[inline(always)]
    fn along_positions<S: Simd>(self, simd: S) {
        let (lanes, terms) = (T::lanes::<S>(), self.terms());
        let channels = self.dw.len() / terms;
        let stacked = self.stacked(channels);
        let mut planes = vec![T::ZERO; self.planes.len(stacked, self.g.cin, lanes)];
        let mut spread = vec![T::ZERO; (stacked * self.planes.image_size()).next_multiple_of(lanes)];
        let width = self.g.output.1;
        let mut first = 0;
        while first < self.images() {
            let images = stacked.min(self.images() - first);
            if images < stacked {
                planes = vec![T::ZERO; self.planes.len(images, self.g.cin, lanes)];
                spread = vec![T::ZERO; (images * self.planes.image_size()).next_multiple_of(lanes)];
            }
            self.fill(&mut planes, first, images);
            let offsets = self.offsets(images);
            for channel in 0..channels {
                for image in 0..images {
                    let to = &mut spread[image * self.planes.image_size()..];
                    for (y, row) in self.gradient(first + image, channel).chunks_exact(width).enumerate() {
                        to[y * self.planes.pitch..][..width].copy_from_slice(row);
                    }
                }
                let dw = &mut self.dw[channel * terms..(channel + 1) * terms];
                for (offsets, dw) in offsets.chunks(DOTS).zip(dw.chunks_mut(DOTS)) {
                    let (mut block, mut sums) = ([offsets[0]; DOTS], [T::ZERO; DOTS]);
                    block[..offsets.len()].copy_from_slice(offsets);
                    debug_assert!(block.iter().all(|o| o + spread.len() <= planes.len()));
                    // SAFETY: the planes have room for `lanes` elements beyond every tap of every position, and
                    // `spread` is less than that longer than the positions.
                    unsafe { dots(simd, spread.as_ptr(), planes.as_ptr(), &block, spread.len(), &mut sums) };
                    dw.iter_mut().zip(sums).for_each(|(d, s)| *d += s);
                }
            }
            first += images;
        }
    }
}
