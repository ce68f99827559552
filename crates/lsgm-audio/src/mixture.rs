use candle_core::{DType, Device, Tensor};
use lsgm_core::{Error, Likelihood, Result, Rng};
use lsgm_nn::ops::{logistic_mixture_log_prob, softmax};

/// Values of 16 bits.
pub(crate) const LEVELS: usize = 65_536;

/// Independent samples of 16 bits, each from a mixture of `K` logistic distributions integrated over the value's bin
/// (Salimans et al. 2017, arXiv 1701.05517).
#[derive(Debug, Clone)]
pub struct LogisticMixture {
    params: Tensor,
    components: usize,
}

impl LogisticMixture {
    /// From `[B, 3·K, L]`: logits of the weights, means in [-1, 1], logarithms of the scales, `K` of each in turn.
    ///
    /// # Errors
    /// Another shape.
    pub fn new(params: Tensor) -> Result<Self> {
        let (_, channels, _) = params.dims3()?;
        if channels == 0 || !channels.is_multiple_of(3) {
            return Err(Error::contract("decoder", format!("{channels} channels are not three for each component")));
        }
        Ok(Self { params, components: channels / 3 })
    }

    fn part(&self, i: usize) -> Result<Tensor> {
        Ok(self.params.narrow(1, i * self.components, self.components)?)
    }

    /// `f(logits, means, log-scales)` of each sample, as items `[B, 1, L]`.
    fn each(&self, mut f: impl FnMut(&[[f32; 3]]) -> f32) -> Result<Tensor> {
        let (batch, _, length) = self.params.dims3()?;
        let all = self.params.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let k = self.components;
        let mut parts = vec![[0.0; 3]; k];
        let mut y = Vec::with_capacity(batch * length);
        for item in all.chunks_exact(3 * k * length) {
            for i in 0..length {
                for (c, part) in parts.iter_mut().enumerate() {
                    *part = [0, 1, 2].map(|p| item[(p * k + c) * length + i]);
                }
                y.push(f(&parts));
            }
        }
        Ok(Tensor::from_vec(y, (batch, 1, length), self.params.device())?.to_dtype(self.params.dtype())?)
    }
}

impl Likelihood for LogisticMixture {
    fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
        logistic_mixture_log_prob(&self.params, &x.squeeze(1)?, LEVELS)
    }

    /// A temperature scales the logits of the weights and the scales. At 0, the centre of the component whose peak is the
    /// highest.
    fn sample(&self, temperature: f64, rng: &mut Rng) -> Result<Tensor> {
        if temperature <= 0.0 {
            return self.each(|parts| to_grid(highest(parts)[1]));
        }
        let t = temperature as f32;
        self.each(|parts| {
            let [_, mean, log_scale] = choose(parts, t, rng);
            // The inverse of the distribution function; u is kept off 0 and 1.
            let u = rng.uniform().clamp(1e-9, 1.0 - 1e-9);
            to_grid(mean + t * log_scale.exp() * (u / (1.0 - u)).ln() as f32)
        })
    }

    /// The mean of the mixture before it is cut into bins.
    fn mean(&self) -> Result<Tensor> {
        let weights = softmax(&self.part(0)?.transpose(1, 2)?.contiguous()?)?.transpose(1, 2)?;
        Ok((weights * self.part(1)?)?.sum_keepdim(1)?)
    }
}

/// The nearest value of 16 bits.
fn to_grid(x: f32) -> f32 {
    (x * 32_768.0).round().clamp(-32_768.0, 32_767.0) / 32_768.0
}

fn highest(parts: &[[f32; 3]]) -> [f32; 3] {
    let peak = |p: &[f32; 3]| p[0] - p[2];
    parts.iter().copied().max_by(|a, b| peak(a).total_cmp(&peak(b))).unwrap_or_default()
}

/// A component, drawn by its weight.
fn choose(parts: &[[f32; 3]], temperature: f32, rng: &mut Rng) -> [f32; 3] {
    let top = parts.iter().fold(f32::NEG_INFINITY, |m, p| m.max(p[0]));
    let weight = |p: &[f32; 3]| f64::from(((p[0] - top) / temperature).exp());
    let mut left = rng.uniform() * parts.iter().map(weight).sum::<f64>();
    for part in parts {
        left -= weight(part);
        if left < 0.0 {
            return *part;
        }
    }
    parts.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixture(batch: usize) -> LogisticMixture {
        let row = [0.0f32, 1.0, -0.25, 0.5, -4.0, -6.0];
        let params = Tensor::new(&row, &Device::Cpu).unwrap().reshape((1, 6, 1)).unwrap();
        LogisticMixture::new(params.broadcast_as((batch, 6, 1)).unwrap().contiguous().unwrap()).unwrap()
    }

    #[test]
    fn samples_have_the_frequencies_that_the_probabilities_say() {
        let n = 40_000;
        let drawn = mixture(n).sample(1.0, &mut Rng::new(1)).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(drawn.iter().all(|v| (v * 32_768.0).fract() == 0.0));
        // The probability of an interval, from all values in it.
        for (low, high) in [(-0.3, -0.2), (0.49, 0.5), (0.0, 0.49)] {
            let values: Vec<f32> =
                (0..LEVELS).map(|i| i as f32 / 32_768.0 - 1.0).filter(|v| (low..high).contains(v)).collect();
            let x = Tensor::from_vec(values.clone(), (values.len(), 1, 1), &Device::Cpu).unwrap();
            let p = mixture(values.len())
                .log_prob(&x)
                .unwrap()
                .exp()
                .unwrap()
                .sum_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap();
            let share = drawn.iter().filter(|v| (low..high).contains(*v)).count() as f32 / n as f32;
            let error = (p * (1.0 - p) / n as f32).sqrt();
            assert!((share - p).abs() < 4.0 * error + 1e-4, "{low}..{high}: {share} against {p}");
        }
    }

    #[test]
    fn mean_and_mode_are_those_of_the_mixture() {
        let one = mixture(1);
        let scalar = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        let weight = 1.0 / (1.0 + (1.0f32).exp());
        assert!((scalar(one.mean().unwrap()) - (weight * -0.25 + (1.0 - weight) * 0.5)).abs() < 1e-6);
        assert_eq!(scalar(one.sample(0.0, &mut Rng::new(0)).unwrap()), 0.5);
        let cool: Vec<f32> = (0..200).map(|i| scalar(one.sample(0.05, &mut Rng::new(i)).unwrap())).collect();
        assert!(cool.iter().all(|v| (v - 0.5).abs() < 0.01), "a low temperature stays near the mode");
    }
}
