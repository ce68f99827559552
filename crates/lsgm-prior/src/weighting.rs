//! How the denoising errors at different times are weighted against each other, and how the times are drawn.

use candle_core::cpu::erf::{erf_f64, erf_inv};
use lsgm_core::{Error, Result, Rng};
use serde::{Deserialize, Serialize};

use crate::Sde;

/// The weighting of the denoising error and the proposal of `t` (LSGM, section 3.2 and appendix B).
///
/// The weights are `w_ll = g²/2σ²` (likelihood), `w_un = 1` (unweighted) and `w_re = g²/2` (reweighted); `Uniform` draws
/// `t` uniformly, `Iw` by importance sampling from the proposal that minimises the variance for N(0, I) data. `LlAngle` and
/// `LlClusters` are not the paper's; see their own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// Likelihood weighting, uniform `t`.
    #[serde(alias = "ll_uniform")]
    LlUniform,
    /// Likelihood weighting, importance-sampled `t` (`log σ_t²` uniform).
    #[default]
    #[serde(alias = "ll_iw")]
    LlIw,
    /// Likelihood weighting, `arctan(σ_t / m_t)` uniform: for a network that corrects the score of N(0, I)
    /// (`prediction = "correction"`), where the noise of the gradient is the same at every `t`.
    #[serde(alias = "ll_angle")]
    LlAngle,
    /// Likelihood weighting, `cos³ φ` with `φ = arctan(σ_t / m_t)` uniform: for latents in clusters (the `mixture` network).
    /// Which cluster a latent belongs to is in doubt around `φ` = 30°, and there alone has the network something to learn:
    /// below the latent says it, above nothing does. A network whose error does not vanish towards 90° has rare, very large
    /// gradients under it. For `sub-vpsde` the angles of both weightings are those of the VPSDE with the same β.
    #[serde(alias = "ll_clusters")]
    LlClusters,
    /// Unweighted, uniform `t` (`drop_all_uniform` of the published code).
    #[serde(alias = "un_uniform")]
    UnUniform,
    /// Unweighted, importance-sampled `t` (`drop_all_iw`).
    #[serde(alias = "un_iw")]
    UnIw,
    /// Reweighted, uniform `t` (`drop_sigma2t_uniform`).
    #[serde(alias = "re_uniform")]
    ReUniform,
    /// Reweighted, importance-sampled `t` (`drop_sigma2t_iw`, `σ_t²` uniform).
    #[serde(alias = "re_iw")]
    ReIw,
    /// Uniform `t` with the weights `½ / (1 - σ_t²)` that importance sampling of `w_ll` would give.
    Rescale,
}

/// Times for a batch with everything that belongs to them, one value per item.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    /// The times, in `[t_eps, 1]`.
    pub t: Vec<f64>,
    /// `σ_t²`.
    pub variance: Vec<f64>,
    /// `m_t`.
    pub mean_coefficient: Vec<f64>,
    /// `g²(t)`.
    pub g2: Vec<f64>,
    /// What multiplies `‖ε - ε_θ‖²` in the objective of the prior, importance weight included.
    pub weight: Vec<f64>,
    /// What multiplies it in the likelihood-weighted objective, for the same draws.
    pub likelihood_weight: Vec<f64>,
    /// The cut-off: times are drawn above it.
    pub t_eps: f64,
    /// `correction · likelihood_weight · ‖ε - ε_θ‖²` is unbiased for the integral over `[t_eps, 1]`. The weights are
    /// those of the published implementation, which takes the interval of uniform times to be 1 instead of `1 - t_eps`
    /// and has `exp(β0 / 2(β1 - β0))` for `exp(β0² / 2(β1 - β0))` in the normaliser of `un-iw`. Otherwise this is 1.
    pub correction: f64,
}

impl Times {
    /// Number of times.
    pub fn len(&self) -> usize {
        self.t.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.t.is_empty()
    }
}

impl Weighting {
    /// Every weighting.
    pub const ALL: [Self; 9] = [
        Self::LlUniform,
        Self::LlIw,
        Self::LlAngle,
        Self::LlClusters,
        Self::UnUniform,
        Self::UnIw,
        Self::ReUniform,
        Self::ReIw,
        Self::Rescale,
    ];

