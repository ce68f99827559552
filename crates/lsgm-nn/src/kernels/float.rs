//! The two element types of the kernels, and how their buffers are made.

use candle_core::{CpuStorage, WithDType};

/// An element type: `f32` for speed, `f64` for checks.
pub(crate) trait Float: WithDType + super::Vectors {
    const ZERO: Self;
    const ONE: Self;

    fn of(x: f64) -> Self {
        Self::from_f64(x)
    }

    /// `self * a + b` with a single rounding.
    fn fused(self, a: Self, b: Self) -> Self;
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    fn is_nan(self) -> bool;
    /// The larger of two; not a number when either is not.
    fn larger(self, other: Self) -> Self {
        if self > other || self.is_nan() { self } else { other }
    }
    /// The exponential function, in a form that vectorises. Infinite above 88.37 and zero below -87.68
    /// in `f32`.
    fn exp<I: super::Isa>(self) -> Self;
    /// `ln(1 + u)` for `u` in [0, 1].
    fn ln_1p_unit<I: super::Isa>(self) -> Self;
    fn ln(self) -> Self;
    fn erf<I: super::Isa>(self) -> Self;
    /// The elements of a storage of this type.
    fn slice_mut(storage: &mut CpuStorage) -> candle_core::Result<&mut [Self]>;
}

/// Sum of `u^(2k) / (2k + 1)`, the series of `atanh`, by Horner's rule; `u2` is at most 1/9.
const ATANH: [f64; 8] = [1.0, 1.0 / 3.0, 1.0 / 5.0, 1.0 / 7.0, 1.0 / 9.0, 1.0 / 11.0, 1.0 / 13.0, 1.0 / 15.0];

impl Float for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    #[inline(always)]
    fn fused(self, a: Self, b: Self) -> Self {
        f32::mul_add(self, a, b)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        f32::abs(self)
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }

    /// Cephes' `expf`: `2^n · p(r)` with `r` in ±ln(2)/2. Comparisons, not `min` and `max`, keep NaN.
    #[inline(always)]
    fn exp<I: super::Isa>(self) -> Self {
        const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer, kept in the low bits.
        // At these ends n is -127 and 128, for which the exponent's bits read as zero and as infinity.
        const LOW: f32 = -88.0;
        const HIGH: f32 = 88.8;
        let x = if self < LOW { LOW } else { self };
        let x = if x > HIGH { HIGH } else { x };
        let shifted = I::fma(x, std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = I::fma(n, -0.693_359_4, x);
        let r = I::fma(n, 2.121_944_4e-4, r);
        let mut p = 1.987_569_1e-4_f32;
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = I::fma(p, r, c);
        }
        let y = I::fma(p, r * r, r) + 1.0;
        y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
    }

    #[inline(always)]
    fn ln_1p_unit<I: super::Isa>(self) -> Self {
        let s = self / (self + 2.0);
        let s2 = s * s;
        let mut p = ATANH[7] as f32;
        for c in ATANH[..7].iter().rev() {
            p = I::fma(p, s2, *c as f32);
        }
        2.0 * s * p
    }
    #[inline(always)]
    fn ln(self) -> Self {
        f32::ln(self)
    }
    /// `x · p(x²) / q(x²)` up to 4, from where on it is 1: our fit, within 6.5e-8 of the exact value before rounding.
    #[inline(always)]
    fn erf<I: super::Isa>(self) -> Self {
        const P: [f32; 7] = [
            std::f32::consts::FRAC_2_SQRT_PI,
            0.207_123_55,
            0.051_524_658,
            3.990_506_3e-3,
            1.472_854e-4,
            -1.942_320_8e-6,
            1.911_123_2e-8,
        ];
        const Q: [f32; 5] = [1.0, 0.516_889_7, 0.117_970_04, 0.014_957_929, 1.021_098_5e-3];
        // Comparisons, not `clamp`, keep NaN.
        let x = if self > 4.0 { 4.0 } else { self };
        let x = if x < -4.0 { -4.0 } else { x };
        let square = x * x;
        let polynomial = |c: &[f32]| c.iter().rev().fold(0.0, |sum, c| I::fma(sum, square, *c));
        let y = x * polynomial(&P) / polynomial(&Q);
        let y = if y > 1.0 { 1.0 } else { y };
        if y < -1.0 { -1.0 } else { y }
    }
    fn slice_mut(storage: &mut CpuStorage) -> candle_core::Result<&mut [Self]> {
        match storage {
            CpuStorage::F32(v) => Ok(v),
            _ => candle_core::bail!("expected elements of type f32"),
        }
    }
}

