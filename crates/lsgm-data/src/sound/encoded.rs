//! FLAC, OGG Vorbis and MP3, by symphonia.

use std::ops::Range;
use std::path::{Path, PathBuf};

use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, SeekMode, SeekTo, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::units::Timestamp;

use super::wav::{check_rate, not_a_number, unusable};
use crate::shield::shield;
use crate::{DataError, Result};

/// An open encoded file.
pub(super) struct Encoded {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    origin: PathBuf,
    /// Samples of each channel in a second.
    pub(super) rate: u32,
    /// Samples of each channel.
    pub(super) frames: usize,
}

impl Encoded {
    /// Find out what it is and how long it is; a stream that does not say so is decoded to its end.
    pub(super) fn open(source: Box<dyn MediaSource>, origin: &Path) -> Result<Self> {
        shield(|| Self::probe(source, origin)).unwrap_or_else(|| Err(senseless(origin)))
    }

    fn probe(source: Box<dyn MediaSource>, origin: &Path) -> Result<Self> {
        let failed = |e: Error| refusal(origin, "header", e);
        let mut hint = Hint::new();
        if let Some(extension) = origin.extension().and_then(|e| e.to_str()) {
            hint.with_extension(extension);
        }
        let stream = MediaSourceStream::new(source, Default::default());
        let probe = symphonia::default::get_probe();
        let format = probe.probe(&hint, stream, Default::default(), Default::default()).map_err(failed)?;
        let track = format.default_track(TrackType::Audio).ok_or_else(|| unusable(origin, "no sound in it"))?;
        let codec = track.codec_params.as_ref().and_then(|c| c.audio());
        let codec = codec.ok_or_else(|| unusable(origin, "its codec cannot be read"))?;
        let rate = codec.sample_rate.ok_or_else(|| unusable(origin, "it has no sample rate"))?;
        check_rate(rate, origin)?;
        let options = AudioDecoderOptions::default();
        let decoder = symphonia::default::get_codecs().make_audio_decoder(codec, &options).map_err(failed)?;
        let (id, known) = (track.id, track.num_frames.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0));
        let mut file = Self { format, decoder, track: id, origin: origin.to_owned(), rate, frames: known.unwrap_or(0) };
        if known.is_none() {
            file.frames = file.decode(0..usize::MAX)?.len();
        }
        if file.frames == 0 {
            return Err(unusable(origin, "no samples"));
        }
        Ok(file)
    }

    /// Samples `frames` of all channels, mixed to mono.
    pub(super) fn read(&mut self, frames: Range<usize>) -> Result<Vec<f32>> {
        let origin = self.origin.clone();
        let expected = frames.len();
        let samples = shield(|| self.decode(frames)).unwrap_or_else(|| Err(senseless(&origin)))?;
        if samples.len() != expected {
            let message = format!("{} samples instead of {expected}: the file is truncated", samples.len());
            return Err(DataError::corrupt(&origin, "end of the stream", message));
        }
        Ok(samples)
    }

    fn decode(&mut self, frames: Range<usize>) -> Result<Vec<f32>> {
        let origin = self.origin.clone();
        let failed = |e: Error| refusal(&origin, "stream", e);
        let target = Timestamp::new(i64::try_from(frames.start).unwrap_or(i64::MAX));
        let to = SeekTo::Timestamp { ts: target, track_id: self.track };
        self.format.seek(SeekMode::Accurate, to).map_err(failed)?;
        self.decoder.reset();
        let (mut mono, mut interleaved) = (Vec::new(), Vec::<f32>::new());
        while mono.len() < frames.len() {
            let Some(packet) = self.format.next_packet().map_err(failed)? else { break };
            if packet.track_id != self.track {
                continue;
            }
            let at = usize::try_from(packet.pts.get()).unwrap_or(0);
            let buffer = self.decoder.decode(&packet).map_err(failed)?;
            let channels = buffer.num_planes().max(1);
            buffer.copy_to_vec_interleaved(&mut interleaved);
            let before = (frames.start + mono.len()).saturating_sub(at);
            let wanted = interleaved.chunks_exact(channels).skip(before).take(frames.len() - mono.len());
            mono.extend(wanted.map(|frame| frame.iter().sum::<f32>() / channels as f32));
        }
        match mono.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(not_a_number(&origin, frames.start + i)),
            None => Ok(mono),
        }
    }
}

