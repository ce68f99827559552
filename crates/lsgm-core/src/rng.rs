use candle_core::{DType, Device, Shape, Tensor};
use rand::{Rng as _, RngCore, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use crate::accelerator::accelerator;
use crate::{Error, Result, upload};

/// The toolkit's only source of randomness: a seeded ChaCha generator whose whole state can be stored.
///
/// A seed means the same on every device: what a device draws itself ([`Draws`]) is what the CPU would have drawn.
///
/// ```
/// use lsgm_core::Rng;
/// let mut rng = Rng::new(1);
/// let state = rng.state();
/// let first = rng.uniform();
/// assert_eq!(Rng::restore(&state).unwrap().uniform(), first);
/// ```
#[derive(Debug, Clone)]
pub struct Rng(ChaCha8Rng);

/// The stored state of an [`Rng`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RngState {
    seed: [u8; 32],
    stream: u64,
    /// A decimal number: 128 bits do not fit the numbers of JSON.
    word_pos: String,
}

/// Numbers uniform in [0, 1) that a generator has passed over, so that a device may draw them itself: number `i` is made of
/// the upper 24 bits of word `position + i` of the stream `stream` of ChaCha with 8 rounds and this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draws {
    /// How many.
    pub count: usize,
    /// The key.
    pub key: [u32; 8],
    /// Which of the streams that the key has.
    pub stream: u64,
    /// Where the first of them stands.
    pub position: u64,
}

impl Rng {
    /// A generator from a seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// An independent generator for a named purpose. It depends on this generator's seed and on `purpose`, not on how
    /// much was drawn before.
    pub fn fork(&self, purpose: &str) -> Self {
        let mut child = self.0.clone();
        child.set_stream(fnv1a(purpose, self.0.get_stream()));
        child.set_word_pos(0);
        Self(child)
    }

    /// The state, to be stored with a checkpoint.
    pub fn state(&self) -> RngState {
        RngState { seed: self.0.get_seed(), stream: self.0.get_stream(), word_pos: self.0.get_word_pos().to_string() }
    }

    /// The generator with a stored state.
    ///
    /// # Errors
    /// When the stored position is not a number.
    pub fn restore(state: &RngState) -> Result<Self> {
        let word_pos = state
            .word_pos
            .parse()
            .map_err(|_| Error::contract("generator state", format!("`{}` is not a position", state.word_pos)))?;
        let mut rng = ChaCha8Rng::from_seed(state.seed);
        rng.set_stream(state.stream);
        rng.set_word_pos(word_pos);
        Ok(Self(rng))
    }

    /// A number uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.0.random()
    }

    /// A standard Normal number.
    pub fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.0)
    }

    /// An integer uniform in `0..n`; 0 for `n = 0`.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { self.0.random_range(0..n) }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Put `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        items.shuffle(&mut self.0);
    }

    /// `n` standard Normal numbers.
    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| StandardNormal.sample(&mut self.0)).collect()
    }

    /// `n` numbers uniform in [0, 1).
    pub fn uniforms(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.0.random()).collect()
    }

    /// The next `count` of [`Rng::uniforms`] without drawing them: the generator goes on behind them.
    pub fn pass_over(&mut self, count: usize) -> Draws {
        let position = self.0.get_word_pos();
        self.0.set_word_pos(position + count as u128);
        let mut key = [0; 8];
        for (word, bytes) in key.iter_mut().zip(self.0.get_seed().chunks_exact(4)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        Draws { count, key, stream: self.0.get_stream(), position: position as u64 }
    }

    /// A tensor of standard Normal numbers.
    pub fn normal_tensor(&mut self, shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = shape.into();
        let values = self.normals(shape.elem_count());
        upload(&Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?, device)
    }

    /// A tensor of numbers uniform in [0, 1): those of [`Rng::uniforms`], which some devices draw themselves.
    pub fn uniform_tensor(&mut self, shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = shape.into();
        if let Some(accelerator) = accelerator(device)
            && shape.elem_count() > 0
        {
            return Ok(accelerator.uniforms(&self.pass_over(shape.elem_count()), &shape, device)?.to_dtype(dtype)?);
        }
        let values = self.uniforms(shape.elem_count());
        upload(&Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?, device)
    }
}

/// The FNV-1a hash of `purpose`, started from `parent` so that forks of forks differ.
fn fnv1a(purpose: &str, parent: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64 ^ parent.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    purpose.bytes().fold(start, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_generator_continues() {
        let mut rng = Rng::new(7).fork("noise");
        rng.normals(1001);
        let json = serde_json::to_string(&rng.state()).unwrap();
        let mut again = Rng::restore(&serde_json::from_str(&json).unwrap()).unwrap();
        assert_eq!(rng.normals(100), again.normals(100));
    }

    #[test]
    fn passing_over_numbers_is_drawing_them() {
        let mut rng = Rng::new(7).fork("noise");
        rng.normals(3);
        let mut other = rng.clone();
        let draws = rng.pass_over(1000);
        other.uniforms(1000);
        assert_eq!(rng.bits(), other.bits());
        assert_eq!(draws.count, 1000);
        assert_ne!(draws.position, rng.pass_over(1).position);
    }

    #[test]
    fn forks_depend_on_purpose_and_seed_alone() {
        let mut a = Rng::new(7);
        let early = a.fork("x").bits();
        a.uniforms(10);
        assert_eq!(early, a.fork("x").bits());
        assert_ne!(early, a.fork("y").bits());
        assert_ne!(early, a.fork("x").fork("x").bits());
        assert_ne!(early, Rng::new(8).fork("x").bits());
    }

    #[test]
    fn normals_have_unit_moments() {
        let v = Rng::new(3).normals(200_000);
        let n = v.len() as f64;
        let mean = v.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let var = v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n - mean * mean;
        assert!(mean.abs() < 4.0 / n.sqrt(), "{mean}");
        assert!((var - 1.0).abs() < 4.0 * (2.0 / n).sqrt(), "{var}");
    }
}
