//! Convolution as matrix products: forward, data gradient and weight gradient.
//!
//! A transposed convolution is the data gradient of a convolution, and the other way round, so three functions serve
//! both. One-dimensional convolution is the case of height 1.

use rayon::prelude::*;

use super::{Float, Mat, add_up, gemm, uninit};

/// Sizes of a convolution from `[batch, groups · cin, h, w]` to `[batch, groups · cout, oh, ow]` with weights
/// `[groups · cout, cin, kh, kw]`.
#[derive(Debug, Clone, Copy)]
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

impl Geometry {
    /// Rows of the unfolded input of one group.
    fn k(&self) -> usize {
        self.cin * self.kernel.0 * self.kernel.1
    }
    /// Positions of the output.
    fn p(&self) -> usize {
        self.output.0 * self.output.1
    }
    fn input_plane(&self) -> usize {
        self.input.0 * self.input.1
    }
    /// Elements of one input image.
    fn input_image(&self) -> usize {
        self.groups * self.cin * self.input_plane()
    }
    /// Elements of one output image.
    fn output_image(&self) -> usize {
        self.groups * self.cout * self.p()
    }
    /// Whether the unfolded input is the input itself.
    fn is_pointwise(&self) -> bool {
        self.kernel == (1, 1) && self.stride == (1, 1) && self.padding == (0, 0)
    }
    /// How many images share one matrix product: enough columns to fill it, whatever the number of threads.
    fn images_per_product(&self) -> usize {
        256usize.div_ceil(self.p()).min(self.batch.div_ceil(2)).max(1)
    }

    /// The output columns that kernel column `kx` reaches from inside the input, and the input column of the first.
    fn columns(&self, kx: usize) -> (usize, usize, usize) {
        let offset = kx * self.dilation.1;
        let (pad, stride) = (self.padding.1, self.stride.1);
        let hi = if self.input.1 + pad <= offset { 0 } else { (self.input.1 + pad - offset).div_ceil(stride) };
        let hi = hi.min(self.output.1);
        let lo = pad.saturating_sub(offset).div_ceil(stride).min(hi);
        (lo, hi, (lo * stride + offset).saturating_sub(pad))
    }

    /// The input row for output row `oy` and kernel row `ky`, if it lies inside the input.
    fn row(&self, oy: usize, ky: usize) -> Option<usize> {
        let y = (oy * self.stride.0 + ky * self.dilation.0).checked_sub(self.padding.0)?;
        (y < self.input.0).then_some(y)
    }

    /// Unfold `channels` planes of one image into the rows of `col`, `pitch` apart, from column `base` on.
    fn unfold<T: Float>(&self, x: &[T], col: &mut [T], pitch: usize, base: usize) {
        let (kh, kw) = self.kernel;
        let (width, out_width, stride) = (self.input.1, self.output.1, self.stride.1);
        for (c, plane) in x.chunks_exact(self.input_plane()).enumerate() {
            for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                let start = ((c * kh + ky) * kw + kx) * pitch + base;
                let (lo, hi, first) = self.columns(kx);
                for (oy, to) in col[start..start + self.p()].chunks_exact_mut(out_width).enumerate() {
                    let Some(y) = self.row(oy, ky).filter(|_| lo < hi) else {
                        to.fill(T::ZERO);
                        continue;
                    };
                    to[..lo].fill(T::ZERO);
                    to[hi..].fill(T::ZERO);
                    let from = &plane[y * width + first..(y + 1) * width];
                    if stride == 1 {
                        to[lo..hi].copy_from_slice(&from[..hi - lo]);
                    } else {
                        to[lo..hi].iter_mut().zip(from.iter().step_by(stride)).for_each(|(t, f)| *t = *f);
                    }
                }
            }
        }
    }

    /// The transpose of [`Geometry::unfold`]: add the rows of `col` to where they were taken from.
    fn fold<T: Float>(&self, col: &[T], pitch: usize, base: usize, x: &mut [T]) {
        let (kh, kw) = self.kernel;
        let (width, out_width, stride) = (self.input.1, self.output.1, self.stride.1);
        for (c, plane) in x.chunks_exact_mut(self.input_plane()).enumerate() {
            for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                let start = ((c * kh + ky) * kw + kx) * pitch + base;
                let (lo, hi, first) = self.columns(kx);
                if lo >= hi {
                    continue;
                }
                for (oy, from) in col[start..start + self.p()].chunks_exact(out_width).enumerate() {
                    let Some(y) = self.row(oy, ky) else { continue };
                    let to = &mut plane[y * width + first..(y + 1) * width];
                    if stride == 1 {
                        to.iter_mut().zip(&from[lo..hi]).for_each(|(t, f)| *t += *f);
                    } else {
                        to.iter_mut().step_by(stride).zip(&from[lo..hi]).for_each(|(t, f)| *t += *f);
                    }
                }
            }
        }
    }
}

