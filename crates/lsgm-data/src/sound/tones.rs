use std::f64::consts::TAU;

use lsgm_core::{Rng, Split};

use super::{Clip, ClipForm, Sounds};
use crate::Result;

/// Chords, chirps and decaying harmonics, made from a seed.
///
/// Item `i` is a function of the seed, the split and `i` alone, and there is no last one: the length only says how many
/// make an epoch. Class `i % 3` is the kind of sound: 0 a chord, 1 a chirp, 2 a plucked string. All frequencies stay below
/// 0.45 of the sample rate; a noise floor lies 50 dB below the sound.
#[derive(Debug, Clone)]
pub(crate) struct Tones {
    stream: Rng,
    items: usize,
    form: ClipForm,
}

/// The noise floor, relative to the peak of the sound.
const NOISE: f64 = 2e-3;

/// One partial: a phase that advances by a frequency which may glide, under an envelope.
struct Partial {
    amplitude: f64,
    /// Cycles in a sample, at the beginning.
    frequency: f64,
    /// Change of the frequency in a sample, as a factor.
    glide: f64,
    phase: f64,
    /// Decay in a sample, as a factor.
    decay: f64,
}

impl Tones {
    /// Number of classes.
    pub(super) const CLASSES: usize = 3;

    /// The stream of a split, of which `items` make an epoch.
    pub(super) fn new(seed: u64, split: Split, items: usize, form: ClipForm) -> Self {
        Self { stream: Rng::new(seed).fork("tones").fork(split.name()), items, form }
    }

    fn draw(&self, index: usize) -> Vec<f32> {
        let mut rng = self.stream.fork(&index.to_string());
        let partials = match index % Self::CLASSES {
            0 => self.chord(&mut rng),
            1 => self.chirp(&mut rng),
            _ => self.pluck(&mut rng),
        };
        let mut sound = vec![0.0; self.form.samples];
        partials.iter().for_each(|p| p.add_to(&mut sound));
        let attack = self.in_samples(0.005).max(1.0);
        sound.iter_mut().enumerate().for_each(|(i, v)| *v *= (i as f64 / attack).min(1.0));
        let peak = sound.iter().fold(1e-9_f64, |m, v| m.max(v.abs()));
        let level = uniform(&mut rng, 0.3, 0.9);
        sound.iter().map(|v| (level * (v / peak + NOISE * rng.normal())) as f32).collect()
    }

    /// Three or four notes of a major or minor chord, with a soft second harmonic.
    fn chord(&self, rng: &mut Rng) -> Vec<Partial> {
        let steps: [f64; 4] = if rng.below(2) == 0 { [0.0, 4.0, 7.0, 12.0] } else { [0.0, 3.0, 7.0, 12.0] };
        let root = self.note(rng, 110.0, 330.0);
        let decay = self.decay(uniform(rng, 0.6, 2.0));
        let notes = 3 + rng.below(2);
        let mut partials = Vec::new();
        for step in &steps[..notes] {
            let frequency = root * (step / 12.0).exp2();
            for (harmonic, amplitude) in [(1.0, 1.0), (2.0, 0.3)] {
                partials.extend(self.partial(rng, harmonic * frequency, amplitude, decay, 1.0));
            }
        }
        partials
    }

    /// A tone that glides by up to two octaves, with a weak third harmonic.
    fn chirp(&self, rng: &mut Rng) -> Vec<Partial> {
        let (from, to) = (self.note(rng, 110.0, 550.0), self.note(rng, 110.0, 550.0));
        let glide = (to / from).powf(1.0 / self.form.samples.max(1) as f64);
        [(1.0, 1.0), (3.0, 0.15)]
            .into_iter()
            .filter(|(harmonic, _)| harmonic * from.max(to) < self.highest())
            .flat_map(|(harmonic, amplitude)| self.partial(rng, harmonic * from, amplitude, 1.0, glide))
            .collect()
    }

    /// The harmonics of a plucked string: weaker and shorter the higher they are.
    fn pluck(&self, rng: &mut Rng) -> Vec<Partial> {
        let root = self.note(rng, 82.0, 440.0);
        let (seconds, roll_off) = (uniform(rng, 0.2, 0.8), uniform(rng, 0.8, 1.6));
        (1..=12)
            .flat_map(|n| {
                let n = f64::from(n);
                self.partial(rng, n * root, n.powf(-roll_off), self.decay(seconds / n.sqrt()), 1.0)
            })
            .collect()
    }

    /// A partial in Hz, unless it lies too high.
    fn partial(&self, rng: &mut Rng, hertz: f64, amplitude: f64, decay: f64, glide: f64) -> Option<Partial> {
        let phase = TAU * rng.uniform();
        let frequency = hertz / f64::from(self.form.rate);
        (hertz < self.highest()).then_some(Partial { amplitude, frequency, glide, phase, decay })
    }

    /// A frequency in Hz, uniform on a logarithmic scale.
    fn note(&self, rng: &mut Rng, low: f64, high: f64) -> f64 {
        low * (high / low).powf(rng.uniform())
    }

    fn highest(&self) -> f64 {
        0.45 * f64::from(self.form.rate)
    }

    fn in_samples(&self, seconds: f64) -> f64 {
        seconds * f64::from(self.form.rate)
    }

    /// The factor in a sample that leaves 1/e after `seconds`.
    fn decay(&self, seconds: f64) -> f64 {
        (-1.0 / self.in_samples(seconds)).exp()
    }
}

impl Partial {
    fn add_to(&self, sound: &mut [f64]) {
        let (mut phase, mut frequency, mut amplitude) = (self.phase, self.frequency, self.amplitude);
        for v in sound {
            *v += amplitude * phase.sin();
            phase += TAU * frequency;
            frequency *= self.glide;
            amplitude *= self.decay;
        }
    }
}

fn uniform(rng: &mut Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.uniform()
}

impl Sounds for Tones {
    fn len(&self) -> usize {
        self.items
    }

    fn are_left_to_chance(&self) -> bool {
        false
    }

    fn read(&self, index: usize, _: f64) -> Result<Clip> {
        Ok(Clip { samples: self.form.quantise(self.draw(index)), label: Some((index % Self::CLASSES) as u32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tones(seed: u64, split: Split) -> Tones {
        Tones::new(seed, split, 100, ClipForm { rate: 4000, samples: 2048, level: None })
    }

    #[test]
    fn an_item_depends_on_seed_split_and_index_alone() {
        let read = |tones: Tones, i| tones.read(i, 0.3).unwrap().samples;
        let first = read(tones(1, Split::Train), 7);
        assert_eq!(first, read(tones(1, Split::Train), 7));
        for other in [read(tones(1, Split::Train), 10), read(tones(1, Split::Test), 7), read(tones(2, Split::Train), 7)]
        {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn every_clip_sounds_and_none_is_clipped() {
        let tones = tones(0, Split::Test);
        for i in 0..300 {
            let clip = tones.read(i, 0.0).unwrap();
            assert_eq!((clip.samples.len(), clip.label), (2048, Some((i % 3) as u32)));
            let peak = clip.samples.iter().map(|v| v.unsigned_abs()).max().unwrap();
            assert!((8_000..32_700).contains(&peak), "{i}: {peak}");
        }
    }
}
