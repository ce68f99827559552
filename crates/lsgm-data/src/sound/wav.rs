//! WAV: whole numbers of 8 to 32 bits and 32-bit floating point numbers.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use hound::{SampleFormat, WavReader};

use crate::shield::shield;
use crate::{DataError, Result};

/// More channels than a recording that can be mixed to mono in any meaningful way has.
const MOST_CHANNELS: usize = 32;

/// An open WAV file.
#[derive(Debug)]
pub(super) struct Wav<R> {
    reader: R,
    origin: PathBuf,
    coding: Coding,
    channels: usize,
    /// Where the samples begin.
    start: u64,
    /// Samples of each channel in a second.
    pub(super) rate: u32,
    /// Samples of each channel.
    pub(super) frames: usize,
}

/// How a sample is written, little-endian.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Coding {
    /// Unsigned, silence at 128.
    Byte,
    /// Signed, of 2, 3 or 4 bytes.
    Integer(usize),
    Float,
}

impl Coding {
    fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Integer(bytes) => bytes,
            Self::Float => 4,
        }
    }

    /// A sample in [-1, 1).
    fn decode(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::Byte, [b]) => (f32::from(*b) - 128.0) / 128.0,
            (Self::Integer(_), [a, b]) => f32::from(i16::from_le_bytes([*a, *b])) / 32_768.0,
            (Self::Integer(_), [a, b, c]) => (i32::from_le_bytes([0, *a, *b, *c]) >> 8) as f32 / 8_388_608.0,
            (Self::Integer(_), [a, b, c, d]) => i32::from_le_bytes([*a, *b, *c, *d]) as f32 / 2_147_483_648.0,
            (Self::Float, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
            _ => f32::NAN,
        }
    }
}

impl<R: Read + Seek> Wav<R> {
    /// Read the header and compare what it promises with what is there.
    pub(super) fn open(mut reader: R, origin: &Path) -> Result<Self> {
        let failed = |e| DataError::io(origin, e);
        let corrupt = |message: String| DataError::corrupt(origin, "WAV header", message);
        let length = reader.seek(SeekFrom::End(0)).map_err(failed)?;
        if length == 0 {
            return Err(DataError::corrupt(origin, "byte 0", "the file is empty"));
        }
        reader.rewind().map_err(failed)?;
        let parsed = shield(|| WavReader::new(&mut reader).map(|r| (r.spec(), r.len())));
        let (spec, samples) = match parsed {
            Some(Ok(header)) => header,
            Some(Err(error)) => return Err(refusal(origin, error)),
            None => return Err(corrupt("the reader cannot make sense of the bytes".into())),
        };
        let start = reader.stream_position().map_err(failed)?;
        let promised = chunk_size(&mut reader, start).map_err(failed)?;
        if promised == 0 {
            return Err(unusable(origin, "no samples: the data chunk is empty"));
        }
        let (channels, rate) = (usize::from(spec.channels), spec.sample_rate);
        // A sample may take more bytes than its bits need.
        let coding = match (spec.sample_format, promised / u64::from(samples).max(1)) {
            (SampleFormat::Int, 1) => Coding::Byte,
            (SampleFormat::Int, bytes @ 2..=4) => Coding::Integer(bytes as usize),
            (SampleFormat::Float, 4) => Coding::Float,
            (_, bytes) => return Err(unusable(origin, format!("samples of {bytes} bytes cannot be read"))),
        };
        if !(1..=MOST_CHANNELS).contains(&channels) {
            let message =
                format!("{channels} channels: up to {MOST_CHANNELS} are mixed to mono; extract those you want");
            return Err(unusable(origin, message));
        }
        check_rate(rate, origin)?;
        let present = length.saturating_sub(start);
        if promised > present {
            let message =
                format!("{promised} bytes of samples are promised, but {present} follow: the file is truncated");
            return Err(corrupt(message));
        }
        let frame = (channels * coding.bytes()) as u64;
        if promised % frame != 0 {
            return Err(corrupt(format!("{promised} bytes of samples are no whole number of {frame}-byte frames")));
        }
        let frames = (promised / frame) as usize;
        Ok(Self { reader, origin: origin.to_owned(), coding, channels, start, rate, frames })
    }

