//! The score of a mixture of Gaussians whose shares come from the context.

use candle_core::{D, DType, Tensor, Var};
use lsgm_core::{Error, Init, LatentShape, Params, Pass, Result, Rng};
use lsgm_nn::ops::{component_shares, diffused_gaussians, expected_factors, linear};
use lsgm_nn::{Linear, full_precision, init};
use serde::{Deserialize, Serialize};

use super::clusters::{Clusters, k_means};
use super::patches::Patches;
use super::trunk::Trunk;
use super::{ScoreNetwork, TransformerConfig};
use crate::Sde;

/// Rounds of the clustering that the means start from.
const ROUNDS: usize = 5;
/// The narrowest Gaussian to start from.
const SMALLEST_VARIANCE: f64 = 1e-3;

/// Config of [`Mixture`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixtureConfig {
    /// Number of Gaussians; as many as the data have symbols, or a few more.
    pub components: usize,
    /// Standard deviation of the means where there are no encoded data to start from, below 1; together with their width
    /// it makes N(0, 1).
    pub spread: f64,
    /// Weight in the prior's objective of the cross entropy, in nats, between the Gaussians that tokens come from and those
    /// that the network takes them to come from: it teaches the shares faster than the squared error of the noise, which
    /// says little where the network is sure of the wrong one (Dieleman et al. 2022, arXiv 2211.15089).
    pub category_weight: f64,
    /// What the transformer that reads the context is like.
    pub transformer: TransformerConfig,
}

impl Default for MixtureConfig {
    fn default() -> Self {
        Self { components: 256, spread: 0.5, category_weight: 0.0, transformer: TransformerConfig::default() }
    }
}

impl MixtureConfig {
    /// # Errors
    /// [`Error::Config`] with a key below `key`.
    pub fn validate(&self, key: &str, shape: &LatentShape) -> Result<()> {
        if self.components == 0 {
            return Err(Error::config(format!("{key}.components"), "must be positive"));
        }
        if !(self.spread > 0.0 && self.spread < 1.0) {
            return Err(Error::config(format!("{key}.spread"), "must lie between 0 and 1"));
        }
        if !(self.category_weight >= 0.0 && self.category_weight.is_finite()) {
            return Err(Error::config(format!("{key}.category_weight"), "must be a number from 0 on"));
        }
        self.transformer.validate(&format!("{key}.transformer"), shape)
    }
}

/// The score network for latents that gather in clusters, as those of discrete data do.
///
/// Given the rest of `z_0`, each token `y` of it is taken to come from a mixture of `K` Gaussians `N(c_k, s_k²)` with shares
/// `π_k`. Diffused it is a mixture of `N(m_t c_k, v_k)`, `v_k = m_t² s_k² + σ_t²`, so that the noise in `y_t` is
/// `ε' = σ_t Σ_k p_k (y_t - m_t c_k) / v_k` with `p_k ∝ π_k N(y_t; m_t c_k, v_k)`. Means, variances and a first guess of
/// the shares are parameters. A transformer reads which Gaussians each token may come from under that guess, and says what
/// the tokens together make of the shares. So the network has categories to reason about, and none of its capacity goes
/// into the shape of their clusters.
///
/// Training starts from clusters of the encoder's means at the end of stage 1.
#[derive(Debug)]
pub struct Mixture {
    sde: Sde,
    patches: Patches,
    means: Tensor,
    log_variance: Tensor,
    log_shares: Tensor,
    enter: Linear,
    symbols: Tensor,
    trunk: Trunk,
    leave: Linear,
    category_weight: f64,
}

impl Mixture {
    /// Build the network; `config` is taken to be valid.
    pub fn new(config: &MixtureConfig, shape: LatentShape, sde: Sde, params: &Params) -> Result<Self> {
        let patches = Patches::new(&shape, config.transformer.patch);
        let (inputs, width, count) = (patches.width(), config.transformer.channels, config.components);
        let log_variance = Init::Const((1.0 - config.spread * config.spread).ln());
        let weight = init::glorot_uniform(inputs, width);
        Ok(Self {
            sde,
            means: params.get("means", (count, inputs), Init::Normal(config.spread))?,
            log_variance: params.get("log_variance", (count, inputs), log_variance)?,
            log_shares: params.get("log_shares", count, init::zeros())?,
            enter: Linear::new_with(inputs, width, Some(init::zeros()), weight, &params.pp("x_embedder"))?,
            symbols: params.get("symbols", (width, count), Init::Normal(1.0))?,
            trunk: Trunk::new(&config.transformer, patches.count(), params)?,
            leave: Linear::new_with(width, count, None, init::zeros(), &params.pp("final_layer.linear"))?,
            patches,
            category_weight: config.category_weight,
        })
    }