    /// The name in configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::LlUniform => "ll-uniform",
            Self::LlIw => "ll-iw",
            Self::LlAngle => "ll-angle",
            Self::LlClusters => "ll-clusters",
            Self::UnUniform => "un-uniform",
            Self::UnIw => "un-iw",
            Self::ReUniform => "re-uniform",
            Self::ReIw => "re-iw",
            Self::Rescale => "rescale",
        }
    }

    /// Whether the objective of the prior is the likelihood-weighted one, as algorithm 1 needs it.
    pub fn is_likelihood(self) -> bool {
        matches!(self, Self::LlUniform | Self::LlIw | Self::LlAngle | Self::LlClusters)
    }

    /// Whether the weighting is defined for an SDE: the geometric VPSDE has no closed-form proposal for the unweighted
    /// objective, and `rescale` turns negative where `σ_t²` exceeds 1, as it does for the variance-exploding SDE.
    pub fn is_defined_for(self, sde: &Sde) -> bool {
        match self {
            Self::UnIw => Proposal::of(self, sde).is_some(),
            Self::Rescale => !sde.is_variance_exploding(),
            _ => true,
        }
    }

    /// Refuse a weighting that an SDE does not have.
    ///
    /// # Errors
    /// [`Error::Config`] at `key` with the list of those that are defined.
    pub fn check(self, key: &str, sde: &Sde) -> Result<()> {
        if self.is_defined_for(sde) {
            return Ok(());
        }
        let defined: Vec<&str> = Self::ALL.iter().filter(|w| w.is_defined_for(sde)).map(|w| w.name()).collect();
        let message =
            format!("weighting `{}` is not defined for this SDE: use one of {}", self.name(), defined.join(", "));
        Err(Error::config(key, message))
    }

    /// The weight before any importance weight.
    fn at(self, sde: &Sde, t: f64) -> f64 {
        match self {
            Self::LlUniform | Self::LlIw | Self::LlAngle | Self::LlClusters => likelihood_weight(sde, t),
            Self::UnUniform | Self::UnIw => 1.0,
            Self::ReUniform | Self::ReIw => 0.5 * sde.g2(t),
            Self::Rescale => 0.5 / (1.0 - sde.variance(t)),
        }
    }
}

fn likelihood_weight(sde: &Sde, t: f64) -> f64 {
    0.5 * sde.g2(t) / sde.variance(t)
}

/// Where times come from: density `slope(t) / (cumulative(1) - cumulative(t_eps))` on `[t_eps, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proposal {
    Uniform,
    /// `log σ_t²` uniform.
    LogVariance,
    /// `σ_t²` uniform.
    Variance,
    /// Density ∝ `1 - σ_t²`, a Gaussian in `t` where `β(t)` is linear.
    Gaussian,
    /// `arctan(σ_t / m_t)` uniform.
    Angle,
    /// The cube of the cosine of that angle uniform.
    CubedCosine,
    /// Variance exploding: `log(σ_t² / marginal variance)` uniform.
    LogNoiseShare,
    /// Variance exploding: log of the marginal variance uniform.
    LogMarginal,
}

impl Proposal {
    fn of(weighting: Weighting, sde: &Sde) -> Option<Self> {
        let exploding = sde.is_variance_exploding();
        match weighting {
            Weighting::LlUniform | Weighting::UnUniform | Weighting::ReUniform | Weighting::Rescale => {
                Some(Self::Uniform)
            }
            Weighting::LlAngle => Some(Self::Angle),
            Weighting::LlClusters => Some(Self::CubedCosine),
            Weighting::LlIw | Weighting::UnIw if exploding => Some(Self::LogNoiseShare),
            Weighting::ReIw if exploding => Some(Self::LogMarginal),
            Weighting::LlIw => Some(Self::LogVariance),
            Weighting::ReIw => Some(Self::Variance),
            Weighting::UnIw => sde.beta().map(|_| Self::Gaussian),
        }
    }

    fn cumulative(self, sde: &Sde, t: f64) -> f64 {
        match self {
            Self::Uniform => t,
            Self::LogVariance => sde.variance(t).ln(),
            Self::Variance => sde.variance(t),
            Self::Gaussian => gaussian(sde).map_or(f64::NAN, |(rate, shift)| erf_f64(rate * (t + shift))),
            Self::Angle => angle(sde, t),
            // Falls with time: its negative grows.
            Self::CubedCosine => -angle(sde, t).cos().powi(3),
            Self::LogNoiseShare => (sde.variance(t) / sde.marginal_variance(t)).ln(),
            Self::LogMarginal => sde.marginal_variance(t).ln(),
        }
    }

