//! Encoded images: decoded all at once into memory, or one by one as they are visited.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::image_set::out_of_range;
use crate::open::Reading;
use crate::picture::{Damaged, Refusal, Target, check_header, decode, wrong_size};
use crate::{DataError, ImageSet, ImageSize, Images, Result};

/// Images that are decoded at once.
const BATCH: usize = 256;

/// PNG or JPEG files, wherever they lie.
pub(crate) trait Encoded: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// The content of one file.
    fn bytes(&self, index: usize) -> Result<Vec<u8>>;

    /// Enough of its content to hold the header of most files.
    fn head(&self, index: usize) -> Result<Vec<u8>> {
        self.bytes(index)
    }

    /// Its label, where there are labels.
    fn label(&self, index: usize) -> Option<u32>;

    /// Where it comes from, for errors.
    fn origin(&self, index: usize) -> String;
}

/// The error for an image that cannot be used.
pub(crate) fn refused(origin: String, target: Target, refusal: Refusal) -> DataError {
    match refusal {
        Refusal::Bytes(message) => DataError::Unusable { origin, message },
        Refusal::Size(found) => wrong_size(origin, target.size, found),
    }
}

/// What could not be used so far.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    count: usize,
    first: String,
}

impl Skipped {
    /// Take the error as a reason to leave an image out, where `reading` allows that.
    pub(crate) fn or_refuse(&mut self, error: DataError, reading: Reading) -> Result<()> {
        if reading.damaged == Damaged::Refuse || !matches!(error, DataError::Unusable { .. }) {
            return Err(error);
        }
        if self.count == 0 {
            self.first = error.to_string();
        }
        self.count += 1;
        Ok(())
    }

    /// Warn of what was left out of `total` images.
    pub(crate) fn tell(&self, total: usize) {
        if self.count > 0 {
            let Self { count, first } = self;
            tracing::warn!("{count} of {total} images cannot be used and are left out; the first: {first}");
        }
    }
}

/// All images, decoded into memory.
///
/// # Errors
/// The first image that cannot be used, unless such images are to be skipped.
pub(crate) fn load(files: &impl Encoded, target: Target, reading: Reading) -> Result<ImageSet> {
    let mut pixels = Vec::new();
    let mut labels = Vec::new();
    let mut skipped = Skipped::default();
    for start in (0..files.len()).step_by(BATCH) {
        let end = files.len().min(start + BATCH);
        let decoded: Vec<_> = (start..end).into_par_iter().map(|i| decode_one(files, i, target)).collect();
        for (index, image) in (start..end).zip(decoded) {
            match image {
                Ok(image) => {
                    pixels.extend(image);
                    labels.extend(files.label(index));
                }
                Err(error) => skipped.or_refuse(error, reading)?,
            }
        }
    }
    skipped.tell(files.len());
    ImageSet::new(target.size, pixels, (!labels.is_empty()).then_some(labels))
}

fn decode_one(files: &impl Encoded, index: usize, target: Target) -> Result<Vec<u8>> {
    let bytes = files.bytes(index)?;
    let mut pixels = Vec::with_capacity(target.size.bytes());
    decode(&bytes, target, &mut pixels).map_err(|refusal| refused(files.origin(index), target, refusal))?;
    Ok(pixels)
}

/// Images that are decoded each time they are visited: a large set needs no memory for its pixels.
///
/// Every file's header is read at the start. An image whose header is fine but whose content is not is found when it
/// is visited: the next usable one takes its place where such images are to be skipped.
pub(crate) struct LazyImages<E> {
    files: E,
    /// The files that are used.
    usable: Vec<usize>,
    target: Target,
    reading: Reading,
    invert: bool,
    replaced: AtomicUsize,
}

/// How many files are tried in place of one that cannot be used.
const TRIES: usize = 32;

impl<E: Encoded> LazyImages<E> {
    pub(crate) fn new(files: E, target: Target, reading: Reading, invert: bool) -> Result<Self> {
        let check = |index: usize| -> Result<()> {
            if check_header(&files.head(index)?, target).is_ok() {
                return Ok(());
            }
            check_header(&files.bytes(index)?, target).map_err(|refusal| refused(files.origin(index), target, refusal))
        };
        let mut usable = Vec::with_capacity(files.len());
        let mut skipped = Skipped::default();
        for start in (0..files.len()).step_by(BATCH) {
            let end = files.len().min(start + BATCH);
            let checked: Vec<_> = (start..end).into_par_iter().map(check).collect();
            for (index, result) in (start..end).zip(checked) {
                match result {
                    Ok(()) => usable.push(index),
                    Err(error) => skipped.or_refuse(error, reading)?,
                }
            }
        }
        skipped.tell(files.len());
        Ok(Self { files, usable, target, reading, invert, replaced: AtomicUsize::new(0) })
    }

    /// The first image from `index` on that can be used, and its label.
    fn find(&self, index: usize) -> Result<(Vec<u8>, Option<u32>)> {
        let mut first_error = None;
        for file in self.usable.iter().cycle().skip(index).take(TRIES) {
            match decode_one(&self.files, *file, self.target) {
                Ok(pixels) => return Ok((pixels, self.files.label(*file))),
                Err(error @ DataError::Unusable { .. }) if self.reading.damaged == Damaged::Skip => {
                    self.tell_replaced(&error);
                    first_error = first_error.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(first_error.unwrap_or_else(|| out_of_range(index, self)))
    }

    fn tell_replaced(&self, error: &DataError) {
        let count = 1 + self.replaced.fetch_add(1, Ordering::Relaxed);
        if count.is_power_of_two() {
            tracing::warn!("{count} visits to images that cannot be used, others took their place; the last: {error}");
        }
    }
}

impl<E: Encoded> Images for LazyImages<E> {
    fn len(&self) -> usize {
        self.usable.len()
    }

    fn size(&self) -> ImageSize {
        self.target.size
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<Option<u32>> {
        if index >= self.len() || pixels.len() != self.target.size.bytes() {
            return Err(out_of_range(index, self));
        }
        let (image, label) = self.find(index)?;
        let source = image.iter().map(|v| if self.invert { 255 - v } else { *v });
        pixels.iter_mut().zip(source).for_each(|(to, from)| *to = from);
        Ok(label)
    }
}
