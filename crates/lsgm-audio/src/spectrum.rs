use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

/// The Hann window of a length, for frames that follow each other.
pub(crate) fn hann(size: usize) -> Vec<f64> {
    (0..size).map(|n| 0.5 - 0.5 * (std::f64::consts::TAU * n as f64 / size as f64).cos()).collect()
}

/// The short-time power spectrum under a Hann window.
#[derive(Clone)]
pub(crate) struct PowerSpectrum {
    transform: Arc<dyn RealToComplex<f64>>,
    window: Vec<f64>,
    hop: usize,
}

impl PowerSpectrum {
    /// Windows of `size` samples, one every `hop`.
    pub(crate) fn new(size: usize, hop: usize) -> Self {
        let size = size.max(2);
        Self { transform: RealFftPlanner::new().plan_fft_forward(size), window: hann(size), hop: hop.max(1) }
    }

    /// `|X|²` of each frame, `[frames][size / 2 + 1]`, without any scale. Frames lie wholly inside; of a shorter clip there
    /// is one, filled up with silence.
    pub(crate) fn of(&self, samples: &[f32]) -> Vec<Vec<f64>> {
        let size = self.window.len();
        let last = samples.len().saturating_sub(size);
        (0..=last).step_by(self.hop).map(|start| self.frame(samples.get(start..).unwrap_or_default())).collect()
    }

    /// Number of frames of a clip.
    pub(crate) fn frames(&self, samples: usize) -> usize {
        samples.saturating_sub(self.window.len()) / self.hop + 1
    }

    fn frame(&self, samples: &[f32]) -> Vec<f64> {
        let mut windowed = vec![0.0; self.window.len()];
        for ((to, sample), weight) in windowed.iter_mut().zip(samples).zip(&self.window) {
            *to = f64::from(*sample) * weight;
        }
        let mut spectrum = self.transform.make_output_vec();
        // The buffers are the transform's own: it cannot refuse them.
        match self.transform.process(&mut windowed, &mut spectrum) {
            Ok(()) => spectrum.iter().map(|c| c.norm_sqr()).collect(),
            Err(_) => vec![0.0; spectrum.len()],
        }
    }
}

impl std::fmt::Debug for PowerSpectrum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "power spectrum of {} samples, one every {}", self.window.len(), self.hop)
    }
}

/// Range of log-mel values in dB: from a full-scale sine down.
const RANGE: f64 = 80.0;

/// Power in bands that are equally wide on the mel scale, in dB below a full-scale sine, mapped to [0, 1]: 0 is 80 dB below
/// or less, 1 is full scale.
#[derive(Debug, Clone)]
pub(crate) struct LogMel {
    spectrum: PowerSpectrum,
    /// `[bands][bins]`.
    filters: Vec<Vec<f64>>,
}

impl LogMel {
    /// Windows of about 60 ms that overlap by three quarters, and a band for every eight samples of the window, 80 at most.
    pub(crate) fn new(rate: u32) -> Self {
        let size = ((f64::from(rate) * 0.045) as usize).next_power_of_two().max(32);
        let scale = (2.0 / hann(size).iter().sum::<f64>()).powi(2);
        let mut filters = mel_filters(rate, size, (size / 8).min(80));
        filters.iter_mut().flatten().for_each(|w| *w *= scale);
        Self { spectrum: PowerSpectrum::new(size, size / 4), filters }
    }

    /// Number of bands.
    pub(crate) fn bands(&self) -> usize {
        self.filters.len()
    }

    /// Number of frames of a clip.
    pub(crate) fn frames(&self, samples: usize) -> usize {
        self.spectrum.frames(samples)
    }

    /// `[frames][bands]`, the lowest band first.
    pub(crate) fn of(&self, samples: &[f32]) -> Vec<Vec<f32>> {
        let band = |filter: &Vec<f64>, frame: &[f64]| {
            let power: f64 = filter.iter().zip(frame).map(|(w, p)| w * p).sum();
            (1.0 + 10.0 * power.max(1e-12).log10() / RANGE).clamp(0.0, 1.0) as f32
        };
        self.spectrum.of(samples).iter().map(|frame| self.filters.iter().map(|f| band(f, frame)).collect()).collect()
    }
}

/// Triangles whose corners are equally far apart on the mel scale `2595 · log10(1 + f / 700)`. A band narrower than the
/// distance of two bins takes the nearest bin.
fn mel_filters(rate: u32, size: usize, bands: usize) -> Vec<Vec<f64>> {
    let mel = |f: f64| 2595.0 * (1.0 + f / 700.0).log10();
    let hertz = |m: f64| 700.0 * (10f64.powf(m / 2595.0) - 1.0);
    let (top, bins) = (mel(f64::from(rate) / 2.0), size / 2 + 1);
    let width = f64::from(rate) / size as f64;
    let corner = |i: usize| hertz(top * i as f64 / (bands + 1) as f64) / width;
    (0..bands)
        .map(|b| {
            let (low, peak, high) = (corner(b), corner(b + 1), corner(b + 2));
            let triangle = |k: f64| ((k - low) / (peak - low)).min((high - k) / (high - peak)).max(0.0);
            let mut filter: Vec<f64> = (0..bins).map(|k| triangle(k as f64)).collect();
            if let Some(nearest) = filter.get_mut(peak.round() as usize) {
                *nearest = nearest.max(1.0);
            }
            filter
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(frequency: f64, rate: f64, samples: usize) -> Vec<f32> {
        (0..samples).map(|i| (std::f64::consts::TAU * frequency * i as f64 / rate).sin() as f32).collect()
    }

    #[test]
    fn a_sine_lies_in_its_bin_with_its_power() {
        let spectrum = PowerSpectrum::new(64, 16);
        let frames = spectrum.of(&sine(8.0, 64.0, 200));
        assert_eq!(frames.len(), spectrum.frames(200));
        for frame in frames {
            let best = frame.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
            // Half the sum of the window, squared.
            assert!(best.0 == 8 && (best.1 - 256.0).abs() < 1e-3, "{best:?}");
        }
        assert_eq!(spectrum.of(&[1.0; 5]).len(), 1);
    }

    #[test]
    fn a_full_scale_sine_reaches_one_in_its_band_and_silence_is_zero() {
        for rate in [4000, 8000, 16_000] {
            let mel = LogMel::new(rate);
            let x = sine(500.0, f64::from(rate), rate as usize / 2);
            let frames = mel.of(&x);
            assert_eq!((frames.len(), frames[0].len()), (mel.frames(x.len()), mel.bands()));
            let top = frames[3].iter().copied().fold(0.0, f32::max);
            assert!((0.95..=1.0).contains(&top), "{rate}: {top}");
            assert!(mel.of(&vec![0.0; x.len()]).iter().flatten().all(|v| *v == 0.0));
            let loud = frames[3].iter().filter(|v| **v > 0.7).count();
            assert!(loud <= 5, "{rate}: a tone is in {loud} bands");
        }
    }
}