impl Float for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    #[inline(always)]
    fn fused(self, a: Self, b: Self) -> Self {
        f64::mul_add(self, a, b)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        f64::abs(self)
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        f64::is_nan(self)
    }
    #[inline(always)]
    fn exp<I: super::Isa>(self) -> Self {
        f64::exp(self)
    }
    #[inline(always)]
    fn ln_1p_unit<I: super::Isa>(self) -> Self {
        f64::ln_1p(self)
    }
    #[inline(always)]
    fn ln(self) -> Self {
        f64::ln(self)
    }
    #[inline(always)]
    fn erf<I: super::Isa>(self) -> Self {
        candle_core::cpu::erf::erf_f64(self)
    }
    fn slice_mut(storage: &mut CpuStorage) -> candle_core::Result<&mut [Self]> {
        match storage {
            CpuStorage::F64(v) => Ok(v),
            _ => candle_core::bail!("expected elements of type f64"),
        }
    }
}

/// A buffer whose elements the caller writes before reading any of them.
///
/// With debug assertions it is filled with NaN, so that a kernel that leaves a gap shows in every test.
#[allow(unsafe_code, clippy::uninit_vec)]
pub(crate) fn uninit<T: Float>(len: usize) -> Vec<T> {
    if cfg!(any(debug_assertions, miri)) {
        return vec![T::of(f64::NAN); len];
    }
    let mut v = Vec::with_capacity(len);
    // SAFETY: the capacity is `len`, any bit pattern is a float, and every kernel writes its whole output.
    unsafe { v.set_len(len) };
    v
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "x86_64")]
    use crate::kernels::Avx2 as Fused;
    #[cfg(target_arch = "aarch64")]
    use crate::kernels::Neon as Fused;
    use crate::kernels::Plain;

    #[test]
    fn exp_is_within_two_ulp_and_keeps_nan_and_infinity() {
        for i in -8_700..=8_800 {
            let x = i as f32 * 0.01;
            for y in [Float::exp::<Fused>(x), Float::exp::<Plain>(x)] {
                let exact = f64::from(x).exp();
                assert!((f64::from(y) / exact - 1.0).abs() < 2.5e-7, "{x}: {y} against {exact}");
            }
        }
        assert_eq!(Float::exp::<Fused>(f32::NEG_INFINITY), 0.0);
        assert_eq!(Float::exp::<Fused>(f32::INFINITY), f32::INFINITY);
        assert!(Float::is_nan(Float::exp::<Fused>(f32::NAN)));
    }

    #[test]
    fn erf_is_within_a_few_ulp_and_keeps_nan_and_infinity() {
        for i in -6_000..=6_000 {
            let x = i as f32 * 1e-3;
            for y in [Float::erf::<Fused>(x), Float::erf::<Plain>(x)] {
                let exact = candle_core::cpu::erf::erf_f64(f64::from(x));
                assert!((f64::from(y) - exact).abs() <= 5e-7 * exact.abs(), "{x}: {y} against {exact}");
            }
        }
        for x in [f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(Float::erf::<Fused>(x), x.signum());
        }
        assert!(Float::is_nan(Float::erf::<Fused>(f32::NAN)));
    }

    #[test]
    fn ln_1p_holds_its_relative_precision() {
        for i in 0..=1000 {
            for scale in [1.0, 1e-3, 1e-12] {
                let u = i as f32 * 1e-3 * scale;
                let exact = f64::from(u).ln_1p();
                let got = f64::from(Float::ln_1p_unit::<Fused>(u));
                assert!((got - exact).abs() <= 2.5e-7 * exact, "{u}");
            }
        }
    }
}
