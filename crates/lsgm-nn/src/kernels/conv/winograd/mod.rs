//! Convolution with 3×3 kernels at stride 1 by tiles of 4×4 outputs: 36 matrix products over the channels with a
//! quarter of the multiplications.
//!
//! Vectors hold channels. A tile's 36 values are spread over 36 matrices `[tiles, channels]`, so that one routine
//! ([`reduce`]) multiplies in all three passes without transposing anything.
//!
//! A NaN or an infinity in the input reaches every output of the tiles that read it.

mod transform;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use self::transform::{Input, Output, OutputTransposed, Weight, WeightTransposed, both};
use super::Geometry;
use crate::kernels::tile::{Reduction, Run, panels, reduce, reduce_rows};
use crate::kernels::transpose::{deinterleave, interleave};
use crate::kernels::{Float, InstructionSet, add_up, uninit};

/// Outputs of a tile along an axis.
const OUT: usize = 4;
/// Inputs of a tile along an axis.
const IN: usize = 6;
/// Matrices.
const PARTS: usize = IN * IN;
/// The largest register, in elements.
const LANES: usize = 16;
/// Tiles that a task takes together: rows of its matrix products.
const TILES: usize = 64;

/// A 3×3 convolution at stride 1 from `cin` to `cout` channels in each group, or the data gradient of one.
pub(super) struct Problem {
    batch: usize,
    groups: usize,
    cin: usize,
    cout: usize,
    input: (usize, usize),
    output: (usize, usize),
    padding: (usize, usize),
    /// Whether input and output of the weights are exchanged and the taps reversed.
    transposed: bool,
}

impl Problem {
    /// The forward pass of a convolution, if it is one of this kind and large enough to gain.
    pub(super) fn forward(g: &Geometry) -> Option<Self> {
        if g.kernel != (3, 3) || g.stride != (1, 1) || g.dilation != (1, 1) || g.padding.0 > 2 || g.padding.1 > 2 {
            return None;
        }
        let problem = Self {
            batch: g.batch,
            groups: g.groups,
            cin: g.cin,
            cout: g.cout,
            input: g.input,
            output: g.output,
            padding: g.padding,
            transposed: false,
        };
        problem.gains().then_some(problem)
    }

    /// The data gradient of a convolution: a convolution of the output's gradient with the reversed kernel.
    pub(super) fn data_gradient(g: &Geometry) -> Option<Self> {
        let forward = Self::forward(g)?;
        Some(Self {
            cin: forward.cout,
            cout: forward.cin,
            input: forward.output,
            output: forward.input,
            padding: (2 - forward.padding.0, 2 - forward.padding.1),
            transposed: true,
            ..forward
        })
    }

    /// Whether fewer multiplications are worth the transforms (in cycles of a machine with two 16-lane units).
    fn gains(&self) -> bool {
        let (cin, cout) = (self.cin as f64, self.cout as f64);
        let (wide_in, wide_out) = (self.cin.next_multiple_of(LANES) as f64, self.cout.next_multiple_of(LANES) as f64);
        let tiles = (self.batch * self.tiles()) as f64;
        let positions = (self.batch * self.output.0 * (self.output.1 + 1)) as f64;
        let here = tiles * (PARTS as f64 / 32.0 * cin * wide_out + 45.0 * (wide_in + wide_out)) + 12.0 * cin * cout;
        here < 0.9 * positions * 9.0 / 32.0 * cin * cout
    }

    fn grid(&self) -> (usize, usize) {
        (self.output.0.div_ceil(OUT), self.output.1.div_ceil(OUT))
    }

    /// Tiles of an image.
    fn tiles(&self) -> usize {
        self.grid().0 * self.grid().1
    }

    /// Where the weights from input channel `c` to output channel `o` start.
    fn kernel_at(&self, o: usize, c: usize) -> usize {
        if self.transposed { (c * self.cout + o) * 9 } else { (o * self.cin + c) * 9 }
    }

    /// Images of a task: enough tiles for a good product, and at least two tasks, whatever the number of threads.
    fn images(&self) -> usize {
        TILES.div_ceil(self.tiles()).min(self.batch.div_ceil(2)).max(1)
    }

