use candle_core::{DType, Device, Tensor};
use lsgm_core::{Likelihood, Result, Rng};
use lsgm_nn::ops::{LogisticForm, discretized_logistic_log_prob};

/// Logarithms of scales below this count as this.
const LOWEST_LOG_SCALE: f32 = -7.0;

/// Pixels with `levels` values under logistic distributions cut into bins, `log_prob` as in
/// [`discretized_logistic_log_prob`]. Items are `[B, C, H, W]` in [0, 1].
#[derive(Debug, Clone)]
pub struct DiscretizedLogistic {
    parameters: Tensor,
    channels: usize,
    levels: usize,
    form: LogisticForm,
}

impl DiscretizedLogistic {
    /// Pixels of `channels` with parameters `[B, P, H, W]`.
    pub fn new(parameters: Tensor, channels: usize, levels: usize, form: LogisticForm) -> Self {
        Self { parameters, channels, levels, form }
    }

    /// For each position of each item, the pixel that `choose` makes of the components there.
    fn pixels(&self, choose: &mut dyn FnMut(&Components<'_>) -> [f32; 3]) -> Result<Tensor> {
        let (batch, planes, height, width) = self.parameters.dims4()?;
        let (positions, channels) = (height * width, self.channels);
        let values = self.parameters.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        let mut x = vec![0f32; batch * channels * positions];
        for (item, x) in values.chunks_exact(planes * positions).zip(x.chunks_exact_mut(channels * positions)) {
            for position in 0..positions {
                let pixel = choose(&Components { item, positions, position, channels, form: self.form });
                for channel in 0..channels {
                    x[channel * positions + position] = pixel[channel.min(2)];
                }
            }
        }
        let x = Tensor::from_vec(x, (batch, channels, height, width), &Device::Cpu)?;
        Ok(x.to_dtype(self.parameters.dtype())?.to_device(self.parameters.device())?)
    }

    /// The nearest of the values that a pixel can have, from [-1, 1] to [0, 1].
    fn nearest(&self, x: f32) -> f32 {
        let steps = (self.levels - 1) as f32;
        ((x + 1.0) / 2.0 * steps).round().clamp(0.0, steps) / steps
    }
}

/// The parameters of the components at one position.
struct Components<'a> {
    item: &'a [f32],
    positions: usize,
    position: usize,
    channels: usize,
    form: LogisticForm,
}

impl Components<'_> {
    fn count(&self) -> usize {
        if let LogisticForm::Mixture(m) = self.form { m } else { 1 }
    }

    fn at(&self, plane: usize) -> f32 {
        self.item[plane * self.positions + self.position]
    }

    /// Logit of a component's weight.
    fn logit(&self, component: usize) -> f32 {
        if let LogisticForm::Mixture(_) = self.form { self.at(component) } else { 0.0 }
    }

    /// A parameter of a channel of a component: 0 for the mean, 1 for the log scale, 2 for the coupling.
    fn of(&self, kind: usize, channel: usize, component: usize) -> f32 {
        match self.form {
            LogisticForm::Single => self.at(kind * self.channels + channel),
            LogisticForm::Mixture(m) => {
                let kinds = if self.channels == 3 { 3 } else { 2 };
                self.at(m + (channel * kinds + kind) * m + component)
            }
        }
    }

    /// Channel after channel: `own(channel)` of a component, shifted by the channels before it and brought into [-1, 1].
    fn pixel(&self, own: impl Fn(usize) -> f32, coupling: impl Fn(usize) -> f32) -> [f32; 3] {
        let mut x = [0f32; 3];
        let coupled = self.channels == 3 && self.form != LogisticForm::Single;
        for channel in 0..self.channels.min(3) {
            let shift = match channel {
                1 if coupled => coupling(0) * x[0],
                2 if coupled => coupling(1) * x[0] + coupling(2) * x[1],
                _ => 0.0,
            };
            x[channel] = (own(channel) + shift).clamp(-1.0, 1.0);
        }
        x
    }

    /// The weights of the components.
    fn weights(&self) -> Vec<f32> {
        let logits: Vec<f32> = (0..self.count()).map(|m| self.logit(m)).collect();
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = logits.iter().map(|l| (l - largest).exp()).collect();
        let total: f32 = weights.iter().sum();
        weights.iter().map(|w| w / total).collect()
    }

    /// A component drawn with its weight to the power of `1 / temperature`: the Gumbel trick.
    fn draw(&self, temperature: f32, rng: &mut Rng) -> usize {
        let mut best = (f32::NEG_INFINITY, 0);
        for component in 0..self.count() {
            let gumbel = -(-inner_uniform(rng).ln()).ln();
            let score = self.logit(component) + temperature * gumbel;
            if score > best.0 {
                best = (score, component);
            }
        }
        best.1
    }
}

/// Uniform in (0, 1), away from the ends.
fn inner_uniform(rng: &mut Rng) -> f32 {
    (rng.uniform() as f32).clamp(1e-5, 1.0 - 1e-5)
}

impl Likelihood for DiscretizedLogistic {
    fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.to_dtype(self.parameters.dtype())?.affine(2.0, -1.0)?;
        discretized_logistic_log_prob(&self.parameters, &x, self.levels, self.form)
    }

    fn sample(&self, temperature: f64, rng: &mut Rng) -> Result<Tensor> {
        let temperature = temperature.max(0.0) as f32;
        self.pixels(&mut |components| {
            let m = components.draw(temperature, rng);
            let noise = [0; 3].map(|_| {
                let u = inner_uniform(rng);
                temperature * (u.ln() - (1.0 - u).ln())
            });
            let own = |channel: usize| {
                let scale = components.of(1, channel, m).max(LOWEST_LOG_SCALE).exp();
                components.of(0, channel, m) + scale * noise[channel]
            };
            components.pixel(own, |channel| components.of(2, channel, m).tanh()).map(|x| self.nearest(x))
        })
    }

    /// Means and couplings averaged over the components, channel after channel.
    fn mean(&self) -> Result<Tensor> {
        self.pixels(&mut |components| {
            let weights = components.weights();
            let average = |f: &dyn Fn(usize) -> f32| weights.iter().enumerate().map(|(m, w)| w * f(m)).sum::<f32>();
            let own = |channel: usize| average(&|m| components.of(0, channel, m));
            let coupling = |channel: usize| average(&|m| components.of(2, channel, m).tanh());
            components.pixel(own, coupling).map(|x| (x + 1.0) / 2.0)
        })
    }
}