    /// Samples `frames` of all channels, mixed to mono.
    pub(super) fn read(&mut self, frames: Range<usize>) -> Result<Vec<f32>> {
        let frame = self.channels * self.coding.bytes();
        let mut bytes = vec![0; frames.len() * frame];
        let from = self.start + (frames.start * frame) as u64;
        let got = self.reader.seek(SeekFrom::Start(from)).and_then(|_| self.reader.read_exact(&mut bytes));
        got.map_err(|e| DataError::io(&self.origin, e))?;
        let mono = |(i, frame): (usize, &[u8])| {
            let samples = frame.chunks_exact(self.coding.bytes()).map(|b| self.coding.decode(b));
            let mean = samples.sum::<f32>() / self.channels as f32;
            if mean.is_finite() { Ok(mean) } else { Err(not_a_number(&self.origin, frames.start + i)) }
        };
        bytes.chunks_exact(frame).enumerate().map(mono).collect()
    }
}

/// The size of the chunk whose content begins at `start`: the four bytes before it.
fn chunk_size(reader: &mut (impl Read + Seek), start: u64) -> io::Result<u64> {
    let mut size = [0; 4];
    reader.seek(SeekFrom::Start(start.saturating_sub(4)))?;
    reader.read_exact(&mut size)?;
    Ok(u64::from(u32::from_le_bytes(size)))
}

/// Refuse a rate that no recording has.
///
/// # Errors
/// A rate outside [`super::RATES`].
pub(super) fn check_rate(rate: u32, origin: &Path) -> Result<()> {
    if super::RATES.contains(&rate) {
        return Ok(());
    }
    let (low, high) = super::RATES.into_inner();
    Err(DataError::corrupt(origin, "header", format!("a sample rate of {rate} Hz: it must lie in {low}..={high}")))
}

/// A recording that is sound as a file but cannot be used.
pub(super) fn unusable(origin: &Path, message: impl Into<String>) -> DataError {
    DataError::Sound { path: origin.to_owned(), message: message.into() }
}

pub(super) fn not_a_number(origin: &Path, frame: usize) -> DataError {
    DataError::corrupt(origin, format!("sample {frame}"), "not a finite number")
}