    /// The correlation of `x` with `w`, plus `bias`.
    pub(super) fn run<T: Float>(&self, x: &[T], w: &[T], bias: Option<&[T]>) -> Vec<T> {
        let set = InstructionSet::selected();
        let weights = transform_weights(set, self, w);
        let (read, written) = (x.len() / self.batch, self.groups * self.cout * self.output.0 * self.output.1);
        let mut y = uninit(self.batch * written);
        y.par_chunks_mut(self.images() * written).zip(x.par_chunks(self.images() * read)).for_each(|(y, x)| {
            set.run(Task { problem: self, images: x.len() / read, x, weights: &weights, bias, y });
        });
        y
    }

    /// The gradient with respect to the weights of the forward pass.
    pub(super) fn weight_gradient<T: Float>(&self, x: &[T], gy: &[T]) -> Vec<T> {
        let set = InstructionSet::selected();
        let (read, written) = (x.len() / self.batch, gy.len() / self.batch);
        // The transform of a part's result costs the more the more weights there are.
        let parts = (32 * 1024 / (self.cin * self.cout)).clamp(2, 8);
        let images = self.batch.div_ceil(parts);
        let parts: Vec<Vec<T>> = x
            .par_chunks(images * read)
            .zip(gy.par_chunks(images * written))
            .map(|(x, gy)| set.run(Gradient { problem: self, images: x.len() / read, x, gy }))
            .collect();
        add_up(parts)
    }
}

/// Matrices `[rows, columns]`, one for each of the 36 values of a tile.
struct Matrices<T> {
    data: Vec<T>,
    columns: usize,
    /// From one matrix to the next: odd in cache lines, so that a tile's values do not share a cache set.
    step: usize,
}

impl<T: Float> Matrices<T> {
    fn new<S: Simd>(rows: usize, channels: usize) -> Self {
        let columns = channels.next_multiple_of(T::lanes::<S>());
        let step = rows * columns + LANES;
        Self { data: uninit(PARTS * step), columns, step }
    }

    #[inline(always)]
    fn store<S: Simd, const N: usize>(&mut self, row: usize, column: usize, values: &[[T::Vector<S>; N]; N]) {
        for (part, v) in values.iter().flatten().enumerate() {
            T::write::<S>(&mut self.data[part * self.step + row * self.columns + column..], *v);
        }
    }
}

/// Planes of some channels with the channels next to each other: `[rows, columns, lanes]`, zero outside the image.
struct Block<T> {
    data: Vec<T>,
    columns: usize,
    lanes: usize,
    /// Size of the image's planes, and where each of its positions lies.
    plane: usize,
    places: Vec<usize>,
}

impl<T: Float> Block<T> {
    /// A block of `rows × columns` for images of size `image`, whose first element is to lie at `at`.
    fn new(lanes: usize, (rows, columns): (usize, usize), image: (usize, usize), at: (usize, usize)) -> Self {
        let place = |y: usize, x: usize| ((y + at.0) * columns + x + at.1) * lanes;
        let places = (0..image.0).flat_map(|y| (0..image.1).map(move |x| place(y, x))).collect();
        Self { data: vec![T::ZERO; rows * columns * lanes], columns, lanes, plane: image.0 * image.1, places }
    }

    /// Copy planes, at most as many as there are lanes; the other lanes become zero.
    #[inline(always)]
    fn fill(&mut self, planes: &[T]) {
        interleave(planes, self.plane, &self.places, self.lanes, &mut self.data);
    }

    /// The planes, plus a value for each.
    #[inline(always)]
    fn empty(&self, planes: &mut [T], bias: &[T]) {
        deinterleave(&self.data, &self.places, self.plane, bias, planes);
    }

    /// The `N × N` vectors of the tile whose first element is at `at`.
    #[inline(always)]
    fn tile<S: Simd, const N: usize>(&self, simd: S, at: (usize, usize)) -> [[T::Vector<S>; N]; N] {
        let mut tile = [[T::splat(simd, T::ZERO); N]; N];
        for (i, row) in tile.iter_mut().enumerate() {
            let from = &self.data[((at.0 + i) * self.columns + at.1) * self.lanes..][..N * self.lanes];
            for (j, v) in row.iter_mut().enumerate() {
                *v = T::read::<S>(&from[j * self.lanes..]);
            }
        }
        tile
    }
}

