//! Stochastic differential equations `dz = f(t) z dt + g(t) dw` on `t ∈ [0, 1]` with closed-form marginals
//! `z_t = m_t z_0 + σ_t ε`, and everything about them that is a number: all of it in `f64`.

mod config;
mod geometric;
mod linear;

pub use config::SdeConfig;
use geometric::GeometricVariance;
use linear::LinearBeta;

use lsgm_core::Result;

/// A validated SDE (LSGM, appendix B; Song et al. 2021, appendix B).
///
/// All functions take `t` in `[0, 1]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sde {
    kind: Kind,
    sigma2_0: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Vpsde(LinearBeta),
    SubVpsde(LinearBeta),
    Geometric(GeometricVariance),
    Vesde(GeometricVariance),
}

impl Sde {
    /// The SDE of a config.
    ///
    /// # Errors
    /// [`lsgm_core::Error::Config`] for parameters outside their range; the key starts with `prior.sde`.
    pub fn new(config: &SdeConfig) -> Result<Self> {
        config.validate("prior.sde")?;
        let (kind, sigma2_0) = match *config {
            SdeConfig::Vpsde { beta_start, beta_end, sigma2_0 } => {
                (Kind::Vpsde(LinearBeta { start: beta_start, end: beta_end }), sigma2_0)
            }
            SdeConfig::SubVpsde { beta_start, beta_end, sigma2_0 } => {
                (Kind::SubVpsde(LinearBeta { start: beta_start, end: beta_end }), sigma2_0)
            }
            SdeConfig::Geometric { sigma2_min, sigma2_max, sigma2_0 } => {
                (Kind::Geometric(GeometricVariance { min: sigma2_min, max: sigma2_max }), sigma2_0)
            }
            SdeConfig::Vesde { sigma2_min, sigma2_max, sigma2_0 } => {
                (Kind::Vesde(GeometricVariance { min: sigma2_min, max: sigma2_max }), sigma2_0)
            }
        };
        Ok(Self { kind, sigma2_0 })
    }

    /// Drift coefficient `f(t)` of the drift `f(t) z`.
    pub fn f(&self, t: f64) -> f64 {
        match self.kind {
            Kind::Vpsde(beta) | Kind::SubVpsde(beta) => -0.5 * beta.at(t),
            Kind::Geometric(_) => -0.5 * self.g2(t),
            Kind::Vesde(_) => 0.0,
        }
    }

    /// Squared diffusion coefficient `g²(t)`.
    pub fn g2(&self, t: f64) -> f64 {
        match self.kind {
            Kind::Vpsde(beta) => beta.at(t),
            Kind::SubVpsde(beta) => -beta.at(t) * (-2.0 * beta.integral(t)).exp_m1(),
            Kind::Geometric(v) => v.rate(t) / (1.0 - self.variance(t)),
            Kind::Vesde(v) => v.rate(t),
        }
    }

    /// `σ_t²`, the variance of `z_t` given `z_0`.
    pub fn variance(&self, t: f64) -> f64 {
        match self.kind {
            Kind::Vpsde(beta) => {
                let b = beta.integral(t);
                self.sigma2_0 * (-b).exp() - (-b).exp_m1()
            }
            Kind::SubVpsde(beta) => {
                let b = beta.integral(t);
                (-b).exp_m1().powi(2) + self.sigma2_0 * (-b).exp()
            }
            Kind::Geometric(v) | Kind::Vesde(v) => v.at(t) - v.min + self.sigma2_0,
        }
    }

    /// `σ_t`.
    pub fn sigma(&self, t: f64) -> f64 {
        self.variance(t).sqrt()
    }

    /// `m_t`, the coefficient of `z_0` in the mean of `z_t`.
    pub fn mean_coefficient(&self, t: f64) -> f64 {
        match self.kind {
            Kind::Vpsde(beta) | Kind::SubVpsde(beta) => (-0.5 * beta.integral(t)).exp(),
            Kind::Geometric(_) => ((1.0 - self.variance(t)) / (1.0 - self.sigma2_0)).sqrt(),
            Kind::Vesde(_) => 1.0,
        }
    }

