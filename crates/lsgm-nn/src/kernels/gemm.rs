//! Matrix products on strided slices.
//!
//! The order of summation of an element depends on the sizes alone, not on the number of threads.

use gemm::Parallelism;

use super::Float;

/// A strided matrix inside a slice: element `(i, j)` lies at `i * row + j * col`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) row: usize,
    pub(crate) col: usize,
}

impl<'a, T> Mat<'a, T> {
    /// Rows of length `row` one after another.
    pub(crate) fn rows(data: &'a [T], row: usize) -> Self {
        Self { data, row, col: 1 }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self { data: self.data, row: self.col, col: self.row }
    }
}

/// `c = a · b`, or `c += a · b` with `add`, on this thread; `a` is `m × k`, `b` is `k × n`, and the rows of `c` are
/// `c_row` apart.
#[allow(clippy::too_many_arguments)]
pub(crate) fn gemm<T: Float>(
    m: usize,
    n: usize,
    k: usize,
    a: Mat<'_, T>,
    b: Mat<'_, T>,
    c: &mut [T],
    c_row: usize,
    add: bool,
) {
    multiply(m, n, k, a, b, c, c_row, add, Parallelism::None);
}

/// [`gemm`] on all threads.
#[allow(clippy::too_many_arguments)]
pub(crate) fn parallel_gemm<T: Float>(
    m: usize,
    n: usize,
    k: usize,
    a: Mat<'_, T>,
    b: Mat<'_, T>,
    c: &mut [T],
    c_row: usize,
    add: bool,
) {
    multiply(m, n, k, a, b, c, c_row, add, Parallelism::Rayon(rayon::current_num_threads()));
}

#[allow(clippy::too_many_arguments)]
fn multiply<T: Float>(
    m: usize,
    n: usize,
    k: usize,
    a: Mat<'_, T>,
    b: Mat<'_, T>,
    c: &mut [T],
    c_row: usize,
    add: bool,
    parallelism: Parallelism,
) {
    if m == 0 || n == 0 {
        return;
    }
    let end = |rows: usize, cols: usize, row: usize, col: usize| (rows - 1) * row + (cols - 1) * col;
    assert!(k == 0 || end(m, k, a.row, a.col) < a.data.len(), "left factor out of bounds");
    assert!(k == 0 || end(k, n, b.row, b.col) < b.data.len(), "right factor out of bounds");
    assert!(end(m, n, c_row, 1) < c.len() && (m == 1 || n <= c_row), "product out of bounds");
    // SAFETY: the assertions above keep every element that is read or written inside its slice.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_row as isize,
            add,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}