/// The panels of the transformed weights of each group, each `[36, cin, columns]`.
fn transform_weights<T: Float>(set: InstructionSet, p: &Problem, w: &[T]) -> Vec<Vec<T>> {
    let panels = set.run(Columns(p.cout, T::ZERO));
    let count = panels.len();
    (0..p.groups * count)
        .into_par_iter()
        .map(|i| {
            let w = &w[i / count * p.cin * p.cout * 9..][..p.cin * p.cout * 9];
            set.run(WeightPanel { problem: p, w, columns: panels[i % count].clone() })
        })
        .collect()
}

/// The columns of every panel for so many channels.
struct Columns<T>(usize, T);

impl<T: Float> WithSimd for Columns<T> {
    type Output = Vec<std::ops::Range<usize>>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        let mut first = 0;
        let range = |width: usize| {
            let start = first;
            first += width * T::lanes::<S>();
            start..first
        };
        panels::<S, T>(self.0).map(range).collect()
    }
}

/// One panel of the transformed weights.
struct WeightPanel<'a, T> {
    problem: &'a Problem,
    w: &'a [T],
    columns: std::ops::Range<usize>,
}

impl<T: Float> WithSimd for WeightPanel<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<T> {
        let (p, lanes, width) = (self.problem, T::lanes::<S>(), self.columns.len());
        let zero = T::splat(simd, T::ZERO);
        let mut panel = uninit(PARTS * p.cin * width);
        for c in 0..p.cin {
            for first in self.columns.clone().step_by(lanes) {
                let mut taps = [[T::ZERO; LANES]; 9];
                for lane in 0..lanes.min(p.cout.saturating_sub(first)) {
                    let kernel = &self.w[p.kernel_at(first + lane, c)..][..9];
                    for tap in 0..9 {
                        taps[if p.transposed { 8 - tap } else { tap }][lane] = kernel[tap];
                    }
                }
                let mut kernel = [[zero; 3]; 3];
                for (k, v) in kernel.iter_mut().flatten().zip(&taps) {
                    *k = T::read::<S>(v);
                }
                let transformed = both::<Weight, S, T, _, _>(simd, kernel);
                for (part, v) in transformed.iter().flatten().enumerate() {
                    T::write::<S>(&mut panel[(part * p.cin + c) * width + first - self.columns.start..], *v);
                }
            }
        }
        panel
    }
}

/// The transformed input of some images: `[tiles, cin]` matrices.
#[inline(always)]
fn transform_input<S: Simd, T: Float>(
    simd: S,
    p: &Problem,
    group: usize,
    images: std::ops::Range<usize>,
    x: &[T],
) -> Matrices<T> {
    let (lanes, (rows, columns)) = (T::lanes::<S>(), p.grid());
    let plane = p.input.0 * p.input.1;
    let mut matrices = Matrices::new::<S>(images.len() * p.tiles(), p.cin);
    let size = ((rows * OUT + 2).max(p.input.0 + p.padding.0), (columns * OUT + 2).max(p.input.1 + p.padding.1));
    let mut block = Block::new(lanes, size, p.input, p.padding);
    for (i, image) in images.enumerate() {
        let x = &x[(image * p.groups + group) * p.cin * plane..][..p.cin * plane];
        for (b, planes) in x.chunks(lanes * plane).enumerate() {
            block.fill(planes);
            for ty in 0..rows {
                for tx in 0..columns {
                    let tile = block.tile::<S, IN>(simd, (ty * OUT, tx * OUT));
                    let values = both::<Input, S, T, _, _>(simd, tile);
                    matrices.store::<S, IN>(i * p.tiles() + ty * columns + tx, b * lanes, &values);
                }
            }
        }
    }
    matrices
}

/// The correlation of a few images on one thread.
struct Task<'a, T> {
    problem: &'a Problem,
    images: usize,
    x: &'a [T],
    weights: &'a [Vec<T>],
    bias: Option<&'a [T]>,
    y: &'a mut [T],
}

impl<T: Float> WithSimd for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let p = self.problem;
        let panels = self.weights.len() / p.groups;
        for group in 0..p.groups {
            let values = transform_input::<S, T>(simd, p, group, 0..self.images, self.x);
            let products = multiply::<S, T>(simd, p, &values, &self.weights[group * panels..][..panels], self.images);
            drop(values);
            let bias = self.bias.map_or_else(|| vec![T::ZERO; p.cout], |b| b[group * p.cout..][..p.cout].to_vec());
            transform_output::<S, T>(simd, p, group, &products, &bias, self.y);
        }
    }
}

