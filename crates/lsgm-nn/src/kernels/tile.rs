//! The innermost loops of a convolution: blocks of sums held in registers.
//!
//! They read through pointers, because a bounds check for every load would cost more than the load. Each caller proves
//! the bounds, and debug builds assert them.

use pulp::Simd;

use super::Float;

/// Register blocks of `outer`: rows times vectors. Chosen so that sums, one row of vectors and one broadcast value fill
/// the register file: 16 registers (AVX2), or 32 (AVX-512, NEON).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// For five rows and more.
    Tall,
    /// For three or four rows.
    Square,
    /// For one or two rows.
    Flat,
}

impl Shape {
    /// The shape for a matrix with `rows` rows.
    pub(crate) fn for_rows(rows: usize) -> Self {
        match rows {
            0..=2 => Self::Flat,
            3..=4 => Self::Square,
            _ => Self::Tall,
        }
    }

    /// Rows and vectors of a block.
    pub(crate) fn size<S: Simd>(self) -> (usize, usize) {
        let many = S::REGISTER_COUNT >= 32;
        match (self, many) {
            (Self::Tall, true) => (8, 3),
            (Self::Square, true) => (4, 6),
            (Self::Flat, true) => (2, 8),
            (Self::Tall | Self::Square, false) => (4, 3),
            (Self::Flat, false) => (2, 5),
        }
    }
}

/// Vectors of a block that has `needed` vectors of sums and is else `vectors` wide: one that [`outer`] knows.
pub(crate) fn tail_vectors(needed: usize, vectors: usize) -> usize {
    if needed == 1 { 1 } else { vectors }
}

/// The largest block: rows times vectors times lanes.
pub(crate) const LARGEST: usize = 24 * 16;

/// `c[i, j] = Σ_k a[k, i] · b[offsets[k] + j]` for `rows × vectors · lanes` elements; `a` holds `rows` values for each
/// `k`, and `c` is contiguous.
///
/// # Safety
/// `(rows, vectors)` is a size of [`Shape::size`], or half the rows of one, `vectors` perhaps cut by [`tail_vectors`]; `a` has
/// `rows · offsets.len()` elements, `b` has `vectors · lanes` elements at every offset, `c` has room for the block.
#[inline(always)]
pub(crate) unsafe fn outer<S: Simd, T: Float>(
    simd: S,
    (rows, vectors): (usize, usize),
    a: *const T,
    b: *const T,
    offsets: &[usize],
    c: *mut T,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        match (rows, vectors) {
            (8, 3) => outer_block::<S, T, 8, 3>(simd, a, b, offsets, c),
            (4, 3) => outer_block::<S, T, 4, 3>(simd, a, b, offsets, c),
            (4, 6) => outer_block::<S, T, 4, 6>(simd, a, b, offsets, c),
            (2, 3) => outer_block::<S, T, 2, 3>(simd, a, b, offsets, c),
            (2, 6) => outer_block::<S, T, 2, 6>(simd, a, b, offsets, c),
            (2, 8) => outer_block::<S, T, 2, 8>(simd, a, b, offsets, c),
            (1, 8) => outer_block::<S, T, 1, 8>(simd, a, b, offsets, c),
            (2, 5) => outer_block::<S, T, 2, 5>(simd, a, b, offsets, c),
            (1, 5) => outer_block::<S, T, 1, 5>(simd, a, b, offsets, c),
            (8, 1) => outer_block::<S, T, 8, 1>(simd, a, b, offsets, c),
            (4, 1) => outer_block::<S, T, 4, 1>(simd, a, b, offsets, c),
            (2, 1) => outer_block::<S, T, 2, 1>(simd, a, b, offsets, c),
            (1, 1) => outer_block::<S, T, 1, 1>(simd, a, b, offsets, c),
            _ => unreachable!("no such block"),
        }
    }
}

#[inline(always)]
unsafe fn outer_block<S: Simd, T: Float, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    a: *const T,
    b: *const T,
    offsets: &[usize],
    c: *mut T,
) {
    let lanes = T::lanes::<S>();
    let zero = T::splat(simd, T::ZERO);
    let mut sums = [[zero; VECTORS]; ROWS];
    let mut a = a;
    for &offset in offsets {
        // SAFETY: the caller's contract; `a` moves by `ROWS` for each offset.
        unsafe {
            let row = b.add(offset);
            let mut vectors = [zero; VECTORS];
            for j in 0..VECTORS {
                vectors[j] = row.add(j * lanes).cast::<T::Vector<S>>().read_unaligned();
            }
            for i in 0..ROWS {
                let value = T::splat(simd, *a.add(i));
                for j in 0..VECTORS {
                    sums[i][j] = T::fma(simd, value, vectors[j], sums[i][j]);
                }
            }
            a = a.add(ROWS);
        }
    }
    for (i, row) in sums.iter().enumerate() {
        for (j, sum) in row.iter().enumerate() {
            // SAFETY: `c` has room for `ROWS · VECTORS` vectors.
            unsafe { c.add((i * VECTORS + j) * lanes).cast::<T::Vector<S>>().write_unaligned(*sum) };
        }
    }
}