/// `y = x ∗ w (+ bias)`.
pub(crate) fn forward<T: Float>(g: &Geometry, x: &[T], w: &[T], bias: Option<&[T]>) -> Vec<T> {
    let (k, p, n) = (g.k(), g.p(), g.images_per_product());
    let mut y = uninit(g.batch * g.output_image());
    y.par_chunks_mut(n * g.output_image()).zip(x.par_chunks(n * g.input_image())).for_each_init(
        || (Vec::new(), Vec::new()),
        |(col, product), (ys, xs)| {
            let images = ys.len() / g.output_image();
            let pitch = images * p;
            for group in 0..g.groups {
                let weights = Mat::rows(&w[group * g.cout * k..][..g.cout * k], k);
                let inputs =
                    |i: usize| &xs[i * g.input_image() + group * g.cin * g.input_plane()..][..g.cin * g.input_plane()];
                let at = |i: usize| i * g.output_image() + group * g.cout * p;
                if g.is_pointwise() {
                    for i in 0..images {
                        gemm(g.cout, p, k, weights, Mat::rows(inputs(i), p), &mut ys[at(i)..], p, false);
                    }
                    continue;
                }
                if col.is_empty() {
                    *col = uninit(k * n * p);
                }
                for i in 0..images {
                    g.unfold(inputs(i), col, pitch, i * p);
                }
                if images == 1 {
                    gemm(g.cout, p, k, weights, Mat::rows(col, pitch), &mut ys[at(0)..], p, false);
                    continue;
                }
                if product.is_empty() {
                    *product = uninit(g.cout * n * p);
                }
                gemm(g.cout, pitch, k, weights, Mat::rows(col, pitch), product, pitch, false);
                for (c, row) in product.chunks_exact(pitch).take(g.cout).enumerate() {
                    for (i, part) in row.chunks_exact(p).enumerate() {
                        ys[at(i) + c * p..][..p].copy_from_slice(part);
                    }
                }
            }
            if let Some(bias) = bias {
                add_bias(ys, bias, p);
            }
        },
    );
    y
}

fn add_bias<T: Float>(y: &mut [T], bias: &[T], p: usize) {
    for (plane, b) in y.chunks_exact_mut(p).zip(bias.iter().cycle()) {
        plane.iter_mut().for_each(|v| *v += *b);
    }
}

/// Rows of `count` channels of several images side by side: `[count, images · p]`.
fn gather<T: Float>(y: &[T], image: usize, offset: usize, count: usize, p: usize, to: &mut [T]) {
    let images = y.len() / image;
    for (c, row) in to.chunks_exact_mut(images * p).take(count).enumerate() {
        for (i, part) in row.chunks_exact_mut(p).enumerate() {
            part.copy_from_slice(&y[i * image + offset + c * p..][..p]);
        }
    }
}

