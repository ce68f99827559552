//! Two simple models of single samples, to hold a bound against.

use lsgm_core::{Dataset, Measure, Result, Rng, nats_to_bits};
use rayon::prelude::*;

use super::{clips, mean_of};
use crate::mixture::LEVELS;
use crate::mu_law::{CLASSES, class_of, expand};

/// Order of the linear predictor.
const ORDER: usize = 16;

/// Clips that the models are fitted to, and that they are measured on, at most.
const CLIPS: usize = 2000;

/// Residuals that the distribution is fitted to.
const RESIDUALS: usize = 60_000;

/// Rounds of expectation maximisation.
const ROUNDS: usize = 60;

/// The values that a sample can take, as the likelihood of a model sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grid {
    /// 65,536 equal steps.
    Linear,
    /// The 256 classes of µ-law companding.
    MuLaw,
}

impl Grid {
    fn len(self) -> usize {
        match self {
            Self::Linear => LEVELS,
            Self::MuLaw => CLASSES,
        }
    }

    fn index(self, x: f32) -> usize {
        match self {
            Self::Linear => ((f64::from(x) * 32_768.0).round() + 32_768.0).clamp(0.0, 65_535.0) as usize,
            Self::MuLaw => class_of(f64::from(x)) as usize,
        }
    }

    /// The interval that stands for `x`; the outer ones have no end.
    fn bin(self, x: f32) -> (f64, f64) {
        let i = self.index(x);
        let (low, high) = match self {
            Self::Linear => {
                let centre = i as f64 / 32_768.0 - 1.0;
                (centre - 0.5 / 32_768.0, centre + 0.5 / 32_768.0)
            }
            Self::MuLaw => (expand(i as f64 - 0.5), expand(i as f64 + 0.5)),
        };
        let low = if i == 0 { f64::NEG_INFINITY } else { low };
        (low, if i + 1 == self.len() { f64::INFINITY } else { high })
    }
}

/// The models, fitted to the training split.
pub(crate) struct Baselines {
    grid: Grid,
    /// `ln p` of each value: relative frequencies, with one added to every count.
    histogram: Vec<f64>,
    predictor: [f64; ORDER],
    residual: ScaleMixture,
}

impl Baselines {
    /// Fit both models to the first clips of a split.
    pub(crate) fn fit(grid: Grid, train: &dyn Dataset, rng: &mut Rng) -> Result<Self> {
        let clips = first_clips(train, CLIPS, rng)?;
        let mut counts = vec![1.0; grid.len()];
        clips.iter().flatten().for_each(|v| counts[grid.index(*v)] += 1.0);
        let total: f64 = counts.iter().sum();
        let predictor = predictor(&clips);
        let step = (clips.iter().map(Vec::len).sum::<usize>() / RESIDUALS).max(1);
        let bins =
            clips.iter().flat_map(|clip| residual_bins(grid, &predictor, clip)).step_by(step).collect::<Vec<_>>();
        let histogram = counts.into_iter().map(|c| (c / total).ln()).collect();
        Ok(Self { grid, histogram, predictor, residual: ScaleMixture::fit(&bins) })
    }

    /// −ln p of the first `items` clips (at most 2,000) in nats, by both models.
    pub(crate) fn measure(&self, data: &dyn Dataset, items: usize, rng: &mut Rng) -> Result<Vec<Measure>> {
        let clips = first_clips(data, items.min(CLIPS), rng)?;
        let samples = clips.first().map_or(1, Vec::len);
        let histogram: Vec<Option<f64>> = clips
            .par_iter()
            .map(|clip| Some(-clip.iter().map(|v| self.histogram[self.grid.index(*v)]).sum::<f64>()))
            .collect();
        let linear: Vec<Option<f64>> = clips
            .par_iter()
            .map(|clip| {
                let bins = residual_bins(self.grid, &self.predictor, clip);
                Some(-bins.map(|(low, high)| self.residual.log_prob(low, high)).sum::<f64>())
            })
            .collect();
        let meanings = [
            ("categorical_histogram", histogram, "each sample from the frequencies of its values in training"),
            (
                "linear_predictor_16",
                linear,
                "each sample from a logistic mixture around its prediction by the 16 before it",
            ),
        ];
        let measures = meanings.into_iter().flat_map(|(name, nats, meaning)| {
            let nats = mean_of(name, nats, "nats", format!("-ln p of a clip: {meaning}"))?;
            let bits = nats_to_bits(nats.value, samples);
            Some([nats, Measure::new(format!("{name}_bits"), bits, "bits", "the same for each sample")])
        });
        Ok(measures.flatten().collect())
    }
}

fn first_clips(data: &dyn Dataset, count: usize, rng: &mut Rng) -> Result<Vec<Vec<f32>>> {
    let indices: Vec<usize> = (0..data.len().min(count)).collect();
    clips(&data.batch(&indices, rng)?.x)
}

