use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::resample::{resample, resampled_length};
use super::wav::{Wav, unusable};
use crate::{DataError, Result};

/// One recording of any length.
#[derive(Debug, Clone)]
pub(super) enum Recording {
    /// A file.
    File(PathBuf),
    /// The content of a file, taken from a table.
    Bytes {
        /// Which file, and where in it, for errors.
        origin: PathBuf,
        bytes: Arc<[u8]>,
    },
}

/// What a recording says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Samples in a second.
    pub(super) rate: u32,
    /// Samples.
    pub(super) frames: usize,
}

impl Header {
    /// Number of samples at another rate.
    pub(super) fn frames_at(self, rate: u32) -> usize {
        resampled_length(self.frames, self.rate, rate)
    }
}

/// An open recording.
enum Open {
    Wav(Wav<Box<dyn Source>>),
    #[cfg(feature = "symphonia")]
    Encoded(super::encoded::Encoded),
}

trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

impl Recording {
    /// Where it is from.
    pub(super) fn origin(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Bytes { origin, .. } => origin,
        }
    }

    /// Read its header, and see that the file has what the header promises.
    ///
    /// # Errors
    /// A file that is missing, damaged, or of a kind that cannot be read.
    pub(super) fn header(&self) -> Result<Header> {
        Ok(self.open()?.header())
    }

    /// Samples `range` of it at `rate` (counted at that rate), mono, without reading the rest.
    ///
    /// # Errors
    /// As [`Recording::header`], and samples that are not numbers.
    pub(super) fn read(&self, range: Range<usize>, rate: u32) -> Result<Vec<f32>> {
        let mut open = self.open()?;
        let header = open.header();
        // Some more on both sides, so that the filter of the resampler sees no edge; from a place on that both rates share.
        let margin = if header.rate == rate { 0 } else { 256 };
        let common = gcd(rate, header.rate);
        let (unit, own_unit) = ((rate / common) as usize, (header.rate / common) as usize);
        let first = range.start.saturating_sub(margin) / unit;
        let from = (first * own_unit).min(header.frames);
        let to = resampled_length(range.end.saturating_add(margin), rate, header.rate).clamp(from, header.frames);
        let lead = range.start - first * unit;
        let samples = resample(open.read(from..to)?, header.rate, rate)
            .map_err(|e| unusable(self.origin(), format!("cannot be resampled from {} Hz: {e}", header.rate)))?;
        Ok(samples.into_iter().skip(lead).take(range.len()).collect())
    }

    fn open(&self) -> Result<Open> {
        let mut source: Box<dyn Source> = match self {
            Self::File(path) => Box::new(BufReader::new(File::open(path).map_err(|e| DataError::io(path, e))?)),
            Self::Bytes { bytes, .. } => Box::new(Cursor::new(bytes.clone())),
        };
        let origin = self.origin();
        let mut tag = Vec::new();
        source.by_ref().take(4).read_to_end(&mut tag).map_err(|e| DataError::io(origin, e))?;
        if tag == b"RIFF" || tag.is_empty() || is_wav(origin) {
            return Ok(Open::Wav(Wav::open(source, origin)?));
        }
        self.open_encoded()
    }

    #[cfg(feature = "symphonia")]
    fn open_encoded(&self) -> Result<Open> {
        let source: Box<dyn symphonia::core::io::MediaSource> = match self {
            Self::File(path) => Box::new(File::open(path).map_err(|e| DataError::io(path, e))?),
            Self::Bytes { bytes, .. } => Box::new(Cursor::new(bytes.clone())),
        };
        Ok(Open::Encoded(super::encoded::Encoded::open(source, self.origin())?))
    }

    #[cfg(not(feature = "symphonia"))]
    fn open_encoded(&self) -> Result<Open> {
        let message =
            "not a WAV file; FLAC, OGG and MP3 need a program built with `--features symphonia`, or convert it";
        Err(unusable(self.origin(), message))
    }
}

/// The greatest common divisor.
fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

fn is_wav(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("wav") || e.eq_ignore_ascii_case("wave"))
}

impl Open {
    fn header(&self) -> Header {
        match self {
            Self::Wav(wav) => Header { rate: wav.rate, frames: wav.frames },
            #[cfg(feature = "symphonia")]
            Self::Encoded(file) => Header { rate: file.rate, frames: file.frames },
        }
    }

    fn read(&mut self, frames: Range<usize>) -> Result<Vec<f32>> {
        match self {
            Self::Wav(wav) => wav.read(frames),
            #[cfg(feature = "symphonia")]
            Self::Encoded(file) => file.read(frames),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_what_the_whole_has_there_at_another_rate_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long.wav");
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: 16_000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(&path, spec).unwrap();
        for i in 0..40_000 {
            let t = f64::from(i) / 16_000.0;
            writer.write_sample((9000.0 * (2.0 * std::f64::consts::PI * 440.0 * t).sin()) as i16).unwrap();
        }
        writer.finalize().unwrap();
        let recording = Recording::File(path);
        for rate in [16_000, 8000, 6000] {
            let frames = recording.header().unwrap().frames_at(rate);
            assert_eq!(frames, 40_000 * rate as usize / 16_000);
            let whole = recording.read(0..frames, rate).unwrap();
            let piece = recording.read(6000..7000, rate).unwrap();
            assert_eq!((whole.len(), piece.len()), (frames, 1000));
            let error = piece.iter().zip(&whole[6000..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 2e-3, "{rate}: {error}");
        }
    }
}
