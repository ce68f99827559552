//! idx files, the format of MNIST: a magic number, big-endian counts, bytes; plain or gzip-compressed.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::{DataError, ImageSet, ImageSize, Result};

/// Unsigned bytes in three dimensions.
const IMAGES: u32 = 0x0803;
/// Unsigned bytes in one dimension.
const LABELS: u32 = 0x0801;
/// The largest height or width that is believed.
const LARGEST_SIDE: usize = 1 << 14;

/// Read images `[N, H, W]` and, if a second file is given, their labels `[N]`.
///
/// Files may be gzip-compressed, whatever their names. Memory grows with the bytes that are there, not with the counts
/// that a header claims.
///
/// # Errors Missing files; wrong magic numbers; fewer or more bytes than the counts say; damaged gzip streams;
/// numbers of images and labels that differ.
pub fn read_idx(images: &Path, labels: Option<&Path>) -> Result<ImageSet> {
    let (size, pixels) = read_images(images)?;
    let labels = labels.map(|path| read_labels(path).map(|l| (path, l))).transpose()?;
    let items = pixels.len().checked_div(size.bytes()).unwrap_or(0);
    if let Some((path, labels)) = labels.as_ref().filter(|(_, l)| l.len() != items) {
        let message = format!("{} labels for the {items} images of {}", labels.len(), images.display());
        return Err(DataError::corrupt(path, "header", message));
    }
    ImageSet::new(size, pixels, labels.map(|(_, l)| l))
}

fn read_images(path: &Path) -> Result<(ImageSize, Vec<u8>)> {
    let mut file = open(path)?;
    let [items, height, width] = header(path, &mut file, IMAGES, "images")?;
    for (name, side) in [("height", height), ("width", width)] {
        if side == 0 || side > LARGEST_SIDE {
            return Err(DataError::corrupt(
                path,
                "header",
                format!("{name} {side} is not between 1 and {LARGEST_SIDE}"),
            ));
        }
    }
    let bytes = (height * width)
        .checked_mul(items)
        .ok_or_else(|| DataError::corrupt(path, "header", format!("{items} images are more than memory can hold")))?;
    Ok((ImageSize::grey(height, width), body(path, file, bytes)?))
}

fn read_labels(path: &Path) -> Result<Vec<u32>> {
    let mut file = open(path)?;
    let [items] = header(path, &mut file, LABELS, "labels")?;
    Ok(body(path, file, items)?.into_iter().map(u32::from).collect())
}

/// Open a file, and undo gzip if its first bytes say so.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>> {
    let mut file = File::open(path).map_err(|e| DataError::io(path, e))?;
    let mut start = [0; 2];
    let known = file.read(&mut start).map_err(|e| DataError::io(path, e))?;
    file.rewind().map_err(|e| DataError::io(path, e))?;
    let file = BufReader::new(file);
    Ok(if known == 2 && start == [0x1f, 0x8b] { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// Read the magic number and `N` counts.
fn header<const N: usize>(path: &Path, file: &mut dyn Read, magic: u32, what: &str) -> Result<[usize; N]> {
    let found = number(path, file, 0)?;
    if found != magic {
        let message = format!("magic number {found:#010x} instead of {magic:#010x}: not an idx file of {what}");
        return Err(DataError::corrupt(path, "byte 0", message));
    }
    let mut counts = [0; N];
    for (i, count) in counts.iter_mut().enumerate() {
        *count = number(path, file, 4 * (i + 1))? as usize;
    }
    Ok(counts)
}

fn number(path: &Path, file: &mut dyn Read, at: usize) -> Result<u32> {
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes).map_err(|e| read_error(path, at, e, "the header has 4 bytes here"))?;
    Ok(u32::from_be_bytes(bytes))
}

/// Read exactly `expected` bytes, and see that nothing follows.
fn body(path: &Path, file: Box<dyn Read>, expected: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let taken = file.take((expected as u64).saturating_add(1)).read_to_end(&mut bytes);
    taken.map_err(|e| read_error(path, bytes.len(), e, "data"))?;
    if bytes.len() < expected {
        let message = format!("the file is truncated: {} of {expected} bytes of data", bytes.len());
        return Err(DataError::corrupt(path, "end of file", message));
    }
    if bytes.len() > expected {
        let message = format!("more bytes follow after the {expected} that the header announces");
        return Err(DataError::corrupt(path, "end of file", message));
    }
    Ok(bytes)
}

fn read_error(path: &Path, at: usize, error: std::io::Error, expected: &str) -> DataError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            DataError::corrupt(path, format!("byte {at}"), format!("the file is truncated: {expected}"))
        }
        // What flate2 reports for streams that are damaged.
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => {
            DataError::corrupt(path, format!("byte {at} of the decompressed data"), format!("damaged gzip: {error}"))
        }
        _ => DataError::io(path, error),
    }
}
