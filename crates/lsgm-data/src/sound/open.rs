//! From a card and a split to clips.

use std::ops::Range;
use std::path::Path;

use lsgm_core::Split;
use rayon::prelude::*;

use super::recording::{Header, Recording};
use super::table::read_sounds;
use super::{Clip, ClipForm, Sounds, Tones};
use crate::card::{Card, Generator};
use crate::locate::{Content, Located, locate, splits};
use crate::{DataError, Hub, Result};

/// Samples of a set that are kept in memory, half a gigabyte of them; a larger set is read from its files at each visit.
const IN_MEMORY: usize = 256 << 20;

/// Which clips are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SoundRequest<'a> {
    /// The data set.
    pub card: &'a Card,
    /// The split.
    pub split: Split,
    /// A folder that goes before the card's sources.
    pub dir: Option<&'a Path>,
    /// Where cached files are.
    pub hub: &'a Hub,
    /// What all clips have in common.
    pub form: ClipForm,
    /// Cut clips from any place of longer recordings; otherwise from fixed places, one after another.
    pub random_crop: bool,
    /// Recordings of fewer samples are left out, with a warning that counts them.
    pub shortest: usize,
    /// The seed of generators.
    pub seed: u64,
    /// At most so many recordings, from the first on.
    pub limit: Option<usize>,
}

/// Open a split as clips of one form. Nothing is downloaded.
///
/// A recording of several clips' length counts as so many items.
///
/// # Errors
/// Data that are not at hand, damaged, all silent or shorter than can be used, or none at all; a set that holds no sound.
pub(crate) fn open_sounds(request: &SoundRequest<'_>) -> Result<Box<dyn Sounds>> {
    let rule = splits(request.card, request.dir).rule(request.split).clone();
    let located = locate(request.card, &rule.part, request.dir, request.hub)?;
    let wanted = |total: usize| {
        let range = rule.range(total);
        let end = request.limit.map_or(range.end, |limit| range.end.min(range.start.saturating_add(limit)));
        range.start..end
    };
    if let Content::Generated(Generator::Tones, items) = located.content {
        return Ok(Box::new(Tones::new(request.seed, request.split, wanted(items).len(), request.form)));
    }
    let found = recordings(request.card, &located, wanted)?;
    let set = Recordings::open(found, request, &located.content.describe())?;
    Ok(Box::new(set))
}

/// The first clip of a file.
///
/// # Errors
/// A file that is missing, damaged, or of a kind that cannot be read.
pub(crate) fn read_clip(path: &Path, form: &ClipForm) -> Result<Clip> {
    let samples = Recording::File(path.to_owned()).read(0..form.samples, form.rate)?;
    Ok(Clip { samples: form.quantise(samples), label: None })
}

/// A recording and its class.
pub(super) type Labelled = (Recording, Option<u32>);

/// The recordings `wanted(total)` of a part.
pub(super) fn recordings(
    card: &Card,
    located: &Located,
    wanted: impl Fn(usize) -> Range<usize>,
) -> Result<Vec<Labelled>> {
    match &located.content {
        Content::Sounds { files, .. } => {
            let files = files.get(wanted(files.len())).unwrap_or_default();
            Ok(files.iter().map(|f| (Recording::File(f.path.clone()), f.label)).collect())
        }
        Content::Parquet { files, columns } => read_sounds(files, columns, wanted),
        _ => Err(DataError::Card {
            origin: format!("data set card {}", card.name),
            message: format!("the set is for {}, not for audio", card.modality.join(", ")),
        }),
    }
}

/// Clips cut from recordings.
struct Recordings {
    entries: Vec<Entry>,
    /// Recording and place of each item: the `n`-th clip's length of it.
    items: Vec<(usize, usize)>,
    form: ClipForm,
    random_crop: bool,
}

struct Entry {
    recording: Recording,
    label: Option<u32>,
    /// Length at the set's rate.
    frames: usize,
    /// All of it at the set's rate, if the set is small.
    samples: Option<Vec<i16>>,
}

impl Recordings {
    fn open(found: Vec<Labelled>, request: &SoundRequest<'_>, origin: &str) -> Result<Self> {
        let SoundRequest { form, random_crop, shortest, .. } = *request;
        let headers: Vec<Header> = found.par_iter().map(|(r, _)| r.header()).collect::<Result<_>>()?;
        let total = found.len();
        let with_frames = found.into_iter().zip(headers).map(|((recording, label), header)| Entry {
            recording,
            label,
            frames: header.frames_at(form.rate),
            samples: None,
        });
        let mut entries: Vec<Entry> = with_frames.filter(|e| e.frames >= shortest).collect();
        let empty = |advice: String| DataError::Empty {
            origin: origin.to_owned(),
            set: request.card.name.clone(),
            split: request.split.name(),
            advice,
        };
        if total == 0 {
            return Err(empty("give more data, or another rule in `splits` of the card".into()));
        }
        let short = total - entries.len();
        if entries.is_empty() {
            return Err(empty(format!(
                "all {total} recordings have fewer than {shortest} samples at {} Hz",
                form.rate
            )));
        }
        if short > 0 {
            tracing::warn!(
                "{origin}: {short} of {total} recordings are left out: they have fewer than {shortest} samples at {} Hz",
                form.rate
            );
        }
        if entries.iter().map(|e| e.frames).sum::<usize>() <= IN_MEMORY {
            load(&mut entries, form.rate)?;
            let silent = entries.iter().filter(|e| e.is_silent()).count();
            if silent == entries.len() {
                return Err(empty(format!("all {silent} recordings are silent")));
            }
            if let Some(first) = entries.iter().find(|e| e.is_silent()) {
                let first = first.recording.origin().display();
                tracing::warn!("{origin}: {silent} of {} recordings are silent, {first} among them", entries.len());
            }
        }
        let clips = |e: &Entry| (e.frames / form.samples).max(1);
        let items = entries.iter().enumerate().flat_map(|(i, e)| (0..clips(e)).map(move |n| (i, n))).collect();
        Ok(Self { entries, items, form, random_crop })
    }
}

