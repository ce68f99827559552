//! Convolutions whose windows are far apart: every window is written out as a row, and the rest are products of matrices.

use rayon::prelude::*;

use super::Geometry;
use crate::kernels::transpose::{deinterleave, interleave};
use crate::kernels::{Float, Mat, parallel_gemm, uninit};

/// Positions from one window to the next from which on this pays: a correlation would need a plane, or a grid, for each.
const FAR: usize = 8;

/// The windows of a convolution.
#[derive(Clone, Copy)]
pub(super) struct Windows<'a>(&'a Geometry);

impl<'a> Windows<'a> {
    /// Where they are far apart and lie in one piece.
    pub(super) fn of(g: &'a Geometry) -> Option<Self> {
        (g.groups == 1 && g.dilation == (1, 1) && g.stride.0 * g.stride.1 >= FAR).then_some(Self(g))
    }

    /// Windows of an image.
    fn count(self) -> usize {
        self.0.output.0 * self.0.output.1
    }

    /// Elements of a window.
    fn width(self) -> usize {
        self.0.cin * self.0.taps()
    }

    /// Elements of an image.
    fn image(self) -> usize {
        self.0.cin * self.0.input.0 * self.0.input.1
    }

    fn rows(self) -> usize {
        self.0.batch * self.count()
    }

    /// The parts of a window that lie side by side inside the image: `f(place in the window, place in the image, length)`.
    fn runs(self, window: usize, mut f: impl FnMut(usize, usize, usize)) {
        let g = self.0;
        let start = |i: usize, stride: usize, padding: usize| (i * stride) as isize - padding as isize;
        let top = start(window / g.output.1, g.stride.0, g.padding.0);
        let left = start(window % g.output.1, g.stride.1, g.padding.1);
        let inside = |start: isize, kernel: usize, size: usize| {
            (0.max(-start) as usize).min(kernel)..(size as isize - start).clamp(0, kernel as isize) as usize
        };
        let (rows, columns) = (inside(top, g.kernel.0, g.input.0), inside(left, g.kernel.1, g.input.1));
        if columns.is_empty() {
            return;
        }
        for channel in 0..g.cin {
            for row in rows.clone() {
                let y = channel * g.input.0 + (top + row as isize) as usize;
                let x = (left + columns.start as isize) as usize;
                let place = (channel * g.kernel.0 + row) * g.kernel.1 + columns.start;
                f(place, y * g.input.1 + x, columns.len());
            }
        }
    }

    /// The windows of images `x`: `[batch · count, width]`.
    fn gather<T: Float>(self, x: &[T]) -> Vec<T> {
        let mut windows = vec![T::ZERO; self.rows() * self.width()];
        windows.par_chunks_mut(self.count() * self.width()).zip(x.par_chunks(self.image())).for_each(|(windows, x)| {
            for (i, window) in windows.chunks_exact_mut(self.width()).enumerate() {
                self.runs(i, |to, from, len| window[to..to + len].copy_from_slice(&x[from..from + len]));
            }
        });
        windows
    }

    /// Images that are sums of windows, and of `bias` where there is one.
    fn scatter<T: Float>(self, windows: &[T], bias: Option<&[T]>) -> Vec<T> {
        let mut x = vec![T::ZERO; self.0.batch * self.image()];
        x.par_chunks_mut(self.image()).zip(windows.par_chunks(self.count() * self.width())).for_each(|(x, windows)| {
            if let Some(bias) = bias {
                x.chunks_exact_mut(self.image() / self.0.cin).zip(bias).for_each(|(x, bias)| x.fill(*bias));
            }
            for (i, window) in windows.chunks_exact(self.width()).enumerate() {
                self.runs(i, |from, to, len| {
                    x[to..to + len].iter_mut().zip(&window[from..from + len]).for_each(|(x, w)| *x += *w);
                });
            }
        });
        x
    }

    /// `[batch, cout, count]` as `[batch · count, cout]`.
    fn by_window<T: Float>(self, y: &[T]) -> Vec<T> {
        let (count, outputs) = (self.count(), self.0.cout);
        let places: Vec<usize> = (0..count).map(|p| p * outputs).collect();
        let mut rows = uninit(y.len());
        rows.par_chunks_mut(count * outputs)
            .zip(y.par_chunks(count * outputs))
            .for_each(|(rows, y)| interleave(y, count, &places, outputs, rows));
        rows
    }

    /// The other way round, and `bias` for each channel added.
    fn by_channel<T: Float>(self, rows: &[T], bias: Option<&[T]>) -> Vec<T> {
        let (count, outputs) = (self.count(), self.0.cout);
        let places: Vec<usize> = (0..count).map(|p| p * outputs).collect();
        let bias = bias.map_or_else(|| vec![T::ZERO; outputs], <[T]>::to_vec);
        let mut y = uninit(rows.len());
        y.par_chunks_mut(count * outputs)
            .zip(rows.par_chunks(count * outputs))
            .for_each(|(y, rows)| deinterleave(rows, &places, count, &bias, y));
        y
    }

    /// [`super::forward`].
    pub(super) fn forward<T: Float>(self, x: &[T], w: &[T], bias: Option<&[T]>) -> Vec<T> {
        let (rows, outputs, width) = (self.rows(), self.0.cout, self.width());
        let windows = self.gather(x);
        let mut y = uninit(rows * outputs);
        let (windows, w) = (Mat::rows(&windows, width), Mat::rows(w, width).t());
        parallel_gemm(rows, outputs, width, windows, w, &mut y, outputs, false);
        self.by_channel(&y, bias)
    }

    /// [`super::data_gradient`].
    pub(super) fn data_gradient<T: Float>(self, gy: &[T], w: &[T], bias: Option<&[T]>) -> Vec<T> {
        let (rows, outputs, width) = (self.rows(), self.0.cout, self.width());
        let gy = self.by_window(gy);
        let mut windows = uninit(rows * width);
        parallel_gemm(rows, width, outputs, Mat::rows(&gy, outputs), Mat::rows(w, width), &mut windows, width, false);
        self.scatter(&windows, bias)
    }

    /// [`super::weight_gradient`].
    pub(super) fn weight_gradient<T: Float>(self, x: &[T], gy: &[T]) -> Vec<T> {
        let (rows, outputs, width) = (self.rows(), self.0.cout, self.width());
        let (windows, gy) = (self.gather(x), self.by_window(gy));
        let mut dw = uninit(outputs * width);
        let (gy, windows) = (Mat::rows(&gy, outputs).t(), Mat::rows(&windows, width));
        parallel_gemm(outputs, width, rows, gy, windows, &mut dw, width, false);
        dw
    }
}