/// The gradient of [`forward`] with respect to `x`, given that of `y`; with `bias` (one value for each input channel)
/// it is a transposed convolution.
pub(crate) fn data_gradient<T: Float>(g: &Geometry, gy: &[T], w: &[T], bias: Option<&[T]>) -> Vec<T> {
    let (k, p, n) = (g.k(), g.p(), g.images_per_product());
    let mut dx = uninit(g.batch * g.input_image());
    dx.par_chunks_mut(n * g.input_image()).zip(gy.par_chunks(n * g.output_image())).for_each_init(
        || (Vec::new(), Vec::new()),
        |(col, gathered), (dxs, gys)| {
            let images = dxs.len() / g.input_image();
            let pitch = images * p;
            if !g.is_pointwise() {
                dxs.fill(T::ZERO);
            }
            for group in 0..g.groups {
                let weights = Mat::rows(&w[group * g.cout * k..][..g.cout * k], k).t();
                let inputs = g.cin * g.input_plane();
                let to = |i: usize| i * g.input_image() + group * inputs..i * g.input_image() + (group + 1) * inputs;
                let from = |i: usize| &gys[i * g.output_image() + group * g.cout * p..][..g.cout * p];
                if g.is_pointwise() {
                    for i in 0..images {
                        gemm(k, p, g.cout, weights, Mat::rows(from(i), p), &mut dxs[to(i)], p, false);
                    }
                    continue;
                }
                if col.is_empty() {
                    *col = uninit(k * n * p);
                }
                if images == 1 {
                    gemm(k, p, g.cout, weights, Mat::rows(from(0), p), col, p, false);
                } else {
                    if gathered.is_empty() {
                        *gathered = uninit(g.cout * n * p);
                    }
                    gather(gys, g.output_image(), group * g.cout * p, g.cout, p, gathered);
                    gemm(k, pitch, g.cout, weights, Mat::rows(gathered, pitch), col, pitch, false);
                }
                for i in 0..images {
                    g.fold(col, pitch, i * p, &mut dxs[to(i)]);
                }
            }
            if let Some(bias) = bias {
                add_bias(dxs, bias, g.input_plane());
            }
        },
    );
    dx
}

/// The gradient of [`forward`] with respect to `w`, given that of `y`.
pub(crate) fn weight_gradient<T: Float>(g: &Geometry, x: &[T], gy: &[T]) -> Vec<T> {
    let (k, p, n) = (g.k(), g.p(), g.images_per_product());
    let images_per_task = g.batch.div_ceil(8).next_multiple_of(n);
    let parts: Vec<Vec<T>> = x
        .par_chunks(images_per_task * g.input_image())
        .zip(gy.par_chunks(images_per_task * g.output_image()))
        .map(|(xs, gys)| {
            let mut dw = vec![T::ZERO; g.groups * g.cout * k];
            let mut col = if g.is_pointwise() { Vec::new() } else { uninit(k * n * p) };
            let mut gathered = if n == 1 { Vec::new() } else { uninit(g.cout * n * p) };
            let step = if g.is_pointwise() { 1 } else { n };
            for (xs, gys) in xs.chunks(step * g.input_image()).zip(gys.chunks(step * g.output_image())) {
                let images = xs.len() / g.input_image();
                let pitch = images * p;
                for group in 0..g.groups {
                    let inputs = |i: usize| {
                        &xs[i * g.input_image() + group * g.cin * g.input_plane()..][..g.cin * g.input_plane()]
                    };
                    let to = &mut dw[group * g.cout * k..][..g.cout * k];
                    let unfolded = if g.is_pointwise() {
                        inputs(0)
                    } else {
                        for i in 0..images {
                            g.unfold(inputs(i), &mut col, pitch, i * p);
                        }
                        &col
                    };
                    let grad = if images == 1 {
                        &gys[group * g.cout * p..][..g.cout * p]
                    } else {
                        gather(gys, g.output_image(), group * g.cout * p, g.cout, p, &mut gathered);
                        &gathered
                    };
                    gemm(g.cout, k, pitch, Mat::rows(grad, pitch), Mat::rows(unfolded, pitch).t(), to, k, true);
                }
            }
            dw
        })
        .collect();
    add_up(parts)
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