    /// The variance of `z_t` when the data at `t = 0` are distributed as N(0, I).
    pub fn marginal_variance(&self, t: f64) -> f64 {
        self.mean_coefficient(t).powi(2) * (1.0 - self.sigma2_0) + self.variance(t)
    }

    /// What multiplies `z_t` in the exact score network of N(0, I) data (LSGM, equation 8): the mixing component is
    /// `mixing_coefficient(t) · z_t`, with `σ_t` for the variance-preserving SDEs.
    pub fn mixing_coefficient(&self, t: f64) -> f64 {
        self.sigma(t) / self.marginal_variance(t)
    }

    /// The constant of the cross entropy per latent dimension, `½ log(2πe σ²(t_eps))`, in nats.
    pub fn cross_entropy_constant(&self, t_eps: f64) -> f64 {
        0.5 * (1.0 + (2.0 * std::f64::consts::PI).ln() + self.variance(t_eps).ln())
    }

    /// Standard deviation of the base distribution of `z_1`: 1, or `σ_max` for the variance-exploding SDE.
    pub fn base_sigma(&self) -> f64 {
        match self.kind {
            Kind::Vesde(v) => v.max.sqrt(),
            _ => 1.0,
        }
    }

    /// `λ_t = log(m_t / σ_t)`, half the log signal-to-noise ratio: the time variable of DPM-Solver. It falls with `t`.
    pub fn lambda(&self, t: f64) -> f64 {
        self.mean_coefficient(t).ln() - 0.5 * self.variance(t).ln()
    }

    /// The `t` at which [`Sde::lambda`] takes a value, in closed form.
    pub fn inverse_lambda(&self, lambda: f64) -> f64 {
        let snr = (2.0 * lambda).exp();
        match self.kind {
            // exp(∫β) = 1/snr + 1 - σ0²: a variance next to 1 would have lost its digits.
            Kind::Vpsde(beta) => beta.inverse_integral((1.0 / snr - self.sigma2_0).ln_1p()),
            Kind::Geometric(_) => self.inverse_variance(1.0 / (1.0 + snr * (1.0 - self.sigma2_0))),
            Kind::Vesde(_) => self.inverse_variance(1.0 / snr),
            Kind::SubVpsde(beta) => {
                // With u = exp(-∫β): u = snr · ((1 - u)² + σ0² u). The smaller root, by the larger one's inverse.
                let half = 1.0 + 0.5 * (1.0 / snr - self.sigma2_0);
                beta.inverse_integral((half + (half * half - 1.0).sqrt()).ln())
            }
        }
    }

    /// The `t` at which `σ_t²` takes a value, in closed form. The variance of a sub-VP SDE with `σ0² > 0` first falls a
    /// little; of two such times this is the later one.
    pub fn inverse_variance(&self, variance: f64) -> f64 {
        match self.kind {
            Kind::Vpsde(beta) => beta.inverse_integral((-self.sigma2_0).ln_1p() - (-variance).ln_1p()),
            Kind::SubVpsde(beta) => {
                // (1 - u)² + σ0² u = variance, for u = exp(-∫β) below 1; x = 1 - u.
                let s = self.sigma2_0;
                let x = 0.5 * (s + (s * s + 4.0 * (variance - s)).max(0.0).sqrt());
                beta.inverse_integral(-(-x).ln_1p())
            }
            Kind::Geometric(v) | Kind::Vesde(v) => v.inverse(variance - self.sigma2_0 + v.min),
        }
    }

    /// The schedule `β(t)` of the SDEs that have one.
    pub(crate) fn beta(&self) -> Option<LinearBeta> {
        match self.kind {
            Kind::Vpsde(beta) | Kind::SubVpsde(beta) => Some(beta),
            Kind::Geometric(_) | Kind::Vesde(_) => None,
        }
    }

    /// The variance-preserving SDE that shares its `β(t)` with a sub-VP SDE; any other SDE itself. Proposals for `t` are
    /// those of this SDE.
    pub(crate) fn proposal_sde(&self) -> Self {
        match self.kind {
            Kind::SubVpsde(beta) => Self { kind: Kind::Vpsde(beta), ..*self },
            _ => *self,
        }
    }