/// Rows of the block that [`reduce`] and [`gather`] use for `vectors` vectors.
pub(crate) fn reduce_rows<S: Simd>(vectors: usize) -> usize {
    match (S::REGISTER_COUNT >= 32, vectors) {
        (true, 1 | 2) => 12,
        (true, 3) => 8,
        (true, _) => 6,
        (false, 1) => 8,
        (false, 2) => 6,
        (false, _) => 4,
    }
}

/// Numbers of vectors of the panels that hold `channels` channels, as even as possible, for [`reduce`] and [`gather`].
pub(crate) fn panels<S: Simd, T: Float>(channels: usize) -> impl Iterator<Item = usize> {
    let largest = if S::REGISTER_COUNT >= 32 { 4 } else { 3 };
    let vectors = channels.div_ceil(T::lanes::<S>());
    let count = vectors.div_ceil(largest);
    (0..count).map(move |i| vectors * (i + 1) / count - vectors * i / count)
}

/// A run of positions: `len` positions from `start` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// The operands of [`reduce`]: `c[to[i] + j] (+)= Σ_position a[offsets[i] + position · a_step] · b[row + j]`, where the
/// rows of `b`, `b_step` apart, belong to the positions of all runs one after another.
pub(crate) struct Reduction<'a, T> {
    pub(crate) a: &'a [T],
    pub(crate) a_step: usize,
    pub(crate) runs: &'a [Run],
    pub(crate) b: &'a [T],
    pub(crate) b_step: usize,
    /// Whether the sums are added to `c` or replace it.
    pub(crate) add: bool,
}

impl<T> Reduction<'_, T> {
    /// Whether every read of a block of `vectors · lanes` columns stays inside the slices.
    fn reads_inside(&self, offsets: &[usize], columns: usize) -> bool {
        let positions: usize = self.runs.iter().map(|r| r.len).sum();
        let last = self.runs.iter().map(|r| (r.start + r.len - 1) * self.a_step).max().unwrap_or(0);
        offsets.iter().all(|o| o + last < self.a.len())
            && (positions == 0 || (positions - 1) * self.b_step + columns <= self.b.len())
    }
}

/// Compute a block of [`Reduction`]: rows `offsets` (as many as [`reduce_rows`] says) times `vectors` vectors.
///
/// # Safety
/// `a` and `b` reach to every position, and `c` has `vectors · lanes` elements at every place of `to`.
#[inline(always)]
pub(crate) unsafe fn reduce<S: Simd, T: Float>(
    simd: S,
    vectors: usize,
    r: &Reduction<'_, T>,
    offsets: &[usize],
    c: *mut T,
    to: &[usize],
) {
    debug_assert!(r.reads_inside(offsets, vectors * T::lanes::<S>()) && to.len() == offsets.len());
    // SAFETY: passed on to the caller.
    unsafe {
        match (offsets.len(), vectors) {
            (12, 1) => reduce_block::<S, T, 12, 1>(simd, r, offsets, c, to),
            (12, 2) => reduce_block::<S, T, 12, 2>(simd, r, offsets, c, to),
            (8, 3) => reduce_block::<S, T, 8, 3>(simd, r, offsets, c, to),
            (6, 4) => reduce_block::<S, T, 6, 4>(simd, r, offsets, c, to),
            (8, 1) => reduce_block::<S, T, 8, 1>(simd, r, offsets, c, to),
            (6, 2) => reduce_block::<S, T, 6, 2>(simd, r, offsets, c, to),
            (4, 3) => reduce_block::<S, T, 4, 3>(simd, r, offsets, c, to),
            _ => unreachable!("no such block"),
        }
    }
}

#[inline(always)]
unsafe fn reduce_block<S: Simd, T: Float, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    r: &Reduction<'_, T>,
    offsets: &[usize],
    c: *mut T,
    to: &[usize],
) {
    let lanes = T::lanes::<S>();
    let zero = T::splat(simd, T::ZERO);
    let mut sums = [[zero; VECTORS]; ROWS];
    let mut b = r.b.as_ptr();
    for run in r.runs {
        let mut rows = [r.a.as_ptr(); ROWS];
        for i in 0..ROWS {
            rows[i] = rows[i].wrapping_add(offsets[i] + run.start * r.a_step);
        }
        for _ in 0..run.len {
            // SAFETY: the caller's contract; `rows` and `b` move by one position.
            unsafe {
                let mut vectors = [zero; VECTORS];
                for j in 0..VECTORS {
                    vectors[j] = b.add(j * lanes).cast::<T::Vector<S>>().read_unaligned();
                }
                for i in 0..ROWS {
                    let value = T::splat(simd, *rows[i]);
                    for j in 0..VECTORS {
                        sums[i][j] = T::fma(simd, value, vectors[j], sums[i][j]);
                    }
                    rows[i] = rows[i].wrapping_add(r.a_step);
                }
                b = b.wrapping_add(r.b_step);
            }
        }
    }
    for i in 0..ROWS {
        for j in 0..VECTORS {
            // SAFETY: `c` has `VECTORS` vectors at every place of `to`.
            unsafe {
                let to = c.add(to[i] + j * lanes).cast::<T::Vector<S>>();
                let sum = if r.add { T::plus(simd, sums[i][j], to.read_unaligned()) } else { sums[i][j] };
                to.write_unaligned(sum);
            }
        }
    }
}

