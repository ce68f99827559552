//! One source for every instruction set.
//!
//! A kernel is plain Rust in a form that the compiler vectorises. [`dispatch!`] compiles it for AVX-512, for AVX2 with
//! FMA, and for the target's baseline (SSE2, NEON or scalar code), and picks the best one at run time.

use pulp::{Scalar, Simd};

use super::{Float, Vectors};

/// The instruction set that a function is compiled for.
pub(crate) trait Isa {
    /// Its registers.
    type Registers: Simd;

    /// Whether it has a fused multiply-add: the portable fused form is slow.
    const FUSED: bool;

    /// The right to use its registers.
    ///
    /// # Safety
    /// The CPU must have the instruction set.
    unsafe fn registers() -> Self::Registers;

    /// `a · b + c`, fused where that is fast.
    #[inline(always)]
    fn fma<T: Float>(a: T, b: T, c: T) -> T {
        if Self::FUSED { a.fused(b, c) } else { a * b + c }
    }
}

macro_rules! instruction_sets {
    ($($(#[$attribute:meta])* $name:ident = $registers:ty;)*) => { $(
        $(#[$attribute])*
        pub(crate) struct $name;

        $(#[$attribute])*
        impl Isa for $name {
            type Registers = $registers;
            const FUSED: bool = true;

            #[inline(always)]
            unsafe fn registers() -> $registers {
                // SAFETY: passed on to the caller.
                unsafe { <$registers>::new_unchecked() }
            }
        }
    )* };
}

instruction_sets! {
    #[cfg(target_arch = "x86_64")] Avx512 = pulp::x86::V4;
    #[cfg(target_arch = "x86_64")] Avx2 = pulp::x86::V3;
    #[cfg(target_arch = "aarch64")] Neon = pulp::aarch64::Neon;
}

/// What every CPU has.
pub(crate) struct Plain;

impl Isa for Plain {
    type Registers = Scalar;
    const FUSED: bool = false;

    #[inline(always)]
    unsafe fn registers() -> Scalar {
        Scalar::new()
    }
}

/// `dispatch! { fn name<T>(args) -> R = body; }`: `body::<I, T>(args)` compiled once for each instruction set.
///
/// `body` must be `#[inline(always)]` and generic over `I: Isa` and `T: Float`.
macro_rules! dispatch {
    ($($(#[$meta:meta])* fn $name:ident<T>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident;)*) => { $(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name<T: $crate::kernels::Float>($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::kernels::{Avx2, Avx512, InstructionSet};
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn avx512<T: $crate::kernels::Float>($($arg: $ty),*) $(-> $ret)? {
                    $body::<Avx512, T>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2<T: $crate::kernels::Float>($($arg: $ty),*) $(-> $ret)? {
                    $body::<Avx2, T>($($arg),*)
                }
                match InstructionSet::selected() {
                    // SAFETY: a set is selected only where the CPU has all its features.
                    InstructionSet::Avx512 => return unsafe { avx512::<T>($($arg),*) },
                    // SAFETY: as above.
                    InstructionSet::Avx2 => return unsafe { avx2::<T>($($arg),*) },
                    InstructionSet::Neon | InstructionSet::Baseline => {}
                }
            }
            #[cfg(target_arch = "aarch64")]
            return $body::<$crate::kernels::Neon, T>($($arg),*);
            #[cfg(not(target_arch = "aarch64"))]
            $body::<$crate::kernels::Plain, T>($($arg),*)
        }
    )* };
}
pub(crate) use dispatch;

/// Elements that a reduction takes together: several registers, whose additions do not wait for one another.
const LANES: usize = 64;

/// Registers that a reduction adds up in.
const WAYS: usize = 4;

/// Elements after which a reduction passes its accumulators on in `f64`: a long sum in `f32` loses its digits.
const SUM_BLOCK: usize = 16 * LANES;

/// `M` sums over the elements of `N` slices of the same length, in a fixed order.
///
/// `f` maps the `N` elements at one place to the `M` terms. The terms of a few registers are written down first, by a
/// loop that the compiler vectorises, and added in registers then: of one loop for both it makes scalar code.
#[inline(always)]
pub(crate) fn sums_in<I: Isa, T: Float, const N: usize, const M: usize>(
    slices: [&[T]; N],
    f: impl Fn([T; N]) -> [T; M],
) -> [f64; M] {
    let n = slices.iter().map(|s| s.len()).min().unwrap_or(0);
    let width = T::lanes::<I::Registers>();
    let mut totals = [0.0; M];
    let mut terms = [[T::ZERO; LANES]; M];
    for start in (0..n).step_by(SUM_BLOCK) {
        let end = n.min(start + SUM_BLOCK);
        // SAFETY: `I` is what the function around this was compiled for, and `dispatch!` has found it on this CPU.
        let simd = unsafe { I::registers() };
        let mut lanes = [[T::splat(simd, T::ZERO); WAYS]; M];
        for start in (start..end).step_by(LANES) {
            let len = LANES.min(end - start);
            if len < LANES {
                terms = [[T::ZERO; LANES]; M];
            }
            let chunks: [&[T]; N] = slices.map(|s| &s[start..start + len]);
            for j in 0..len {
                // SAFETY: every chunk has `len` elements, and `len` is at most `LANES`. Checks would make the compiler
                // leave the last elements of every chunk to scalar code.
                unsafe {
                    let values = f(std::array::from_fn(|k| *chunks[k].get_unchecked(j)));
                    for m in 0..M {
                        *terms[m].get_unchecked_mut(j) = values[m];
                    }
                }
            }
            for m in 0..M {
                for first in (0..LANES).step_by(WAYS * width) {
                    for way in 0..WAYS {
                        let v = T::read::<I::Registers>(&terms[m][first + way * width..]);
                        lanes[m][way] = T::plus(simd, lanes[m][way], v);
                    }
                }
            }
        }
        for m in 0..M {
            let [a, b, c, d] = lanes[m];
            totals[m] += T::total(simd, T::plus(simd, T::plus(simd, a, b), T::plus(simd, c, d))).to_f64();
        }
    }
    totals
}

/// A register of `T`s of an instruction set.
pub(crate) type Register<I, T> = <T as Vectors>::Vector<<I as Isa>::Registers>;

/// The same for terms that are sums and products: `add` adds those of some places to the sums so far, and nothing leaves
/// the registers. `filler` are elements that add nothing; they stand after the last.
#[inline(always)]
pub(crate) fn register_sums<I: Isa, T: Float, const N: usize, const M: usize>(
    slices: [&[T]; N],
    filler: [T; N],
    add: impl Fn(I::Registers, [Register<I, T>; N], [Register<I, T>; M]) -> [Register<I, T>; M],
) -> [f64; M] {
    let n = slices.iter().map(|s| s.len()).min().unwrap_or(0);
    let width = T::lanes::<I::Registers>();
    // SAFETY: as in `sums_in`.
    let simd = unsafe { I::registers() };
    let mut totals = [0.0; M];
    for start in (0..n).step_by(SUM_BLOCK) {
        let end = n.min(start + SUM_BLOCK);
        let mut lanes = [[T::splat(simd, T::ZERO); M]; WAYS];
        let whole = end - (end - start) % (WAYS * width);
        for at in (start..whole).step_by(WAYS * width) {
            for (way, lanes) in lanes.iter_mut().enumerate() {
                // SAFETY: `at + WAYS * width` is at most `whole`, which no slice is shorter than.
                let read = |s: &[T]| unsafe { T::read::<I::Registers>(s.get_unchecked(at + way * width..end)) };
                *lanes = add(simd, slices.map(read), *lanes);
            }
        }
        for at in (whole..end).step_by(width) {
            let len = width.min(end - at);
            let values = std::array::from_fn(|k| {
                let mut padded = [filler[k]; LANES];
                padded[..len].copy_from_slice(&slices[k][at..at + len]);
                T::read::<I::Registers>(&padded)
            });
            lanes[0] = add(simd, values, lanes[0]);
        }
        let [a, b, c, d] = lanes;
        for m in 0..M {
            let sum = T::plus(simd, T::plus(simd, a[m], b[m]), T::plus(simd, c[m], d[m]));
            totals[m] += T::total(simd, sum).to_f64();
        }
    }
    totals
}

/// The largest element, minus infinity for none; whether NaN counts depends on the instruction set.
#[inline(always)]
pub(crate) fn max<I: Isa, T: Float>(x: &[T]) -> T {
    // SAFETY: as in `sums_in`.
    let simd = unsafe { I::registers() };
    let none = T::of(f64::NEG_INFINITY);
    let mut lanes = [T::splat(simd, none); WAYS];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        lanes = larger_lanes::<I, T>(simd, chunk, lanes);
    }
    if !rest.is_empty() {
        let mut chunk = [none; LANES];
        chunk[..rest.len()].copy_from_slice(rest);
        lanes = larger_lanes::<I, T>(simd, &chunk, lanes);
    }
    let [a, b, c, d] = lanes;
    T::largest(simd, T::larger_of(simd, T::larger_of(simd, a, b), T::larger_of(simd, c, d)))
}

#[inline(always)]
fn larger_lanes<I: Isa, T: Float>(
    simd: I::Registers,
    chunk: &[T; LANES],
    mut lanes: [Register<I, T>; WAYS],
) -> [Register<I, T>; WAYS] {
    let width = T::lanes::<I::Registers>();
    for first in (0..LANES).step_by(WAYS * width) {
        for way in 0..WAYS {
            let v = T::read::<I::Registers>(&chunk[first + way * width..]);
            lanes[way] = T::larger_of(simd, v, lanes[way]);
        }
    }
    lanes
}
