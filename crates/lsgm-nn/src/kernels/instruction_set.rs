//! Which instructions the kernels use.

use std::sync::atomic::{AtomicU8, Ordering};

use lsgm_core::{Error, Result};
use pulp::{Scalar, Simd, WithSimd};

/// A set of vector instructions that the kernels are compiled for, in the order of preference.
///
/// Kernels take the best one that the CPU has, found at run time. Results of different sets differ by rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// What every CPU of the target has: SSE2 without a fused multiply-add, or plain scalar code.
    Baseline,
    /// 128-bit registers with fused multiply-add (64-bit Arm).
    Neon,
    /// 256-bit registers with fused multiply-add (x86).
    Avx2,
    /// 512-bit registers (x86).
    Avx512,
}

/// The set in use plus one; zero before the first use.
static CHOSEN: AtomicU8 = AtomicU8::new(0);

impl InstructionSet {
    const ALL: [Self; 4] = [Self::Baseline, Self::Neon, Self::Avx2, Self::Avx512];

    /// The sets that this CPU has, the best one last.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|set| set.is_available()).collect()
    }

    /// The set in use: the best one, unless [`Self::select`] has chosen another.
    #[inline]
    pub fn selected() -> Self {
        match CHOSEN.load(Ordering::Relaxed) {
            0 => Self::detect(),
            chosen => Self::ALL[usize::from(chosen - 1) % Self::ALL.len()],
        }
    }

    /// Use this set in the whole process from now on, in the place of the best one: for tests, and for results that are
    /// to repeat on a lesser CPU. (Matrix products of [`crate::ops::linear`] and [`crate::ops::attention`] are left to
    /// the `gemm` crate, which always takes the best set.)
    ///
    /// # Errors
    /// A set that this CPU does not have.
    pub fn select(self) -> Result<()> {
        if !self.is_available() {
            let have = Self::available();
            return Err(Error::contract("instruction set", format!("{self:?} is not on this CPU, which has {have:?}")));
        }
        self.choose();
        Ok(())
    }

    fn choose(self) {
        let number = Self::ALL.iter().position(|set| *set == self).unwrap_or(0);
        CHOSEN.store(number as u8 + 1, Ordering::Relaxed);
    }

    #[cold]
    fn detect() -> Self {
        let best = Self::available().pop().unwrap_or(Self::Baseline);
        best.choose();
        best
    }

    /// Run `op` with the registers of this set. A computation whose parts must agree on the size of a register takes one
    /// set for all of them: [`Self::select`] may be called in the meantime.
    #[inline]
    pub(crate) fn run<O: WithSimd>(self, op: O) -> O::Output {
        #[cfg(target_arch = "x86_64")]
        {
            if let (Self::Avx512, Some(simd)) = (self, pulp::x86::V4::try_new()) {
                return Simd::vectorize(simd, op);
            }
            if let (Self::Avx2, Some(simd)) = (self, pulp::x86::V3::try_new()) {
                return Simd::vectorize(simd, op);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if let (Self::Neon, Some(simd)) = (self, pulp::aarch64::Neon::try_new()) {
            return Simd::vectorize(simd, op);
        }
        Simd::vectorize(Scalar::new(), op)
    }

    fn is_available(self) -> bool {
        match self {
            Self::Baseline => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => pulp::aarch64::Neon::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::is_available(),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }
}
