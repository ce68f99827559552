//! Registers as types: for loops whose layout in registers must not be left to the compiler.

use pulp::Simd;

/// Arithmetic on registers of an element type.
pub(crate) trait Vectors: Copy {
    /// A register of an instruction set.
    type Vector<S: Simd>: Copy;

    /// Elements of a register.
    fn lanes<S: Simd>() -> usize {
        size_of::<Self::Vector<S>>() / size_of::<Self>()
    }

    /// Every lane `x`.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// `a · b + c` in every lane, fused where the instruction set can: elsewhere the fused form is a slow call.
    fn fma<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    /// `a + b` in every lane.
    fn plus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a · b` in every lane.
    fn times<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a − b` in every lane.
    fn minus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// The larger of `a` and `b` in every lane.
    fn larger_of<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// The largest lane.
    fn largest<S: Simd>(simd: S, v: Self::Vector<S>) -> Self;
    /// The sum of the lanes.
    fn total<S: Simd>(simd: S, v: Self::Vector<S>) -> Self;

    /// The first elements of `from` as a register.
    #[inline(always)]
    fn read<S: Simd>(from: &[Self]) -> Self::Vector<S> {
        assert!(Self::lanes::<S>() <= from.len());
        // SAFETY: the slice is long enough, and any bits are a vector.
        unsafe { from.as_ptr().cast::<Self::Vector<S>>().read_unaligned() }
    }

    /// Store a register to the first elements of `to`.
    #[inline(always)]
    fn write<S: Simd>(to: &mut [Self], v: Self::Vector<S>) {
        assert!(Self::lanes::<S>() <= to.len());
        // SAFETY: the slice is long enough.
        unsafe { to.as_mut_ptr().cast::<Self::Vector<S>>().write_unaligned(v) }
    }
}

macro_rules! vectors {
    ($t:ty, $vector:ident, $splat:ident, $fma:ident, $plus:ident, $times:ident, $minus:ident, $max:ident, $largest:ident,
     $total:ident) => {
        impl Vectors for $t {
            type Vector<S: Simd> = S::$vector;
            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: Self) -> S::$vector {
                simd.$splat(x)
            }
            #[inline(always)]
            fn fma<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$fma(a, b, c)
            }
            #[inline(always)]
            fn plus<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$plus(a, b)
            }
            #[inline(always)]
            fn times<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$times(a, b)
            }
            #[inline(always)]
            fn minus<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$minus(a, b)
            }
            #[inline(always)]
            fn larger_of<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$max(a, b)
            }
            #[inline(always)]
            fn largest<S: Simd>(simd: S, v: S::$vector) -> Self {
                simd.$largest(v)
            }
            #[inline(always)]
            fn total<S: Simd>(simd: S, v: S::$vector) -> Self {
                simd.$total(v)
            }
        }
    };
}

vectors!(
    f32,
    f32s,
    splat_f32s,
    mul_add_e_f32s,
    add_f32s,
    mul_f32s,
    sub_f32s,
    max_f32s,
    reduce_max_f32s,
    reduce_sum_f32s
);
vectors!(
    f64,
    f64s,
    splat_f64s,
    mul_add_e_f64s,
    add_f64s,
    mul_f64s,
    sub_f64s,
    max_f64s,
    reduce_max_f64s,
    reduce_sum_f64s
);
