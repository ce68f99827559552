use lsgm_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::Sde;

/// How the times of a solver with a fixed number of steps are spread between 1 and `t_eps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grid {
    /// Evenly in `t`.
    Uniform,
    /// Evenly in the log signal-to-noise ratio (Lu et al. 2022).
    #[default]
    LogSnr,
    /// Evenly in `(σ_t / m_t)^(1/7)` (Karras et al. 2022, equation 5).
    Karras,
}

impl Grid {
    /// Every grid.
    pub const ALL: [Self; 3] = [Self::Uniform, Self::LogSnr, Self::Karras];

    /// The name in configs and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::LogSnr => "log-snr",
            Self::Karras => "karras",
        }
    }

    /// `steps + 1` falling times from 1 to `t_eps`.
    ///
    /// # Errors
    /// [`Error::Config`] for 0 steps or a `t_eps` that is no valid cut-off.
    pub fn times(self, sde: &Sde, steps: usize, t_eps: f64) -> Result<Vec<f64>> {
        if steps == 0 {
            return Err(Error::config("steps", "a solver needs at least 1 step"));
        }
        sde.check_t_eps("t_eps", t_eps)?;
        const RHO: f64 = 7.0;
        let transform = |t: f64| match self {
            Self::Uniform => t,
            Self::LogSnr => sde.lambda(t),
            Self::Karras => (-sde.lambda(t) / RHO).exp(),
        };
        let inverse = |x: f64| match self {
            Self::Uniform => x,
            Self::LogSnr => sde.inverse_lambda(x),
            Self::Karras => sde.inverse_lambda(-RHO * x.ln()),
        };
        let (start, end) = (transform(1.0), transform(t_eps));
        let mut times: Vec<f64> =
            (0..=steps).map(|i| inverse(start + (end - start) * i as f64 / steps as f64)).collect();
        // The ends are known exactly.
        if let [first, .., last] = times.as_mut_slice() {
            (*first, *last) = (1.0, t_eps);
        }
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SdeConfig;

    #[test]
    fn grids_fall_from_one_to_the_cut_off() {
        for config in SdeConfig::all_defaults() {
            let sde = Sde::new(&config).unwrap();
            for grid in Grid::ALL {
                let times = grid.times(&sde, 10, 1e-3).unwrap();
                assert_eq!((times.len(), times[0], times[10]), (11, 1.0, 1e-3));
                assert!(times.windows(2).all(|w| w[0] > w[1]), "{config:?} {grid:?} {times:?}");
            }
            let times = Grid::LogSnr.times(&sde, 4, 1e-3).unwrap();
            let gaps: Vec<f64> = times.windows(2).map(|w| sde.lambda(w[1]) - sde.lambda(w[0])).collect();
            assert!(gaps.iter().all(|g| (g / gaps[0] - 1.0).abs() < 1e-6), "{gaps:?}");
            assert!(Grid::Uniform.times(&sde, 0, 1e-3).is_err() && Grid::Uniform.times(&sde, 5, 1.0).is_err());
        }
    }
}
