//! Distances between a clip and its reconstruction.

use candle_core::Tensor;
use lsgm_core::{Measure, Result};
use rayon::prelude::*;

use super::{clips, mean_of};
use crate::spectrum::{LogMel, PowerSpectrum};

/// Power below which a spectrum counts as empty, relative to the highest of the original: −60 dB.
const FLOOR: f64 = 1e-6;

/// Windows of the multi-resolution distance, in samples.
const SIZES: [usize; 3] = [128, 256, 512];

/// Windows of the log-spectral distance, in seconds.
const WINDOW: f64 = 0.032;

/// All measures of reconstructions `[N, 1, L]` beside their originals, at `rate` Hz.
pub(crate) fn measure_pairs(originals: &Tensor, reconstructions: &Tensor, rate: u32) -> Result<Vec<Measure>> {
    let (x, y) = (clips(originals)?, clips(reconstructions)?);
    let mel = LogMel::new(rate);
    let window = ((f64::from(rate) * WINDOW) as usize).next_power_of_two();
    let measures = [
        mean_of("si_sdr", each(&x, &y, scale_invariant_ratio), "dB", "scale-invariant signal-to-distortion ratio"),
        mean_of(
            "log_spectral_distance",
            each(&x, &y, |a, b| log_spectral_distance(a, b, window)),
            "dB",
            format!("root mean square over the bins of {window}-sample spectra, floor 60 dB below the loudest"),
        ),
        mean_of(
            "log_mel_distance",
            each(&x, &y, |a, b| mel_distance(a, b, &mel)),
            "dB",
            format!("mean absolute difference over {} mel bands, floor 80 dB below full scale", mel.bands()),
        ),
        mean_of(
            "stft_distance",
            each(&x, &y, stft_distance),
            "",
            "relative magnitude and mean logarithmic difference, windows of 128, 256 and 512 samples",
        ),
    ];
    Ok(measures.into_iter().flatten().collect())
}

/// A figure of each pair.
fn each(x: &[Vec<f32>], y: &[Vec<f32>], f: impl Fn(&[f32], &[f32]) -> Option<f64> + Sync) -> Vec<Option<f64>> {
    x.par_iter().zip(y).map(|(a, b)| f(a, b)).collect()
}

/// The scale-invariant signal-to-distortion ratio of `y` for the original `x` in dB (Le Roux et al. 2019, arXiv 1811.02508):
/// `y` is split to a multiple of `x` and a rest. Nothing for a silent original.
pub(crate) fn scale_invariant_ratio(x: &[f32], y: &[f32]) -> Option<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let energy = dot(x, x);
    if energy == 0.0 {
        return None;
    }
    let scale = dot(x, y) / energy;
    let target = scale * scale * energy;
    let rest: f64 = x.iter().zip(y).map(|(a, b)| (scale * f64::from(*a) - f64::from(*b)).powi(2)).sum();
    // A copy has no rest, silence no target: both are kept finite.
    Some(10.0 * ((target + 1e-12 * energy) / (rest + 1e-12 * energy)).log10())
}

/// The log-spectral distance in dB: for each frame the root mean square over bins of the difference of power spectra in dB,
/// averaged over frames. Powers are no lower than 60 dB below the highest of the original. Nothing for a silent original.
pub(crate) fn log_spectral_distance(x: &[f32], y: &[f32], window: usize) -> Option<f64> {
    let spectrum = PowerSpectrum::new(window, window / 4);
    let (a, b) = (spectrum.of(x), spectrum.of(y));
    let floor = FLOOR * a.iter().flatten().copied().fold(0.0, f64::max);
    if floor == 0.0 {
        return None;
    }
    let decibels = |p: f64| 10.0 * p.max(floor).log10();
    let frame = |(a, b): (&Vec<f64>, &Vec<f64>)| {
        let squares: f64 = a.iter().zip(b).map(|(a, b)| (decibels(*a) - decibels(*b)).powi(2)).sum();
        (squares / a.len() as f64).sqrt()
    };
    Some(a.iter().zip(&b).map(frame).sum::<f64>() / a.len().max(1) as f64)
}

fn mel_distance(x: &[f32], y: &[f32], mel: &LogMel) -> Option<f64> {
    let (a, b) = (mel.of(x), mel.of(y));
    let n = a.iter().flatten().count().max(1) as f64;
    let sum: f64 = a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| f64::from((a - b).abs())).sum();
    Some(80.0 * sum / n)
}

/// The multi-resolution STFT distance (arXiv 1910.11480), averaged over three resolutions. Nothing for a silent original.
pub(crate) fn stft_distance(x: &[f32], y: &[f32]) -> Option<f64> {
    let at = |size: usize| {
        let spectrum = PowerSpectrum::new(size, size / 4);
        let (a, b) = (spectrum.of(x), spectrum.of(y));
        let floor = FLOOR * a.iter().flatten().copied().fold(0.0, f64::max);
        let pairs: Vec<(f64, f64)> = a
            .iter()
            .flatten()
            .zip(b.iter().flatten())
            .map(|(a, b)| (a.max(floor).sqrt(), b.max(floor).sqrt()))
            .collect();
        let squares = pairs.iter().map(|(a, _)| a * a).sum::<f64>();
        let relative = (pairs.iter().map(|(a, b)| (a - b).powi(2)).sum::<f64>() / squares).sqrt();
        let logarithmic = pairs.iter().map(|(a, b)| (a / b).ln().abs()).sum::<f64>() / pairs.len().max(1) as f64;
        (floor > 0.0).then_some(relative + logarithmic)
    };
    let all: Option<Vec<f64>> = SIZES.into_iter().map(at).collect();
    all.map(|all| all.iter().sum::<f64>() / SIZES.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsgm_core::Rng;

    #[test]
    fn a_copy_is_perfect_and_noise_at_a_tenth_costs_twenty_decibels() {
        let x = Rng::new(1).normals(20_000);
        let noise = Rng::new(2).normals(20_000);
        let y: Vec<f32> = x.iter().zip(&noise).map(|(a, n)| 3.0 * (a + 0.1 * n)).collect();
        assert!(scale_invariant_ratio(&x, &x).unwrap() > 100.0);
        assert!((scale_invariant_ratio(&x, &y).unwrap() - 20.0).abs() < 0.2, "the scale does not count");
        assert!(scale_invariant_ratio(&x, &vec![0.0; 20_000]).unwrap() <= 0.0);
        assert_eq!(scale_invariant_ratio(&[0.0; 9], &y[..9]), None);
        assert!(log_spectral_distance(&x, &x, 256).unwrap() < 1e-9 && stft_distance(&x, &x).unwrap() < 1e-9);
    }

    #[test]
    fn half_the_loudness_is_six_decibels_everywhere() {
        let x = Rng::new(1).normals(4000);
        let half: Vec<f32> = x.iter().map(|v| v / 2.0).collect();
        assert!((log_spectral_distance(&x, &half, 256).unwrap() - 6.0206).abs() < 0.01);
        assert!((stft_distance(&x, &half).unwrap() - (0.5 + 2f64.ln())).abs() < 0.01);
        assert_eq!(log_spectral_distance(&[0.0; 400], &x[..400], 256), None);
    }
}