/// The coefficients that predict a sample best from those before it, nearest first, by the Levinson–Durbin recursion on
/// the autocorrelation of all clips together.
fn predictor(clips: &[Vec<f32>]) -> [f64; ORDER] {
    let mut r = [0.0; ORDER + 1];
    for clip in clips {
        for (lag, r) in r.iter_mut().enumerate() {
            *r += clip.iter().zip(clip.iter().skip(lag)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        }
    }
    // Keeps the recursion stable where a clip is predicted without any error.
    let mut error = r[0] * (1.0 + 1e-9) + 1e-12;
    let mut a = [0.0; ORDER];
    for i in 0..ORDER {
        let known: f64 = (0..i).map(|j| a[j] * r[i - j]).sum();
        let k = (r[i + 1] - known) / error;
        let before = a;
        a[i] = k;
        (0..i).for_each(|j| a[j] = before[j] - k * before[i - 1 - j]);
        error *= 1.0 - k * k;
    }
    a
}

/// The interval of each sample, seen from its prediction. What lies before a clip counts as silence.
fn residual_bins<'a>(
    grid: Grid,
    predictor: &'a [f64; ORDER],
    clip: &'a [f32],
) -> impl Iterator<Item = (f64, f64)> + 'a {
    clip.iter().enumerate().map(move |(t, x)| {
        let past = clip[..t].iter().rev();
        let prediction: f64 = predictor.iter().zip(past).map(|(a, v)| a * f64::from(*v)).sum();
        let (low, high) = grid.bin(*x);
        (low - prediction, high - prediction)
    })
}

/// A mixture of logistic distributions around 0 with scales of every order of magnitude.
struct ScaleMixture {
    /// Weight and scale.
    parts: Vec<(f64, f64)>,
}

impl ScaleMixture {
    /// The most likely weights for intervals, by expectation maximisation over fixed scales.
    fn fit(bins: &[(f64, f64)]) -> Self {
        let scales: Vec<f64> = (0..34).map(|i| 2f64.powf(0.5 * f64::from(i) - 17.0)).collect();
        let chances: Vec<Vec<f64>> =
            bins.par_iter().map(|(low, high)| scales.iter().map(|s| interval(*low, *high, *s)).collect()).collect();
        let mut weights = vec![1.0 / scales.len() as f64; scales.len()];
        for _ in 0..ROUNDS {
            let mut next = vec![0.0; scales.len()];
            for row in &chances {
                let total: f64 = row.iter().zip(&weights).map(|(p, w)| p * w).sum();
                if total > 0.0 {
                    next.iter_mut().zip(row).zip(&weights).for_each(|((n, p), w)| *n += p * w / total);
                }
            }
            let sum: f64 = next.iter().sum();
            // One more observation in each part: none is impossible.
            let all = sum + scales.len() as f64;
            weights = next.iter().map(|n| (n + 1.0) / all).collect();
        }
        Self { parts: weights.into_iter().zip(scales).collect() }
    }

    fn log_prob(&self, low: f64, high: f64) -> f64 {
        self.parts.iter().map(|(w, s)| w * interval(low, high, *s)).sum::<f64>().max(f64::MIN_POSITIVE).ln()
    }
}

/// The probability that a logistic distribution around 0 gives an interval: `σ(b) − σ(a) = σ(b) · σ(−a) · (1 − e^(a − b))`.
fn interval(low: f64, high: f64, scale: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let (a, b) = (low / scale, high / scale);
    sigmoid(b) * sigmoid(-a) * -(a - b).exp_m1()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};
    use lsgm_core::Batch;

    /// Clips of an autoregressive process of order 2.
    struct Resonance;

    impl Dataset for Resonance {
        fn len(&self) -> usize {
            60
        }

        fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Batch> {
            let mut x = Vec::new();
            for _ in indices {
                let (mut a, mut b) = (0.0, 0.0);
                for noise in rng.normals(500) {
                    (a, b) = (1.6 * a - 0.81 * b + 0.01 * f64::from(noise), a);
                    x.push(((a * 32_768.0).round() / 32_768.0) as f32);
                }
            }
            Ok(Batch { x: Tensor::from_vec(x, (indices.len(), 1, 500), &Device::Cpu)?, labels: None })
        }
    }

    #[test]
    fn the_predictor_finds_the_process_and_codes_its_innovations() {
        let mut rng = Rng::new(1);
        let found = Baselines::fit(Grid::Linear, &Resonance, &mut rng).unwrap();
        assert!(
            (found.predictor[0] - 1.6).abs() < 0.05 && (found.predictor[1] + 0.81).abs() < 0.05,
            "{:?}",
            found.predictor
        );
        let measures = found.measure(&Resonance, 60, &mut rng).unwrap();
        let bits = |name: &str| measures.iter().find(|m| m.name == name).unwrap().value;
        // The entropy of the innovations in steps of 2⁻¹⁵.
        let entropy = 0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E).log2() + (0.01f64 * 32_768.0).log2();
        let linear = bits("linear_predictor_16_bits");
        assert!((entropy - 0.02..entropy + 0.1).contains(&linear), "{linear} {entropy}");
        assert!(bits("categorical_histogram_bits") > linear + 0.5);
        let nats = measures.iter().find(|m| m.name == "linear_predictor_16").unwrap();
        assert!((nats_to_bits(nats.value, 500) - linear).abs() < 1e-9);
    }

    #[test]
    fn the_intervals_of_both_grids_cover_the_line_once() {
        for grid in [Grid::Linear, Grid::MuLaw] {
            let mixture = ScaleMixture { parts: vec![(0.7, 0.1), (0.3, 0.002)] };
            let mut seen = std::collections::BTreeSet::new();
            let mut total = 0.0;
            for i in 0..LEVELS {
                let x = (i as f64 / 32_768.0 - 1.0) as f32;
                if seen.insert(grid.index(x)) {
                    let (low, high) = grid.bin(x);
                    total += mixture.log_prob(low - 0.05, high - 0.05).exp();
                }
            }
            assert_eq!(seen.len(), grid.len());
            assert!((total - 1.0).abs() < 1e-9, "{grid:?}: {total}");
        }
    }
}
