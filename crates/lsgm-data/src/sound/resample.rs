use audioadapter_buffers::owned::InterleavedOwned;
use rubato::{Fft, FixedSync, Resampler};

/// Frames that the resampler takes at a time.
const CHUNK: usize = 1024;

/// Band-limited resampling of mono samples from one rate to another, both in Hz and among [`super::RATES`]: its blocks are
/// as long as the rates are high.
///
/// # Errors
/// What the resampler refuses.
pub(super) fn resample(samples: Vec<f32>, from: u32, to: u32) -> Result<Vec<f32>, String> {
    if from == to || samples.is_empty() {
        return Ok(samples);
    }
    let frames = samples.len();
    let input = InterleavedOwned::new_from(samples, 1, frames).map_err(|e| e.to_string())?;
    let mut resampler =
        Fft::<f32>::new(from as usize, to as usize, CHUNK, 1, FixedSync::Both).map_err(|e| e.to_string())?;
    Ok(resampler.process_all(&input, frames, None).map_err(|e| e.to_string())?.take_data())
}

/// The length of `frames` at another rate.
pub(super) fn resampled_length(frames: usize, from: u32, to: u32) -> usize {
    ((frames as u128 * u128::from(to)).div_ceil(u128::from(from.max(1)))) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(frequency: f64, rate: u32, frames: usize) -> Vec<f32> {
        let step = std::f64::consts::TAU * frequency / f64::from(rate);
        (0..frames).map(|i| (step * i as f64).sin() as f32).collect()
    }

    #[test]
    fn a_tone_stays_the_tone_and_what_lies_above_the_band_goes() {
        // Where the filter has an odd length, the result is half a sample of the input late.
        for (from, to, tolerance) in [(44_100, 8000, 0.04), (8000, 16_000, 2e-3), (22_050, 44_100, 2e-3)] {
            let kept = resample(sine(500.0, from, from as usize), from, to).unwrap();
            assert_eq!(kept.len(), resampled_length(from as usize, from, to));
            let expected = sine(500.0, to, kept.len());
            let inner = to as usize / 10..to as usize * 9 / 10;
            let error =
                kept[inner.clone()].iter().zip(&expected[inner]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < tolerance, "{from} to {to}: {error}");
        }
        let gone = resample(sine(7000.0, 44_100, 44_100), 44_100, 8000).unwrap();
        let power = gone.iter().map(|v| v * v).sum::<f32>() / gone.len() as f32;
        assert!(power < 1e-5, "aliased power {power}");
    }
}