fn load(entries: &mut [Entry], rate: u32) -> Result<()> {
    entries.par_iter_mut().try_for_each(|entry| {
        let whole = ClipForm { rate, samples: entry.frames, level: None };
        entry.samples = Some(whole.quantise(entry.recording.read(0..entry.frames, rate)?));
        Ok(())
    })
}

impl Entry {
    fn is_silent(&self) -> bool {
        self.samples.as_ref().is_some_and(|s| s.iter().all(|v| *v == 0))
    }

    fn read(&self, range: Range<usize>, rate: u32) -> Result<Vec<f32>> {
        match &self.samples {
            Some(samples) => {
                let end = range.end.min(samples.len());
                let piece = samples.get(range.start.min(end)..end).unwrap_or_default();
                Ok(piece.iter().map(|v| f32::from(*v) / 32_768.0).collect())
            }
            None => self.recording.read(range.start..range.end.min(self.frames), rate),
        }
    }
}

impl Sounds for Recordings {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn are_left_to_chance(&self) -> bool {
        self.random_crop && self.entries.iter().any(|entry| entry.frames > self.form.samples)
    }

    fn read(&self, index: usize, place: f64) -> Result<Clip> {
        let missing = || DataError::Contract(format!("clip {index} of {} was asked for", self.items.len()));
        let (entry, clip) = self.items.get(index).copied().ok_or_else(missing)?;
        let (entry, samples) = (self.entries.get(entry).ok_or_else(missing)?, self.form.samples);
        let slack = entry.frames.saturating_sub(samples);
        let start = match self.random_crop {
            true => ((slack + 1) as f64 * place) as usize,
            false => clip * samples,
        };
        let start = start.min(slack);
        let read = entry.read(start..start + samples, self.form.rate)?;
        Ok(Clip { samples: self.form.quantise(read), label: entry.label })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn write(dir: &Path, name: &str, samples: impl IntoIterator<Item = i16>) -> PathBuf {
        let path = dir.join(name);
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: 8000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(&path, spec).unwrap();
        samples.into_iter().for_each(|v| writer.write_sample(v).unwrap());
        writer.finalize().unwrap();
        path
    }

    fn request<'a>(card: &'a Card, dir: &'a Path, hub: &'a Hub, random_crop: bool) -> SoundRequest<'a> {
        let form = ClipForm { rate: 8000, samples: 100, level: None };
        let split = Split::Train;
        SoundRequest { card, split, dir: Some(dir), hub, form, random_crop, shortest: 16, seed: 0, limit: None }
    }

    #[test]
    fn long_recordings_give_several_clips_and_short_ones_are_filled_up() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.wav", 0..350);
        write(dir.path(), "b.wav", [7; 20]);
        write(dir.path(), "too-short.wav", [1; 3]);
        let (card, hub) = (Card::find("tones").unwrap(), Hub::from_variables(|_| None));
        let fixed = open_sounds(&request(&card, dir.path(), &hub, false)).unwrap();
        let clips: Vec<Clip> = (0..fixed.len()).map(|i| fixed.read(i, 0.9).unwrap()).collect();
        assert_eq!(clips.len(), 4);
        let mut firsts: Vec<i16> = clips.iter().map(|c| c.samples[0]).collect();
        firsts.sort();
        assert_eq!(firsts, [0, 7, 100, 200]);
        let short = clips.iter().find(|c| c.samples[0] == 7).unwrap();
        assert!(short.samples[..20].iter().all(|v| *v == 7) && short.samples[20..].iter().all(|v| *v == 0));
        let random = open_sounds(&request(&card, dir.path(), &hub, true)).unwrap();
        let long = (0..4).find(|i| random.read(*i, 0.0).unwrap().samples[50] != 0).unwrap();
        assert_eq!(random.read(long, 0.5).unwrap().samples[0], 125);
        assert_eq!(random.read(long, 0.999_99).unwrap().samples[99], 349);
        assert!(random.read(4, 0.0).is_err());
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_name() {
        let hub = Hub::from_variables(|_| None);
        let card = Card::find("tones").unwrap();
        let fails = |fill: &dyn Fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            fill(dir.path());
            open_sounds(&request(&card, dir.path(), &hub, false)).err().unwrap().to_string()
        };
        let message = fails(&|d| drop(write(d, "quiet.wav", [0; 500])));
        assert!(message.contains("silent"), "{message}");
        let message = fails(&|d| drop(write(d, "blip.wav", [5; 4])));
        assert!(message.contains("fewer than 16 samples"), "{message}");
        let message = fails(&|d| std::fs::write(d.join("empty.wav"), b"").unwrap());
        assert!(message.contains("empty.wav"), "{message}");
        let message = fails(&|_| ());
        assert!(message.contains("--data"), "{message}");
        #[cfg(not(feature = "symphonia"))]
        {
            let message = fails(&|d| std::fs::write(d.join("song.mp3"), b"ID3 and so on").unwrap());
            assert!(message.contains("song.mp3") && message.contains("symphonia"), "{message}");
        }
        let images = Card::find("glyphs").unwrap();
        let request = SoundRequest { dir: None, ..request(&images, Path::new(""), &hub, false) };
        let message = open_sounds(&request).err().unwrap().to_string();
        assert!(message.contains("not for audio"), "{message}");
    }
}
