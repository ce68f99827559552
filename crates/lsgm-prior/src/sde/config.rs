use lsgm_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Which SDE diffuses the latents, section `[prior.sde]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SdeConfig {
    /// Variance preserving with linear `β(t)` (Song et al. 2021, equation 11).
    Vpsde {
        /// `β(0)`.
        #[serde(default = "beta_start")]
        beta_start: f64,
        /// `β(1)`.
        #[serde(default = "beta_end")]
        beta_end: f64,
        /// `σ0²`, the variance at `t = 0`.
        #[serde(default)]
        sigma2_0: f64,
    },
    /// Variance preserving with a geometric `σ_t²` (LSGM, appendix B.3): uniform `t` is then already the best proposal
    /// for the likelihood weighting.
    Geometric {
        /// Where the geometric progression of the variance starts.
        #[serde(default = "geometric_min")]
        sigma2_min: f64,
        /// Where it ends, below 1.
        #[serde(default = "geometric_max")]
        sigma2_max: f64,
        /// `σ0²`, the variance at `t = 0`.
        #[serde(default = "geometric_min")]
        sigma2_0: f64,
    },
    /// Sub-variance-preserving with linear `β(t)` (Song et al. 2021, equation 12).
    #[serde(alias = "sub_vpsde")]
    SubVpsde {
        /// `β(0)`.
        #[serde(default = "beta_start")]
        beta_start: f64,
        /// `β(1)`.
        #[serde(default = "beta_end")]
        beta_end: f64,
        /// `σ0²`, the variance at `t = 0`.
        #[serde(default)]
        sigma2_0: f64,
    },
    /// Variance exploding (Song et al. 2021, equation 9) with base distribution N(0, σ_max² I).
    Vesde {
        /// Where the geometric progression of the variance starts.
        #[serde(default = "exploding_min")]
        sigma2_min: f64,
        /// Where it ends.
        #[serde(default = "exploding_max")]
        sigma2_max: f64,
        /// `σ0²`, the variance at `t = 0`.
        #[serde(default = "exploding_min")]
        sigma2_0: f64,
    },
}

fn beta_start() -> f64 {
    0.1
}
fn beta_end() -> f64 {
    20.0
}
fn geometric_min() -> f64 {
    3e-5
}
fn geometric_max() -> f64 {
    0.999
}
fn exploding_min() -> f64 {
    0.01
}
fn exploding_max() -> f64 {
    2500.0
}

impl Default for SdeConfig {
    fn default() -> Self {
        Self::Vpsde { beta_start: beta_start(), beta_end: beta_end(), sigma2_0: 0.0 }
    }
}

impl SdeConfig {
    /// Every SDE with its default parameters, in the order of the documentation.
    pub fn all_defaults() -> [Self; 4] {
        [
            Self::default(),
            Self::Geometric { sigma2_min: geometric_min(), sigma2_max: geometric_max(), sigma2_0: geometric_min() },
            Self::SubVpsde { beta_start: beta_start(), beta_end: beta_end(), sigma2_0: 0.0 },
            Self::Vesde { sigma2_min: exploding_min(), sigma2_max: exploding_max(), sigma2_0: exploding_min() },
        ]
    }

    /// The name of the SDE in a config.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vpsde { .. } => "vpsde",
            Self::Geometric { .. } => "geometric",
            Self::SubVpsde { .. } => "sub-vpsde",
            Self::Vesde { .. } => "vesde",
        }
    }

    /// Check the parameters.
    ///
    /// # Errors
    /// [`Error::Config`] with a key below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        match *self {
            Self::Vpsde { beta_start, beta_end, sigma2_0 } | Self::SubVpsde { beta_start, beta_end, sigma2_0 } => {
                require(beta_start >= 0.0, key, "beta_start", "must be 0 or above")?;
                require(beta_end > beta_start && beta_end.is_finite(), key, "beta_end", "must be above beta_start")?;
                check_sigma2_0(key, sigma2_0)
            }
            Self::Geometric { sigma2_min, sigma2_max, sigma2_0 } => {
                check_range(key, sigma2_min, sigma2_max)?;
                let end = sigma2_max - sigma2_min + sigma2_0;
                require(end < 1.0, key, "sigma2_max", "must keep sigma2_max - sigma2_min + sigma2_0 below 1")?;
                check_sigma2_0(key, sigma2_0)
            }
            Self::Vesde { sigma2_min, sigma2_max, sigma2_0 } => {
                check_range(key, sigma2_min, sigma2_max)?;
                check_sigma2_0(key, sigma2_0)
            }
        }
    }
}

fn check_range(key: &str, sigma2_min: f64, sigma2_max: f64) -> Result<()> {
    require(sigma2_min > 0.0, key, "sigma2_min", "must be above 0")?;
    require(sigma2_max > sigma2_min && sigma2_max.is_finite(), key, "sigma2_max", "must be above sigma2_min")
}

fn check_sigma2_0(key: &str, sigma2_0: f64) -> Result<()> {
    require((0.0..1.0).contains(&sigma2_0), key, "sigma2_0", "must be at least 0 and below 1")
}

fn require(holds: bool, key: &str, field: &str, message: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::config(format!("{key}.{field}"), format!("{field} {message}"))) }
}