    fn read(&self, z_t: &Tensor, t: &Tensor, pass: &mut Pass<'_>) -> Result<Reading> {
        let mixture = self.diffused(&t.to_dtype(DType::F64)?.to_vec1()?)?;
        let tokens = self.patches.split(z_t)?;
        let features = features(&tokens)?;
        let guess = component_shares(&features, &mixture.factors)?;
        let entering = (linear(&guess, &self.symbols, None)? + self.enter.forward(&tokens)?)?;
        let context = full_precision(&self.leave.forward(&self.trunk.forward(&entering, t, pass)?)?)?;
        Ok(Reading { mixture, tokens, features, context })
    }

    /// The noise in tokens that come from the components as `context` says, and with `targets` the cross entropy with theirs,
    /// `[B]` nats.
    fn noise(
        &self,
        reading: &Reading,
        context: &Tensor,
        targets: Option<[&Tensor; 2]>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let Reading { mixture, tokens, features, .. } = reading;
        let (expected, cross_entropy) = expected_factors(features, &mixture.factors, context, targets)?;
        let noise = self.patches.merge(&mixture.noise(tokens, &expected)?, tokens.dim(0)?)?;
        Ok((noise, cross_entropy.map(|c| c.sum(D::Minus1)).transpose()?))
    }

    /// The mixture at these times.
    fn diffused(&self, times: &[f64]) -> Result<Diffused> {
        let sigmas: Vec<f64> = times.iter().map(|&t| self.sde.sigma(t)).collect();
        let moments: Vec<_> =
            times.iter().zip(&sigmas).map(|(&t, sigma)| (self.sde.mean_coefficient(t), sigma * sigma)).collect();
        Ok(Diffused {
            sigma: Tensor::new(sigmas, self.means.device())?.reshape(((), 1, 1))?.to_dtype(self.means.dtype())?,
            factors: diffused_gaussians(&self.means, &self.log_variance, &self.log_shares, &moments)?,
        })
    }
}

/// What the network makes of diffused latents.
struct Reading {
    mixture: Diffused,
    /// `[B, L, D]`, and their [`features`].
    tokens: Tensor,
    features: Tensor,
    /// What the context adds to the logarithms of the components' weights, `[B, L, K]`.
    context: Tensor,
}

/// A mixture at times `[B]`.
struct Diffused {
    /// `σ_t`, `[B, 1, 1]`.
    sigma: Tensor,
    /// `m_t c_k / v_k`, `1 / v_k`, and what `log π_k N(y; m_t c_k, v_k)` holds beside `y`: `[B, K, 2 D + 1]`.
    factors: Tensor,
}

impl Diffused {
    /// The noise in tokens `[B, L, D]` whose components have these factors in the mean, `[B, L, 2 D + 1]`.
    fn noise(&self, tokens: &Tensor, expected: &Tensor) -> Result<Tensor> {
        let width = tokens.dim(D::Minus1)?;
        let (pull, precision) = (expected.narrow(D::Minus1, 0, width)?, expected.narrow(D::Minus1, width, width)?);
        Ok(((tokens * precision)? - pull)?.broadcast_mul(&self.sigma)?)
    }
}

/// What `log π_k N(y; m_t c_k, v_k)` is linear in, of tokens `y` `[B, L, D]`: `[B, L, 2 D + 1]`. Its products with the
/// factors are these logarithms up to what all components share.
fn features(tokens: &Tensor) -> Result<Tensor> {
    let (items, count, _) = tokens.dims3()?;
    let one = Tensor::ones((items, count, 1), tokens.dtype(), tokens.device())?;
    Ok(Tensor::cat(&[tokens, &(tokens.sqr()? * -0.5)?, &one], D::Minus1)?)
}

impl ScoreNetwork for Mixture {
    fn forward(&self, z_t: &Tensor, t: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        let reading = self.read(z_t, t, pass)?;
        Ok(self.noise(&reading, &reading.context, None)?.0)
    }

    /// The shares that the context leaves to the components are taken to the power `strength`, as a language model is sampled
    /// at a temperature of `1 / strength`.
    fn guided(&self, z_t: &Tensor, t: &Tensor, strength: f64, pass: &mut Pass<'_>) -> Result<Tensor> {
        let reading = self.read(z_t, t, pass)?;
        // The mixture has the shares without the context once.
        let shares = (&self.log_shares * (strength - 1.0))?;
        Ok(self.noise(&reading, &(&reading.context * strength)?.broadcast_add(&shares)?, None)?.0)
    }

