//! Clips as WAV files, and a sheet that shows them: the waveform above the log-mel spectrogram.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};
use lsgm_core::{Arrangement, Artifact, Error, Result};

use crate::spectrum::LogMel;

const GAP: usize = 4;
const WIDTH: usize = 192;
const WAVE_HEIGHT: usize = 48;
const BACKGROUND: Rgb<u8> = Rgb([96, 96, 96]);
const PAPER: Rgb<u8> = Rgb([16, 16, 24]);
const INK: Rgb<u8> = Rgb([120, 220, 160]);

/// A sheet with all clips, then a WAV file of each.
pub(crate) fn render(clips: &[Vec<f32>], arrangement: Arrangement, rate: u32) -> Result<Vec<Artifact>> {
    let mut artifacts = vec![sheet(clips, arrangement, rate)?];
    for (i, clip) in clips.iter().enumerate() {
        artifacts.push(Artifact { suffix: suffix(i, arrangement), extension: "wav", bytes: wav(clip, rate)? });
    }
    Ok(artifacts)
}

fn suffix(i: usize, arrangement: Arrangement) -> String {
    match arrangement {
        Arrangement::Samples => format!("-{i:03}"),
        Arrangement::Pairs if i.is_multiple_of(2) => format!("-{:03}-original", i / 2),
        Arrangement::Pairs => format!("-{:03}-reconstruction", i / 2),
        Arrangement::Paths(steps) => format!("-{:03}-{:02}", i / steps.max(1), i % steps.max(1)),
    }
}

/// A mono WAV file of 16 bits.
fn wav(clip: &[f32], rate: u32) -> Result<Vec<u8>> {
    let failed = |e: hound::Error| Error::Other(e.into());
    let format = hound::SampleFormat::Int;
    let spec = hound::WavSpec { channels: 1, sample_rate: rate, bits_per_sample: 16, sample_format: format };
    let mut file = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).map_err(failed)?;
    for v in clip {
        writer.write_sample((v * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16).map_err(failed)?;
    }
    writer.finalize().map_err(failed)?;
    Ok(file.into_inner())
}

fn sheet(clips: &[Vec<f32>], arrangement: Arrangement, rate: u32) -> Result<Artifact> {
    let mel = LogMel::new(rate);
    let zoom = (64 / mel.bands().max(1)).max(1);
    let (height, columns) = (WAVE_HEIGHT + zoom * mel.bands(), arrangement.columns(clips.len()));
    let rows = (0..clips.len()).map(|i| arrangement.place(i, columns).0 + 1).max().unwrap_or(1);
    let (cell_w, cell_h) = (WIDTH + GAP, height + GAP);
    let mut sheet = RgbImage::from_pixel((columns * cell_w + GAP) as u32, (rows * cell_h + GAP) as u32, BACKGROUND);
    for (i, clip) in clips.iter().enumerate() {
        let (row, column) = arrangement.place(i, columns);
        let corner = (GAP + column * cell_w, GAP + row * cell_h);
        draw_wave(&mut sheet, corner, clip);
        draw_spectrogram(&mut sheet, (corner.0, corner.1 + WAVE_HEIGHT), &mel.of(clip), zoom);
    }
    let mut bytes = Vec::new();
    sheet.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).map_err(|e| Error::Other(e.into()))?;
    Ok(Artifact { suffix: String::new(), extension: "png", bytes })
}

/// For each column the range of the samples that fall on it.
fn draw_wave(sheet: &mut RgbImage, (left, top): (usize, usize), clip: &[f32]) {
    let y_of = |v: f32| ((1.0 - v.clamp(-1.0, 1.0)) / 2.0 * (WAVE_HEIGHT - 1) as f32).round() as usize;
    for x in 0..WIDTH {
        let (from, to) = (x * clip.len() / WIDTH, ((x + 1) * clip.len()).div_ceil(WIDTH));
        let samples = clip.get(from..to).unwrap_or_default();
        let low = y_of(samples.iter().copied().fold(f32::INFINITY, f32::min));
        let high = y_of(samples.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        for y in 0..WAVE_HEIGHT {
            let colour = if (high..=low).contains(&y) { INK } else { PAPER };
            sheet.put_pixel((left + x) as u32, (top + y) as u32, colour);
        }
    }
}

/// Time to the right, frequency upwards, `zoom` pixels for a band.
fn draw_spectrogram(sheet: &mut RgbImage, (left, top): (usize, usize), frames: &[Vec<f32>], zoom: usize) {
    let bands = frames.first().map_or(0, Vec::len);
    for x in 0..WIDTH {
        let frame = &frames[x * frames.len() / WIDTH];
        for y in 0..zoom * bands {
            let value = frame[bands - 1 - y / zoom];
            sheet.put_pixel((left + x) as u32, (top + y) as u32, heat(value));
        }
    }
}

/// From black over violet and orange to pale yellow.
fn heat(value: f32) -> Rgb<u8> {
    const STOPS: [[f32; 3]; 5] =
        [[0.0, 0.0, 8.0], [80.0, 18.0, 123.0], [182.0, 54.0, 121.0], [252.0, 137.0, 97.0], [252.0, 253.0, 191.0]];
    let place = value.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let i = (place as usize).min(STOPS.len() - 2);
    let share = place - i as f32;
    Rgb([0, 1, 2].map(|c| (STOPS[i][c] * (1.0 - share) + STOPS[i + 1][c] * share).round() as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_and_a_file_for_each_clip() {
        let tone: Vec<f32> = (0..2048).map(|i| 0.5 * (0.8 * i as f32).sin()).collect();
        let clips = vec![tone.clone(), vec![0.0; 2048], tone];
        let found = render(&clips, Arrangement::Samples, 4000).unwrap();
        let names: Vec<String> = found.iter().map(|a| format!("{}.{}", a.suffix, a.extension)).collect();
        assert_eq!(names, [".png", "-000.wav", "-001.wav", "-002.wav"]);
        let mut reader = hound::WavReader::new(Cursor::new(&found[1].bytes)).unwrap();
        let read: Vec<f32> = reader.samples::<i16>().map(|v| f32::from(v.unwrap()) / 32_768.0).collect();
        assert!(read.iter().zip(&clips[0]).all(|(a, b)| (a - b).abs() <= 0.5 / 32_768.0));
        let sheet = image::load_from_memory(&found[0].bytes).unwrap().to_rgb8();
        // The spectrogram of silence is black all over, that of a tone is not.
        let bright = |x0: u32| {
            let (top, bottom) = ((GAP + WAVE_HEIGHT) as u32, (GAP + WAVE_HEIGHT) as u32 + 64);
            let pixels = (x0..x0 + 100).flat_map(|x| (top..bottom).map(move |y| (x, y)));
            pixels.filter(|(x, y)| sheet.get_pixel(*x, *y).0[0] > 200).count()
        };
        assert!(bright(GAP as u32) > 100 && bright((2 * GAP + WIDTH) as u32) == 0);
    }

    #[test]
    fn files_are_named_by_what_they_are() {
        assert_eq!(suffix(3, Arrangement::Pairs), "-001-reconstruction");
        assert_eq!(suffix(13, Arrangement::Paths(10)), "-001-03");
        assert_eq!([0, 1, 2, 3].map(|i| Arrangement::Pairs.place(i, 1)), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    }
}