/// `[tiles, cin] · [cin, cout]` for each of the 36 parts.
#[inline(always)]
fn multiply<S: Simd, T: Float>(
    simd: S,
    p: &Problem,
    values: &Matrices<T>,
    weights: &[Vec<T>],
    images: usize,
) -> Matrices<T> {
    let (lanes, tiles) = (T::lanes::<S>(), images * p.tiles());
    let mut products = Matrices::new::<S>(tiles, p.cout);
    let columns = products.columns;
    let runs = [Run { start: 0, len: p.cin }];
    let (mut offsets, mut to) = (Vec::new(), Vec::new());
    for part in 0..PARTS {
        let a = &values.data[part * values.step..(part + 1) * values.step];
        let mut first = 0;
        for panel in weights {
            let width = panel.len() / (PARTS * p.cin);
            let b = &panel[part * p.cin * width..(part + 1) * p.cin * width];
            let reduction = Reduction { a, a_step: 1, runs: &runs, b, b_step: width, add: false };
            let rows = reduce_rows::<S>(width / lanes);
            for start in (0..tiles).step_by(rows) {
                // A last block that is not full computes its last row again.
                offsets.clear();
                offsets.extend((start..start + rows).map(|row| row.min(tiles - 1) * values.columns));
                to.clear();
                to.extend((start..start + rows).map(|row| row.min(tiles - 1) * columns + first));
                let c = &mut products.data[part * products.step..(part + 1) * products.step];
                // SAFETY: row `row` of `a` has `cin` elements, the panel has a row for each of them, and the product's
                // row has room for the panel's columns, `first + width <= columns`.
                unsafe { reduce(simd, width / lanes, &reduction, &offsets, c.as_mut_ptr(), &to) };
            }
            first += width;
        }
    }
    products
}

/// The 4×4 outputs of each tile, with `bias`, to the planes of one group of `y`.
#[inline(always)]
fn transform_output<S: Simd, T: Float>(
    simd: S,
    p: &Problem,
    group: usize,
    products: &Matrices<T>,
    bias: &[T],
    y: &mut [T],
) {
    let (lanes, zero, (rows, columns)) = (T::lanes::<S>(), T::splat(simd, T::ZERO), p.grid());
    let plane = p.output.0 * p.output.1;
    let mut block = Block::new(lanes, (rows * OUT, columns * OUT), p.output, (0, 0));
    for (image, y) in y.chunks_exact_mut(p.groups * p.cout * plane).enumerate() {
        let y = &mut y[group * p.cout * plane..][..p.cout * plane];
        for (b, planes) in y.chunks_mut(lanes * plane).enumerate() {
            for ty in 0..rows {
                for tx in 0..columns {
                    let row = image * p.tiles() + ty * columns + tx;
                    let mut tile = [[zero; IN]; IN];
                    for (part, v) in tile.iter_mut().flatten().enumerate() {
                        *v = T::read::<S>(&products.data[part * products.step + row * products.columns + b * lanes..]);
                    }
                    let tile = both::<Output, S, T, _, _>(simd, tile);
                    for (i, row) in tile.iter().enumerate() {
                        let to = ((ty * OUT + i) * block.columns + tx * OUT) * lanes;
                        for (j, v) in row.iter().enumerate() {
                            T::write::<S>(&mut block.data[to + j * lanes..], *v);
                        }
                    }
                }
            }
            block.empty(planes, &bias[b * lanes..]);
        }
    }
}

/// The gradient of the weights from some images, on one thread.
struct Gradient<'a, T> {
    problem: &'a Problem,
    images: usize,
    x: &'a [T],
    gy: &'a [T],
}

impl<T: Float> WithSimd for Gradient<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<T> {
        let p = self.problem;
        let mut dw = uninit(p.groups * p.cout * p.cin * 9);
        for (group, dw) in dw.chunks_exact_mut(p.cout * p.cin * 9).enumerate() {
            // The gradients of the 36 matrices of weights, `[cin, cout]`.
            // A last block of rows that is not full writes rows that nobody reads.
            let mut sums = Matrices::<T>::new::<S>(p.cin + reduce_rows::<S>(1), p.cout);
            let mut first = 0;
            while first < self.images {
                let images = first..self.images.min(first + p.images());
                let values = transform_input::<S, T>(simd, p, group, images.clone(), self.x);
                let gradients = transform_gradient::<S, T>(simd, p, group, images.clone(), self.gy);
                add_products::<S, T>(simd, p, &values, &gradients, images.len() * p.tiles(), first > 0, &mut sums);
                first = images.end;
            }
            transform_sums::<S, T>(simd, p, &sums, dw);
        }
        dw
    }
}