    fn inverse(self, sde: &Sde, value: f64) -> f64 {
        let signal = 1.0 - sde.sigma2_0();
        match self {
            Self::Uniform => value,
            Self::LogVariance => sde.inverse_variance(value.exp()),
            Self::Variance => sde.inverse_variance(value),
            Self::Gaussian => gaussian(sde).map_or(f64::NAN, |(rate, shift)| erf_inv(value) / rate - shift),
            Self::Angle => sde.inverse_lambda(-value.tan().ln()),
            Self::CubedCosine => sde.inverse_lambda(-(-value).cbrt().acos().tan().ln()),
            Self::LogNoiseShare => sde.inverse_variance(signal * value.exp() / -value.exp_m1()),
            Self::LogMarginal => sde.inverse_variance(value.exp() - signal),
        }
    }

    /// The derivative of [`Proposal::cumulative`].
    fn slope(self, sde: &Sde, t: f64) -> f64 {
        let share = || 1.0 - sde.variance(t) / sde.marginal_variance(t);
        match self {
            Self::Uniform => 1.0,
            Self::LogVariance | Self::LogNoiseShare => sde.g2(t) / sde.variance(t) * share(),
            Self::Variance => sde.g2(t) * share(),
            Self::Gaussian => gaussian(sde).map_or(f64::NAN, |(rate, shift)| {
                rate * std::f64::consts::FRAC_2_SQRT_PI * (-(rate * (t + shift)).powi(2)).exp()
            }),
            Self::Angle => angle_slope(sde, t),
            Self::CubedCosine => {
                let (sine, cosine) = angle(sde, t).sin_cos();
                3.0 * cosine * cosine * sine * angle_slope(sde, t)
            }
            Self::LogMarginal => sde.g2(t) / sde.marginal_variance(t),
        }
    }

    /// [`Times::correction`].
    fn correction(self, sde: &Sde, t_eps: f64) -> f64 {
        match (self, sde.beta()) {
            (Self::Uniform, _) => 1.0 - t_eps,
            (Self::Gaussian, Some(beta)) => (0.5 * beta.start * (beta.start - 1.0) / (beta.end - beta.start)).exp(),
            _ => 1.0,
        }
    }
}

/// `arctan(σ_t / m_t)`.
fn angle(sde: &Sde, t: f64) -> f64 {
    sde.sigma(t).atan2(sde.mean_coefficient(t))
}

/// Its derivative.
fn angle_slope(sde: &Sde, t: f64) -> f64 {
    let (sigma, m) = (sde.sigma(t), sde.mean_coefficient(t));
    0.5 * sde.g2(t) * m / (sigma * (sigma * sigma + m * m))
}

fn gaussian(sde: &Sde) -> Option<(f64, f64)> {
    sde.beta().map(|beta| beta.gaussian())
}

impl Sde {
    /// `n` independent times for a weighting, by inversion of uniform numbers.
    ///
    /// # Errors
    /// [`Error::Config`] when the SDE has no such weighting, or `t_eps` is no valid cut-off.
    pub fn sample_times(&self, weighting: Weighting, n: usize, t_eps: f64, rng: &mut Rng) -> Result<Times> {
        weighting.check("weighting", self)?;
        let rho: Vec<f64> = (0..n).map(|_| rng.uniform()).collect();
        self.times_at(weighting, &rho, t_eps)
    }

    /// `n` times that share one uniform number: `rho_i = frac(u + i/n)` in random order. Each is distributed as in
    /// [`Sde::sample_times`], but together they cover `[0, 1]` evenly, which lowers the variance of a batch mean (Kingma
    /// et al. 2021, "Variational diffusion models", appendix I).
    ///
    /// # Errors
    /// As [`Sde::sample_times`].
    pub fn stratified_times(&self, weighting: Weighting, n: usize, t_eps: f64, rng: &mut Rng) -> Result<Times> {
        weighting.check("weighting", self)?;
        let start = rng.uniform();
        let mut rho: Vec<f64> = (0..n).map(|i| (start + i as f64 / n as f64).fract()).collect();
        rng.shuffle(&mut rho);
        self.times_at(weighting, &rho, t_eps)
    }