/// `c[to[i] + j] = Σ_k a[rows[i] + offsets[k]] · b[k · vectors · lanes + j]` for a block of as many rows as
/// [`reduce_rows`] says times `vectors` vectors.
///
/// # Safety
/// `a` reaches to every offset from every row, `b` has a row for each offset, and `c` has `vectors · lanes` elements at
/// every place of `to`.
#[inline(always)]
pub(crate) unsafe fn gather<S: Simd, T: Float>(
    simd: S,
    vectors: usize,
    a: *const T,
    rows: &[usize],
    offsets: &[usize],
    b: *const T,
    c: *mut T,
    to: &[usize],
) {
    // SAFETY: passed on to the caller.
    unsafe {
        match (rows.len(), vectors) {
            (12, 1) => gather_block::<S, T, 12, 1>(simd, a, rows, offsets, b, c, to),
            (12, 2) => gather_block::<S, T, 12, 2>(simd, a, rows, offsets, b, c, to),
            (8, 3) => gather_block::<S, T, 8, 3>(simd, a, rows, offsets, b, c, to),
            (6, 4) => gather_block::<S, T, 6, 4>(simd, a, rows, offsets, b, c, to),
            (8, 1) => gather_block::<S, T, 8, 1>(simd, a, rows, offsets, b, c, to),
            (6, 2) => gather_block::<S, T, 6, 2>(simd, a, rows, offsets, b, c, to),
            (4, 3) => gather_block::<S, T, 4, 3>(simd, a, rows, offsets, b, c, to),
            _ => unreachable!("no such block"),
        }
    }
}

#[inline(always)]
unsafe fn gather_block<S: Simd, T: Float, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    a: *const T,
    rows: &[usize],
    offsets: &[usize],
    b: *const T,
    c: *mut T,
    to: &[usize],
) {
    let lanes = T::lanes::<S>();
    let zero = T::splat(simd, T::ZERO);
    let mut sums = [[zero; VECTORS]; ROWS];
    let mut starts = [a; ROWS];
    for i in 0..ROWS {
        starts[i] = a.wrapping_add(rows[i]);
    }
    let mut b = b;
    for &offset in offsets {
        // SAFETY: the caller's contract; `b` moves by one row for each offset.
        unsafe {
            let mut vectors = [zero; VECTORS];
            for j in 0..VECTORS {
                vectors[j] = b.add(j * lanes).cast::<T::Vector<S>>().read_unaligned();
            }
            for i in 0..ROWS {
                let value = T::splat(simd, *starts[i].add(offset));
                for j in 0..VECTORS {
                    sums[i][j] = T::fma(simd, value, vectors[j], sums[i][j]);
                }
            }
            b = b.wrapping_add(VECTORS * lanes);
        }
    }
    for i in 0..ROWS {
        for j in 0..VECTORS {
            // SAFETY: `c` has `VECTORS` vectors at every place of `to`.
            unsafe { c.add(to[i] + j * lanes).cast::<T::Vector<S>>().write_unaligned(sums[i][j]) };
        }
    }
}

/// Offsets that [`dots`] takes at once.
pub(crate) const DOTS: usize = 8;

/// `c[i] += Σ_q a[q] · b[offsets[i] + q]` for `q` in `0..len`, a multiple of the lanes, and [`DOTS`] offsets.
///
/// # Safety
/// `a` has `len` elements, and `b` has `len` elements at every offset.
#[inline(always)]
pub(crate) unsafe fn dots<S: Simd, T: Float>(
    simd: S,
    a: *const T,
    b: *const T,
    offsets: &[usize; DOTS],
    len: usize,
    c: &mut [T; DOTS],
) {
    let zero = T::splat(simd, T::ZERO);
    let mut sums = [zero; DOTS];
    let mut q = 0;
    while q < len {
        // SAFETY: `q + lanes <= len`, since `len` is a multiple of the lanes.
        unsafe {
            let value = a.add(q).cast::<T::Vector<S>>().read_unaligned();
            for i in 0..DOTS {
                let other = b.add(offsets[i] + q).cast::<T::Vector<S>>().read_unaligned();
                sums[i] = T::fma(simd, value, other, sums[i]);
            }
        }
        q += T::lanes::<S>();
    }
    for i in 0..DOTS {
        c[i] += T::total(simd, sums[i]);
    }
}