    fn forward_to(
        &self,
        z_t: &Tensor,
        t: &Tensor,
        z_0: &Tensor,
        pass: &mut Pass<'_>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let reading = self.read(z_t, t, pass)?;
        if self.category_weight == 0.0 {
            return self.noise(&reading, &reading.context, None);
        }
        // At t = 0 all items have the same mixture, and the Gaussians themselves are a matter of the noise alone.
        let (targets, components) = (features(&self.patches.split(&z_0.detach())?)?, self.diffused(&[0.0])?.factors);
        let targets = Some([&targets, &components.squeeze(0)?.detach()]);
        let (noise, loss) = self.noise(&reading, &reading.context, targets)?;
        Ok((noise, loss.map(|loss| loss * self.category_weight).transpose()?))
    }

    fn fits(&self) -> bool {
        true
    }

    fn fit(&self, mean: &Tensor, variance: &Tensor, rng: &mut Rng) -> Result<()> {
        let (count, dim) = self.means.dims2()?;
        let tokens = |x: &Tensor| -> Result<Tensor> { Ok(self.patches.split(&x.detach())?.to_dtype(DType::F64)?) };
        let points = tokens(mean)?.flatten_all()?.to_vec1::<f64>()?;
        let variances = tokens(variance)?.flatten_all()?.to_vec1::<f64>()?;
        let Clusters { means, counts, variances } = k_means(&points, &variances, dim, count, ROUNDS, rng);
        let widths: Vec<f64> = variances.iter().map(|v| v.max(SMALLEST_VARIANCE).ln()).collect();
        // An empty cluster still gets half a point.
        let total = (points.len() / dim) as f64 + 0.5 * count as f64;
        let shares: Vec<f64> = counts.iter().map(|&n| ((n as f64 + 0.5) / total).ln()).collect();
        set(&self.means, means)?;
        set(&self.log_variance, widths)?;
        set(&self.log_shares, shares)
    }
}