    /// The times that numbers `rho` uniform in `[0, 1)` lead to, with their weights.
    ///
    /// # Errors
    /// As [`Sde::sample_times`].
    pub fn times_at(&self, weighting: Weighting, rho: &[f64], t_eps: f64) -> Result<Times> {
        self.check_t_eps("t_eps", t_eps)?;
        let proposing = self.proposal_sde();
        let Some(proposal) = Proposal::of(weighting, &proposing) else {
            return Err(weighting.check("weighting", self).err().unwrap_or_else(|| {
                Error::contract("weighting", format!("`{}` has no proposal for this SDE", weighting.name()))
            }));
        };
        let (low, high) = (proposal.cumulative(&proposing, t_eps), proposal.cumulative(&proposing, 1.0));
        let t: Vec<f64> =
            rho.iter().map(|&r| proposal.inverse(&proposing, low + (high - low) * r).clamp(t_eps, 1.0)).collect();
        let correction = proposal.correction(&proposing, t_eps);
        let importance = |t: f64| (high - low) / (correction * proposal.slope(&proposing, t));
        let each = |value: &dyn Fn(f64) -> f64| t.iter().map(|&t| value(t)).collect::<Vec<f64>>();
        Ok(Times {
            variance: each(&|t| self.variance(t)),
            mean_coefficient: each(&|t| self.mean_coefficient(t)),
            g2: each(&|t| self.g2(t)),
            weight: each(&|t| weighting.at(self, t) * importance(t)),
            likelihood_weight: each(&|t| likelihood_weight(self, t) * importance(t)),
            t,
            t_eps,
            correction,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SdeConfig;

    /// For N(0, I) data the best squared error per dimension is `1 - σ²/marginal variance`, so that the expectation of
    /// `weight · error` is an integral known in closed form.
    #[test]
    fn every_proposal_gives_the_same_likelihood_integral() {
        for config in SdeConfig::all_defaults() {
            let sde = Sde::new(&config).unwrap();
            let t_eps = 1e-3;
            let error = |t: f64| 1.0 - sde.variance(t) / sde.marginal_variance(t);
            let steps = 400_000;
            let exact: f64 = (0..steps)
                .map(|i| t_eps + (1.0 - t_eps) * (i as f64 + 0.5) / steps as f64)
                .map(|t| likelihood_weight(&sde, t) * error(t))
                .sum::<f64>()
                * (1.0 - t_eps)
                / steps as f64;
            for weighting in Weighting::ALL.into_iter().filter(|w| w.is_defined_for(&sde)) {
                let n = 400_000;
                let rho: Vec<f64> = (0..n).map(|i| (i as f64 + 0.5) / n as f64).collect();
                let times = sde.times_at(weighting, &rho, t_eps).unwrap();
                let mean =
                    times.t.iter().zip(&times.likelihood_weight).map(|(&t, w)| w * error(t)).sum::<f64>() / n as f64;
                let estimate = times.correction * mean;
                assert!((estimate / exact - 1.0).abs() < 2e-4, "{config:?} {weighting:?}: {estimate} {exact}");
            }
        }
    }

    #[test]
    fn undefined_combinations_are_refused_with_what_is_defined() {
        let geometric = Sde::new(&SdeConfig::all_defaults()[1]).unwrap();
        let message = geometric.sample_times(Weighting::UnIw, 3, 0.0, &mut Rng::new(1)).unwrap_err().to_string();
        assert!(message.contains("`un-iw` is not defined") && message.contains("re-iw, rescale"), "{message}");
        let exploding = Sde::new(&SdeConfig::all_defaults()[3]).unwrap();
        assert!(Weighting::Rescale.check("train.lsgm.weighting", &exploding).is_err());
    }

    #[test]
    fn stratified_times_have_one_number_in_each_stratum() {
        let sde = Sde::new(&SdeConfig::default()).unwrap();
        let times = sde.stratified_times(Weighting::LlUniform, 10, 1e-3, &mut Rng::new(4)).unwrap();
        let mut strata: Vec<usize> = times.t.iter().map(|t| (10.0 * (t - 1e-3) / (1.0 - 1e-3)) as usize).collect();
        strata.sort_unstable();
        assert_eq!(strata, (0..10).collect::<Vec<_>>());
    }
}