    pub(crate) fn is_variance_exploding(&self) -> bool {
        matches!(self.kind, Kind::Vesde(_))
    }

    /// `σ0²`.
    pub(crate) fn sigma2_0(&self) -> f64 {
        self.sigma2_0
    }

    /// Check a cut-off: a time in `[0, 1)` at which `σ_t² > 0`.
    ///
    /// # Errors
    /// [`lsgm_core::Error::Config`] at `key`.
    pub fn check_t_eps(&self, key: &str, t_eps: f64) -> Result<()> {
        let problem = if !(0.0..1.0).contains(&t_eps) {
            format!("t_eps = {t_eps} must lie between 0 and 1")
        } else if self.variance(t_eps) <= 0.0 {
            "t_eps must be above 0 here, because this SDE adds no noise at t = 0: use 1e-5 to 1e-2, or set sigma2_0"
                .into()
        } else {
            return Ok(());
        };
        Err(lsgm_core::Error::config(key, problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Sde> {
        let mut configs = SdeConfig::all_defaults().to_vec();
        configs.push(SdeConfig::Vpsde { beta_start: 0.1, beta_end: 20.0, sigma2_0: 1e-3 });
        configs.push(SdeConfig::SubVpsde { beta_start: 0.1, beta_end: 20.0, sigma2_0: 1e-3 });
        configs.push(SdeConfig::Geometric { sigma2_min: 3e-5, sigma2_max: 0.99, sigma2_0: 1e-3 });
        configs.iter().map(|c| Sde::new(c).unwrap()).collect()
    }

    #[test]
    fn marginals_solve_their_differential_equations() {
        for sde in all() {
            for t in [0.05, 0.3, 0.6, 0.95] {
                let h = 1e-5;
                let slope = |u: &dyn Fn(f64) -> f64| (u(t + h) - u(t - h)) / (2.0 * h);
                let dm = slope(&|t| sde.mean_coefficient(t).ln());
                assert!((dm - sde.f(t)).abs() < 1e-6 * (1.0 + sde.f(t).abs()), "{sde:?} {t}: {dm} {}", sde.f(t));
                let dv = slope(&|t| sde.variance(t));
                let expected = 2.0 * sde.f(t) * sde.variance(t) + sde.g2(t);
                assert!((dv - expected).abs() < 1e-6 * (1.0 + expected.abs()), "{sde:?} {t}: {dv} {expected}");
            }
        }
    }

    #[test]
    fn inverses_invert() {
        for sde in all() {
            for t in [1e-4, 0.01, 0.2, 0.5, 0.8] {
                let by_lambda = sde.inverse_lambda(sde.lambda(t));
                let monotone = sde.variance(t) > sde.sigma2_0;
                let by_variance = if monotone { sde.inverse_variance(sde.variance(t)) } else { t };
                assert!((by_variance / t - 1.0).abs() < 1e-7, "{sde:?} {t} {by_variance}");
                assert!((by_lambda / t - 1.0).abs() < 1e-6, "{sde:?} {t} {by_lambda}");
            }
        }
    }

    /// Where next to no data are left, the variance is 1 to the last digit.
    #[test]
    fn a_strong_noise_has_an_inverse_to_its_end() {
        let sde = Sde::new(&SdeConfig::Vpsde { beta_start: 0.1, beta_end: 200.0, sigma2_0: 0.0 }).unwrap();
        for t in [1e-5, 0.1, 0.7, 0.95, 1.0] {
            let found = sde.inverse_lambda(sde.lambda(t));
            assert!((found / t - 1.0).abs() < 1e-9, "{t} {found}");
        }
    }

    #[test]
    fn a_cut_off_without_noise_is_refused() {
        let sde = Sde::new(&SdeConfig::default()).unwrap();
        assert!(sde.check_t_eps("prior.t_eps", 0.0).unwrap_err().to_string().contains("above 0"));
        assert!(sde.check_t_eps("prior.t_eps", 1.0).is_err() && sde.check_t_eps("prior.t_eps", f64::NAN).is_err());
        assert!(sde.check_t_eps("prior.t_eps", 1e-5).is_ok());
    }
}