/// Set a trainable parameter.
fn set(parameter: &Tensor, values: Vec<f64>) -> Result<()> {
    if !parameter.is_variable() {
        return Err(Error::contract("mixture", "a frozen score network cannot be fitted"));
    }
    let values = Tensor::from_vec(values, parameter.shape(), &candle_core::Device::Cpu)?;
    Ok(Var::from_tensor(parameter)?.set(&values.to_dtype(parameter.dtype())?.to_device(parameter.device())?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SdeConfig;
    use candle_core::Device;
    use lsgm_core::{ParamStore, Rng};
    use lsgm_nn::ops::softmax;

    impl Reading {
        /// Logarithms of the weights of the components without the context, `[B, L, K]`.
        fn guess(&self) -> Tensor {
            self.features.matmul(&self.mixture.factors.t().unwrap().contiguous().unwrap()).unwrap()
        }
    }

    /// Without a context it is the score of a mixture of Gaussians, here against its density by central differences.
    #[test]
    fn it_starts_as_the_score_of_a_mixture_of_gaussians() {
        let config = MixtureConfig {
            components: 5,
            spread: 0.6,
            category_weight: 0.0,
            transformer: TransformerConfig { channels: 8, heads: 2, blocks: 1, embedding: 8, ..Default::default() },
        };
        let shape = LatentShape::line(2, 3);
        let sde = Sde::new(&SdeConfig::default()).unwrap();
        let store = ParamStore::new(DType::F64, &Device::Cpu, Rng::new(1));
        let network = Mixture::new(&config, shape, sde, &store.root()).unwrap();
        let means = network.means.to_vec2::<f64>().unwrap();
        let (t, mut rng) = (0.2, Rng::new(2));
        let (m, sigma) = (sde.mean_coefficient(t), sde.sigma(t));
        let v = m * m * (1.0 - 0.36) + sigma * sigma;
        let log_density = |y: &[f64; 2]| {
            let square = |c: &[f64]| y.iter().zip(c).map(|(y, c)| (y - m * c).powi(2)).sum::<f64>();
            means.iter().map(|c| (-0.5 * square(c) / v).exp()).sum::<f64>().ln()
        };

        let z = rng.normal_tensor(shape.dims(1), DType::F64, &Device::Cpu).unwrap();
        let times = Tensor::new(&[t], &Device::Cpu).unwrap();
        let noise = network.forward(&z, &times, &mut Pass::eval(&mut rng)).unwrap().squeeze(0).unwrap();
        let (z, noise) = (z.squeeze(0).unwrap().to_vec2::<f64>().unwrap(), noise.to_vec2::<f64>().unwrap());
        let h = 1e-5;
        for i in 0..3 {
            for d in 0..2 {
                let moved = |by: f64| {
                    let mut y = [z[0][i], z[1][i]];
                    y[d] += by;
                    log_density(&y)
                };
                let score = (moved(h) - moved(-h)) / (2.0 * h);
                assert!((noise[d][i] + sigma * score).abs() < 1e-8, "{} {}", noise[d][i], -sigma * score);
            }
        }
    }

    /// A small network whose context says something, latents and times.
    fn with_context() -> (Mixture, Tensor, Tensor) {
        let transformer = TransformerConfig { channels: 8, heads: 2, blocks: 1, embedding: 8, ..Default::default() };
        let config = MixtureConfig { components: 5, spread: 0.8, category_weight: 2.0, transformer };
        let shape = LatentShape::line(2, 3);
        let store = ParamStore::new(DType::F64, &Device::Cpu, Rng::new(1));
        let network = Mixture::new(&config, shape, Sde::new(&SdeConfig::default()).unwrap(), &store.root()).unwrap();
        let mut rng = Rng::new(2);
        let (_, last) = store.vars().into_iter().find(|(name, _)| name == "final_layer.linear.weight").unwrap();
        last.set(&rng.normal_tensor(last.shape().clone(), DType::F64, &Device::Cpu).unwrap()).unwrap();
        let z = rng.normal_tensor(shape.dims(2), DType::F64, &Device::Cpu).unwrap();
        (network, z, Tensor::new(&[0.3, 0.6], &Device::Cpu).unwrap())
    }

    /// The cross entropy with the components that the latents come from, by the definition of the mixture.
    #[test]
    fn the_loss_of_categories_is_their_cross_entropy() {
        let (network, z_0, t) = with_context();
        let mut rng = Rng::new(3);
        let (noise, loss) = network.forward_to(&z_0, &t, &z_0, &mut Pass::eval(&mut rng)).unwrap();
        assert_eq!(noise.dims(), z_0.dims());
        let reading = network.read(&z_0, &t, &mut Pass::eval(&mut rng)).unwrap();
        let logits = (reading.guess() + &reading.context).unwrap().to_vec3::<f64>().unwrap();
        let (means, widths) =
            (network.means.to_vec2::<f64>().unwrap(), network.log_variance.exp().unwrap().to_vec2::<f64>().unwrap());
        let z = z_0.to_vec3::<f64>().unwrap();
        let softmax = |logs: Vec<f64>| {
            let total: f64 = logs.iter().map(|l| l.exp()).sum();
            logs.into_iter().map(|l| l.exp() / total).collect::<Vec<f64>>()
        };
        let expected: Vec<f64> = (0..2)
            .map(|b| {
                let of_token = |l: usize| {
                    let density = |k: usize| -> f64 {
                        (0..2)
                            .map(|d| -0.5 * ((z[b][d][l] - means[k][d]).powi(2) / widths[k][d] + widths[k][d].ln()))
                            .sum()
                    };
                    let (target, told) = (softmax((0..5).map(density).collect()), softmax(logits[b][l].clone()));
                    -target.iter().zip(told).map(|(r, p)| r * p.ln()).sum::<f64>()
                };
                2.0 * (0..3).map(of_token).sum::<f64>()
            })
            .collect();
        for (found, expected) in loss.unwrap().to_vec1::<f64>().unwrap().into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9 * expected, "{found} against {expected}");
        }
    }

    /// Counted once it is the network; else components have the shares that the context leaves them to that power.
    #[test]
    fn guidance_is_a_power_of_the_shares() {
        let (network, z, t) = with_context();
        let shares = vec![0.1, -0.4, 0.8, -1.2, 0.3];
        set(&network.log_shares, shares.clone()).unwrap();
        let shares = Tensor::new(shares, &Device::Cpu).unwrap();
        let values = |noise: Tensor| noise.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let reading = network.read(&z, &t, &mut Pass::eval(&mut Rng::new(3))).unwrap();
        for strength in [0.0, 0.5, 1.0, 3.0] {
            let likelihood = reading.guess().broadcast_sub(&shares).unwrap();
            let told = (reading.context.broadcast_add(&shares).unwrap() * strength).unwrap();
            let weights = softmax(&(likelihood + told).unwrap()).unwrap();
            let noise =
                reading.mixture.noise(&reading.tokens, &weights.matmul(&reading.mixture.factors).unwrap()).unwrap();
            let expected = values(network.patches.merge(&noise, 2).unwrap());
            let found = values(network.guided(&z, &t, strength, &mut Pass::eval(&mut Rng::new(3))).unwrap());
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-12, "{a} and {b} at {strength}");
            }
            let forward = values(network.forward(&z, &t, &mut Pass::eval(&mut Rng::new(3))).unwrap());
            assert_eq!(found == forward, strength == 1.0);
        }
    }
}
