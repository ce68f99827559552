//! One source for every instruction set.
//!
//! A kernel is plain Rust in a form that the compiler vectorises. [`dispatch!`] compiles it for AVX-512, for AVX2 with
//! FMA, and for the target's baseline (SSE2, NEON or scalar code), and picks the best one at run time.

use std::sync::OnceLock;

use super::Float;

/// How `a · b + c` is computed: fused where the instruction set has it, since the portable fused form is slow.
pub(crate) trait Isa {
    fn fma<T: Float>(a: T, b: T, c: T) -> T;
}

/// With a fused multiply-add instruction.
pub(crate) struct Fused;
/// Without one.
pub(crate) struct Plain;

impl Isa for Fused {
    #[inline(always)]
    fn fma<T: Float>(a: T, b: T, c: T) -> T {
        a.fused(b, c)
    }
}

impl Isa for Plain {
    #[inline(always)]
    fn fma<T: Float>(a: T, b: T, c: T) -> T {
        a * b + c
    }
}

/// Instruction sets in the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The best instruction set of this machine.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("fma")
            {
                return Level::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Level::Avx2;
            }
        }
        Level::Baseline
    })
}

/// `dispatch! { fn name<T: Float>(args) -> R = body }`: `body::<I, T>(args)` compiled once for each instruction set.
///
/// `body` must be `#[inline(always)]` and generic over `I: Isa` and `T: Float`.
macro_rules! dispatch {
    ($($(#[$meta:meta])* fn $name:ident<T>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident;)*) => { $(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name<T: $crate::kernels::Float>($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::kernels::{Fused, Level, level};
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn avx512<T: $crate::kernels::Float>($($arg: $ty),*) $(-> $ret)? {
                    $body::<Fused, T>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2<T: $crate::kernels::Float>($($arg: $ty),*) $(-> $ret)? {
                    $body::<Fused, T>($($arg),*)
                }
                match level() {
                    // SAFETY: `level` has found these features on this machine.
                    Level::Avx512 => return unsafe { avx512::<T>($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx2 => return unsafe { avx2::<T>($($arg),*) },
                    Level::Baseline => {}
                }
            }
            #[cfg(target_arch = "aarch64")]
            return $body::<$crate::kernels::Fused, T>($($arg),*);
            #[cfg(not(target_arch = "aarch64"))]
            $body::<$crate::kernels::Plain, T>($($arg),*)
        }
    )* };
}
pub(crate) use dispatch;

/// Width of the accumulators of a reduction: the compiler maps them to vector registers.
const LANES: usize = 16;

/// Elements after which a reduction passes its accumulators on in `f64`: a long sum in `f32` loses its digits.
const SUM_BLOCK: usize = 64 * LANES;

/// `M` sums over the elements of `N` slices of the same length, in a fixed order that vectorises.
///
/// `f` maps the `N` elements at one place to the `M` terms.
#[inline(always)]
pub(crate) fn sums<T: Float, const N: usize, const M: usize>(
    slices: [&[T]; N],
    f: impl Fn([T; N]) -> [T; M],
) -> [f64; M] {
    let n = slices.iter().map(|s| s.len()).min().unwrap_or(0);
    let mut totals = [0.0; M];
    let mut start = 0;
    while start < n {
        let end = n.min(start + SUM_BLOCK);
        let block = block_sums(slices.map(|s| &s[start..end]), &f);
        totals.iter_mut().zip(block).for_each(|(total, sum)| *total += sum.to_f64());
        start = end;
    }
    totals
}

#[inline(always)]
fn block_sums<T: Float, const N: usize, const M: usize>(slices: [&[T]; N], f: impl Fn([T; N]) -> [T; M]) -> [T; M] {
    let n = slices[0].len();
    let whole = n / LANES * LANES;
    let mut lanes = [[T::ZERO; LANES]; M];
    let mut i = 0;
    while i < whole {
        let chunks: [&[T]; N] = slices.map(|s| &s[i..i + LANES]);
        for j in 0..LANES {
            let terms = f(std::array::from_fn(|k| chunks[k][j]));
            for (lane, term) in lanes.iter_mut().zip(terms) {
                lane[j] += term;
            }
        }
        i += LANES;
    }
    let mut totals = lanes.map(|mut lane| {
        let mut width = LANES / 2;
        while width > 0 {
            for j in 0..width {
                let other = lane[j + width];
                lane[j] += other;
            }
            width /= 2;
        }
        lane[0]
    });
    let tails: [&[T]; N] = slices.map(|s| &s[whole..]);
    for j in 0..n - whole {
        let terms = f(std::array::from_fn(|k| tails[k][j]));
        totals.iter_mut().zip(terms).for_each(|(total, term)| *total += term);
    }
    totals
}

/// The largest element; NaN when there is one; minus infinity for none.
#[inline(always)]
pub(crate) fn max<T: Float>(x: &[T]) -> T {
    let mut lanes = [T::of(f64::NEG_INFINITY); LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = lane.larger(*v);
        }
    }
    lanes.iter().chain(rest).fold(T::of(f64::NEG_INFINITY), |a, b| a.larger(*b))
}