/// The gradient of the products, from that of the output: `[tiles, cout]` matrices.
#[inline(always)]
fn transform_gradient<S: Simd, T: Float>(
    simd: S,
    p: &Problem,
    group: usize,
    images: std::ops::Range<usize>,
    gy: &[T],
) -> Matrices<T> {
    let (lanes, (rows, columns)) = (T::lanes::<S>(), p.grid());
    let plane = p.output.0 * p.output.1;
    let mut matrices = Matrices::new::<S>(images.len() * p.tiles(), p.cout);
    let mut block = Block::new(lanes, (rows * OUT, columns * OUT), p.output, (0, 0));
    for (i, image) in images.enumerate() {
        let gy = &gy[(image * p.groups + group) * p.cout * plane..][..p.cout * plane];
        for (b, planes) in gy.chunks(lanes * plane).enumerate() {
            block.fill(planes);
            for ty in 0..rows {
                for tx in 0..columns {
                    let tile = block.tile::<S, OUT>(simd, (ty * OUT, tx * OUT));
                    let values = both::<OutputTransposed, S, T, _, _>(simd, tile);
                    matrices.store::<S, IN>(i * p.tiles() + ty * columns + tx, b * lanes, &values);
                }
            }
        }
    }
    matrices
}

/// `sums (+)= valuesᵀ · gradients` for each of the 36 parts.
#[inline(always)]
fn add_products<S: Simd, T: Float>(
    simd: S,
    p: &Problem,
    values: &Matrices<T>,
    gradients: &Matrices<T>,
    tiles: usize,
    add: bool,
    sums: &mut Matrices<T>,
) {
    let lanes = T::lanes::<S>();
    let runs = [Run { start: 0, len: tiles }];
    let (mut offsets, mut to) = (Vec::new(), Vec::new());
    for part in 0..PARTS {
        let a = &values.data[part * values.step..(part + 1) * values.step];
        let mut first = 0;
        for width in panels::<S, T>(p.cout) {
            let b = &gradients.data[part * gradients.step + first..(part + 1) * gradients.step];
            let (a_step, b_step) = (values.columns, gradients.columns);
            let reduction = Reduction { a, a_step, runs: &runs, b, b_step, add };
            let rows = reduce_rows::<S>(width);
            for start in (0..p.cin).step_by(rows) {
                offsets.clear();
                offsets.extend((start..start + rows).map(|c| c.min(p.cin - 1)));
                to.clear();
                to.extend((start..start + rows).map(|c| c * sums.columns + first));
                let c = &mut sums.data[part * sums.step..(part + 1) * sums.step];
                // SAFETY: column `c` of `a` has `tiles` elements, `b` has a row for each, and `sums` has rows for
                // the input channels and the rest of a block.
                unsafe { reduce(simd, width, &reduction, &offsets, c.as_mut_ptr(), &to) };
            }
            first += width * lanes;
        }
    }
}

/// The gradient of the 3×3 weights `[cout, cin, 3, 3]` from that of their transforms.
#[inline(always)]
fn transform_sums<S: Simd, T: Float>(simd: S, p: &Problem, sums: &Matrices<T>, dw: &mut [T]) {
    let (lanes, zero) = (T::lanes::<S>(), T::splat(simd, T::ZERO));
    let mut taps = [T::ZERO; LANES];
    for c in 0..p.cin {
        for first in (0..p.cout).step_by(lanes) {
            let mut values = [[zero; IN]; IN];
            for (part, v) in values.iter_mut().flatten().enumerate() {
                *v = T::read::<S>(&sums.data[part * sums.step + c * sums.columns + first..]);
            }
            let kernel = both::<WeightTransposed, S, T, _, _>(simd, values);
            for (tap, v) in kernel.iter().flatten().enumerate() {
                T::write::<S>(&mut taps, *v);
                for (lane, v) in taps.iter().enumerate().take(lanes.min(p.cout - first)) {
                    dw[((first + lane) * p.cin + c) * 9 + tap] = *v;
                }
            }
        }
    }
}
