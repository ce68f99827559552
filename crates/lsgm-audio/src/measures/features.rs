//! Figures of single clips.

use crate::spectrum::PowerSpectrum;

/// How far a clip's spectra are from those of white noise, in dB: the geometric mean of the power over the arithmetic one,
/// each frame weighted by its power. Near −2.5 dB for noise, far lower for tones. Nothing for silence.
pub(crate) fn spectral_flatness(x: &[f32], window: usize) -> Option<f64> {
    let frames = PowerSpectrum::new(window, window / 2).of(x);
    let (mut flatness, mut total) = (0.0, 0.0);
    for frame in &frames {
        let n = frame.len() as f64;
        let mean = frame.iter().sum::<f64>() / n;
        if mean > 0.0 {
            let log_mean = frame.iter().map(|p| p.max(1e-9 * mean).ln()).sum::<f64>() / n;
            flatness += mean * (log_mean - mean.ln());
            total += mean;
        }
    }
    (total > 0.0).then(|| 10.0 / std::f64::consts::LN_10 * flatness / total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsgm_core::Rng;

    #[test]
    fn noise_is_flat_and_a_tone_is_not() {
        let noise = spectral_flatness(&Rng::new(1).normals(20_000), 128).unwrap();
        assert!((-3.0..-2.0).contains(&noise), "{noise}");
        let tone: Vec<f32> = (0..4000).map(|i| (0.3 * i as f32).sin()).collect();
        assert!(spectral_flatness(&tone, 128).unwrap() < -20.0);
        assert_eq!(spectral_flatness(&[0.0; 500], 128), None);
    }
}