fn refusal(origin: &Path, error: hound::Error) -> DataError {
    let corrupt = |message: &str| DataError::corrupt(origin, "WAV header", message);
    match error {
        hound::Error::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => corrupt("the file ends within it"),
        hound::Error::IoError(e) => match e.kind() {
            io::ErrorKind::Other => corrupt("the file ends within it"),
            _ => DataError::io(origin, e),
        },
        hound::Error::Unsupported => unusable(
            origin,
            "its codec cannot be read: WAV files must hold PCM or 32-bit floating point samples; convert it",
        ),
        error => corrupt(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn wav(
        bits: u16,
        format: SampleFormat,
        channels: u16,
        write: impl Fn(&mut hound::WavWriter<&mut Cursor<Vec<u8>>>),
    ) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        let spec = hound::WavSpec { channels, sample_rate: 8000, bits_per_sample: bits, sample_format: format };
        let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
        write(&mut writer);
        writer.finalize().unwrap();
        file.into_inner()
    }

    fn samples(bytes: Vec<u8>) -> Vec<f32> {
        let mut wav = Wav::open(Cursor::new(bytes), Path::new("x.wav")).unwrap();
        wav.read(0..wav.frames).unwrap()
    }

    #[test]
    fn every_width_is_read_to_the_same_scale() {
        for bits in [8u16, 16, 24, 32] {
            let full = 1i64 << (bits - 1);
            let bytes = wav(bits, SampleFormat::Int, 1, |w| {
                for value in [0, full / 2, -full, full - 1] {
                    w.write_sample(value as i32).unwrap();
                }
            });
            let found = samples(bytes);
            assert_eq!(found[..3], [0.0, 0.5, -1.0], "{bits}");
            assert!(found[3] > 0.99, "{bits}");
        }
        let bytes =
            wav(32, SampleFormat::Float, 1, |w| [0.25f32, -1.5].iter().for_each(|v| w.write_sample(*v).unwrap()));
        assert_eq!(samples(bytes), [0.25, -1.5]);
    }

    #[test]
    fn channels_are_averaged_and_ranges_are_sought() {
        let bytes = wav(16, SampleFormat::Int, 2, |w| {
            for i in 0..100i16 {
                w.write_sample(i * 64).unwrap();
                w.write_sample(i * 192).unwrap();
            }
        });
        let mut file = Wav::open(Cursor::new(bytes), Path::new("x.wav")).unwrap();
        assert_eq!((file.frames, file.rate), (100, 8000));
        assert_eq!(file.read(7..9).unwrap(), [7.0 * 128.0 / 32_768.0, 8.0 * 128.0 / 32_768.0]);
        assert!(file.read(99..102).is_err());
    }

    /// What is wrong with a file, and a word of the message.
    #[test]
    fn damage_is_named() {
        let sound = wav(16, SampleFormat::Int, 1, |w| (0..50i16).for_each(|i| w.write_sample(i).unwrap()));
        let with = |at: usize, bytes: &[u8]| {
            let mut file = sound.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            file
        };
        let none = wav(16, SampleFormat::Int, 1, |_| {});
        let nan = wav(32, SampleFormat::Float, 1, |w| [0.0, f32::NAN].iter().for_each(|v| w.write_sample(*v).unwrap()));
        let many = wav(16, SampleFormat::Int, 200, |w| (0..200i16).for_each(|i| w.write_sample(i).unwrap()));
        for (bytes, word) in [
            (Vec::new(), "empty"),
            (sound[..20].to_vec(), "ends within"),
            (sound[..100].to_vec(), "truncated"),
            (with(0, b"RIFX"), "RIFF"),
            (with(8, b"AVI "), "WAVE"),
            (with(16, &[7, 0, 0, 0]), "fmt"),
            (with(20, &[0x11, 0]), "codec"),
            (with(22, &[0, 0]), "zero channels"),
            (with(28, &[1, 0, 0, 0]), "inconsistent"),
            // Rate and bytes for each second, far beyond any sound.
            (with(24, &[0, 0, 0, 0x20, 0, 0, 0, 0x40]), "a sample rate of 536870912 Hz"),
            (with(34, &[12, 0]), "multiple of 8"),
            (with(36, b"junk"), "ends within"),
            (with(40, &[0xfe, 0xff, 0xff, 0xff]), "truncated"),
            (with(40, &[99, 0, 0, 0]), "multiple of sample size"),
            (none, "no samples"),
            (many, "200 channels"),
            (nan, "not a finite number"),
        ] {
            let read = Wav::open(Cursor::new(bytes), Path::new("bad.wav")).and_then(|mut w| w.read(0..w.frames));
            let message = read.unwrap_err().to_string();
            assert!(message.contains("bad.wav") && message.contains(word), "{word}: {message}");
        }
    }

    /// No prefix and no changed byte makes the reader panic or claim more than there is.
    #[test]
    fn damaged_bytes_are_errors_or_samples() {
        let sound = wav(16, SampleFormat::Int, 2, |w| (0..20i16).for_each(|i| w.write_sample(i).unwrap()));
        for at in 0..sound.len() {
            for value in [0u8, 1, 0x7f, 0xff] {
                let mut file = sound.clone();
                file[at] = value;
                if let Ok(mut wav) = Wav::open(Cursor::new(file), Path::new("x")) {
                    assert!(wav.frames <= sound.len());
                    let _ = wav.read(0..wav.frames);
                }
            }
            assert!(Wav::open(Cursor::new(sound[..at].to_vec()), Path::new("x")).is_err());
        }
    }
}
