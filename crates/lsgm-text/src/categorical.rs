use candle_core::{D, DType, Device, Tensor};
use lsgm_core::{Likelihood, Result, Rng};
use lsgm_nn::ops;

/// Independent tokens, given by logits `[B, L, V]`.
///
/// With an end token the distribution is one over texts of at most `L` tokens: decoding stops at the first end, so that
/// the probability of a text is that of its tokens and of the end behind them, whatever would follow. An item without an
/// end is the event that all its `L` tokens come out.
#[derive(Debug, Clone)]
pub struct Categorical {
    logits: Tensor,
    end: Option<u32>,
}

impl Categorical {
    /// Tokens with probabilities `softmax(logits)`; behind the first `end` nothing counts.
    pub fn new(logits: Tensor, end: Option<u32>) -> Self {
        Self { logits, end }
    }

    /// The logits `[B, L, V]`.
    pub fn logits(&self) -> &Tensor {
        &self.logits
    }
}

impl Likelihood for Categorical {
    fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
        let tokens = ops::categorical_log_prob(&self.logits, x)?;
        weighted_sum(&tokens, &counted(x, self.end)?)
    }

    fn log_prob_known(&self, x: &Tensor, known: &Tensor) -> Result<Tensor> {
        let tokens = ops::categorical_log_prob(&self.logits, x)?;
        weighted_sum(&tokens, &known.to_device(tokens.device())?)
    }

    fn sample(&self, temperature: f64, rng: &mut Rng) -> Result<Tensor> {
        if temperature <= 0.0 {
            return self.mean();
        }
        until_end(&draw(&self.logits, temperature, rng)?, self.end)
    }

    fn mean(&self) -> Result<Tensor> {
        until_end(&self.logits.argmax(D::Minus1)?, self.end)
    }
}

/// A draw from `softmax(logits / temperature)` over the last dimension, as the largest of perturbed logits (Gumbel 1954).
pub(crate) fn draw(logits: &Tensor, temperature: f64, rng: &mut Rng) -> Result<Tensor> {
    let uniform = rng.uniforms(logits.elem_count());
    let gumbel: Vec<f32> =
        uniform.iter().map(|u| -(-u.max(f32::MIN_POSITIVE).ln()).max(f32::MIN_POSITIVE).ln()).collect();
    let gumbel = Tensor::from_vec(gumbel, logits.shape(), &Device::Cpu)?.to_dtype(logits.dtype())?;
    Ok(((logits.detach() / temperature)? + gumbel.to_device(logits.device())?)?.argmax(D::Minus1)?)
}

/// 1 for each token up to the first end and for the end itself, 0 behind it: `u8`, the shape of `x` `[B, L]`. It is
/// computed where `x` is, so that a step on a GPU waits for nothing.
pub(crate) fn counted(x: &Tensor, end: Option<u32>) -> Result<Tensor> {
    let Some(end) = end else { return Ok(Tensor::ones(x.dims(), DType::U8, x.device())?) };
    let length = x.dim(D::Minus1)? as u32;
    let places = Tensor::arange(0, length, x.device())?.broadcast_as(x.dims())?.contiguous()?;
    let nowhere = Tensor::full(length, x.dims(), x.device())?;
    let first = x.eq(end)?.where_cond(&places, &nowhere)?.min_keepdim(D::Minus1)?;
    Ok(places.broadcast_le(&first)?)
}

/// The same tokens with nothing but ends behind the first end: the one form in which a text is an item.
pub(crate) fn until_end(x: &Tensor, end: Option<u32>) -> Result<Tensor> {
    let Some(token) = end else { return Ok(x.clone()) };
    Ok(counted(x, end)?.where_cond(x, &Tensor::full(token, x.dims(), x.device())?)?)
}

/// `Σ weights · x` of each row of `x` `[B, L]`: `[B]`.
pub(crate) fn weighted_sum(x: &Tensor, weights: &Tensor) -> Result<Tensor> {
    Ok((x * weights.to_dtype(x.dtype())?)?.sum(D::Minus1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits() -> Tensor {
        Rng::new(3).normal_tensor((1, 3, 3), DType::F64, &Device::Cpu).unwrap()
    }

    /// Every sequence of three tokens of three.
    fn sequences() -> Vec<[u32; 3]> {
        (0..27).map(|i| [i / 9, i / 3 % 3, i % 3]).collect()
    }

    #[test]
    fn probabilities_of_all_texts_sum_to_one() {
        let p = |end: Option<u32>, s: [u32; 3]| {
            let x = Tensor::new(&[s], &Device::Cpu).unwrap();
            Categorical::new(logits(), end).log_prob(&x).unwrap().to_vec1::<f64>().unwrap()[0].exp()
        };
        let total: f64 = sequences().into_iter().map(|s| p(None, s)).sum();
        assert!((total - 1.0).abs() < 1e-9, "{total}");
        // Texts that end: behind the first end only ends, so that each text is counted once.
        let canonical = |s: &[u32; 3]| s.windows(2).all(|w| w[0] != 0 || w[1] == 0);
        let total: f64 = sequences().into_iter().filter(canonical).map(|s| p(Some(0), s)).sum();
        assert!((total - 1.0).abs() < 1e-9, "{total}");
    }

    #[test]
    fn draws_have_the_right_frequencies_and_cold_ones_are_the_mode() {
        let row = Tensor::new(&[0.1f32.ln(), 0.6f32.ln(), 0.3f32.ln()], &Device::Cpu).unwrap();
        let n = 20_000;
        let p = Categorical::new(row.broadcast_as((n, 1, 3)).unwrap().contiguous().unwrap(), None);
        let drawn = p.sample(1.0, &mut Rng::new(5)).unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap();
        for (token, expected) in [(0, 0.1), (1, 0.6), (2, 0.3)] {
            let share = drawn.iter().filter(|t| **t == token).count() as f64 / n as f64;
            assert!((share - expected).abs() < 4.0 * (expected * (1.0 - expected) / n as f64).sqrt(), "{share}");
        }
        assert!(
            p.sample(0.0, &mut Rng::new(5))
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<u32>()
                .unwrap()
                .iter()
                .all(|t| *t == 1)
        );
    }

    #[test]
    fn the_known_part_counts_alone_and_ends_fill_the_rest() {
        let x = Tensor::new(&[[1u32, 2, 0]], &Device::Cpu).unwrap();
        let p = Categorical::new(logits(), None);
        let known = |k: [u32; 3]| {
            p.log_prob_known(&x, &Tensor::new(&[k], &Device::Cpu).unwrap()).unwrap().to_vec1::<f64>().unwrap()[0]
        };
        let all = p.log_prob(&x).unwrap().to_vec1::<f64>().unwrap()[0];
        assert!((known([1, 0, 1]) + known([0, 1, 0]) - all).abs() < 1e-12 && known([0, 0, 0]) == 0.0);
        let ended = until_end(&Tensor::new(&[[1u32, 0, 2], [2, 1, 1]], &Device::Cpu).unwrap(), Some(0)).unwrap();
        assert_eq!(ended.to_vec2::<u32>().unwrap(), [[1, 0, 0], [2, 1, 1]]);
    }
}