fn senseless(origin: &Path) -> DataError {
    DataError::corrupt(origin, "stream", "the decoder cannot make sense of the bytes")
}

fn refusal(origin: &Path, place: &str, error: Error) -> DataError {
    match error {
        Error::Unsupported(what) => unusable(origin, format!("its codec cannot be read ({what}); convert it to WAV")),
        error => DataError::corrupt(origin, place, error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn crc(bytes: &[u8], polynomial: u32, bits: u32) -> u32 {
        let top = 1 << (bits - 1);
        bytes.iter().fold(0, |crc, b| {
            (0..8).fold(crc ^ (u32::from(*b) << (bits - 8)), |c, _| {
                (if c & top == 0 { c << 1 } else { (c << 1) ^ polynomial }) & (top << 1).wrapping_sub(1)
            })
        })
    }

    /// A FLAC stream of 16-bit mono samples, in frames of 1000 that hold them as they are (RFC 9639).
    fn flac(samples: &[i16], rate: u32) -> Vec<u8> {
        let (block, total) = (1000u16, samples.len() as u64);
        let mut file = b"fLaC\x80\0\0\x22".to_vec();
        file.extend([block.to_be_bytes(), block.to_be_bytes()].concat());
        file.extend([0; 6]);
        let packed = (u64::from(rate) << 44) | (15 << 36) | total;
        file.extend(packed.to_be_bytes());
        file.extend([0; 16]);
        for (number, samples) in samples.chunks(block.into()).enumerate() {
            let mut frame = vec![0xff, 0xf8, 0x70, 0x08, number as u8];
            frame.extend((samples.len() as u16 - 1).to_be_bytes());
            frame.push(crc(&frame, 0x07, 8) as u8);
            frame.push(0x02);
            frame.extend(samples.iter().flat_map(|v| v.to_be_bytes()));
            frame.extend((crc(&frame, 0x8005, 16) as u16).to_be_bytes());
            file.extend(frame);
        }
        file
    }

    fn open(bytes: Vec<u8>) -> Result<Encoded> {
        Encoded::open(Box::new(Cursor::new(bytes)), Path::new("x.flac"))
    }

    #[test]
    fn any_piece_of_a_flac_stream_is_read() {
        let samples: Vec<i16> = (0..5300).map(|i| (i * 5 - 12_000) as i16).collect();
        let mut file = open(flac(&samples, 8000)).unwrap();
        assert_eq!((file.rate, file.frames), (8000, 5300));
        for range in [0..5300, 10..20, 2500..4100, 990..1010, 5299..5300] {
            let expected: Vec<f32> = samples[range.clone()].iter().map(|v| f32::from(*v) / 32_768.0).collect();
            assert_eq!(file.read(range.clone()).unwrap(), expected, "{range:?}");
        }
        assert!(file.read(5000..5400).is_err());
    }

    #[test]
    fn damage_is_an_error_with_the_name() {
        let whole = flac(&[7; 3000], 8000);
        for bytes in [b"ID3 but nothing that follows".to_vec(), vec![0x55; 4000], whole[..30].to_vec()] {
            let message = open(bytes).and_then(|mut f| f.read(0..f.frames)).err().unwrap().to_string();
            assert!(message.contains("x.flac"), "{message}");
        }
        let cut = open(whole[..whole.len() / 2].to_vec()).and_then(|mut f| f.read(0..3000));
        assert!(cut.is_err());
    }
}
