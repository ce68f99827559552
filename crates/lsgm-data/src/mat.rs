//! MATLAB files of version 5 (`-v6`, `-v7`), as far as matrices of real numbers go: the form in which the 28x28
//! version of OMNIGLOT is handed around.
//!
//! Format: "MAT-File Format", The MathWorks, chapter 1, "Level 5 MAT-file format".

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::ZlibDecoder;

use crate::{DataError, ImageSet, ImageSize, Result};

const HEADER: usize = 128;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
/// Bytes that are converted at once.
const CHUNK: usize = 1 << 16;

/// Read the columns of matrix `variable` as images of this size. Pixels run down the columns of an image, as MATLAB
/// stores them, and are shares from 0 to 1 or bytes from 0 to 255.
///
/// # Errors
/// A missing file, another format, a damaged one; no such variable; columns of another length; values out of range.
pub(crate) fn read_mat(path: &Path, variable: &str, size: ImageSize) -> Result<ImageSet> {
    let (rows, values) = Mat::open(path)?.matrix(variable)?;
    if rows != size.bytes() {
        let message = format!("columns of {rows} values instead of {} for images of {size}", size.bytes());
        return Err(DataError::corrupt(path, format!("variable `{variable}`"), message));
    }
    let largest = values.iter().copied().fold(0.0, f32::max);
    let scale = if largest <= 1.0 { 255.0 } else { 1.0 };
    if let Some(bad) = values.iter().find(|v| !(0.0..=255.0).contains(*v)) {
        let message = format!("{bad} is not a pixel: values lie between 0 and 1, or between 0 and 255");
        return Err(DataError::corrupt(path, format!("variable `{variable}`"), message));
    }
    let mut pixels = Vec::with_capacity(values.len());
    for image in values.chunks_exact(rows.max(1)) {
        let (height, columns) = (size.height, image.chunks_exact(size.height.max(1)));
        pixels.extend(
            (0..height).flat_map(|y| columns.clone().filter_map(move |c| c.get(y))).map(|v| (v * scale).round() as u8),
        );
    }
    ImageSet::new(size, pixels, None)
}

struct Mat<'a> {
    path: &'a Path,
    file: BufReader<File>,
}

impl<'a> Mat<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let mut file = BufReader::new(File::open(path).map_err(|e| DataError::io(path, e))?);
        let mut header = [0; HEADER];
        file.read_exact(&mut header)
            .map_err(|_| DataError::corrupt(path, "header", "not a MATLAB file: it is too short"))?;
        if !header.ends_with(&[0x00, 0x01, b'I', b'M']) {
            let message = "not a little-endian MATLAB file of version 5: save it with `-v7`";
            return Err(DataError::corrupt(path, "header", message));
        }
        Ok(Self { path, file })
    }

    /// Number of rows, and all values column by column.
    fn matrix(mut self, wanted: &str) -> Result<(usize, Vec<f32>)> {
        let path = self.path;
        let damaged = |e: std::io::Error| DataError::corrupt(path, "element", format!("truncated or damaged: {e}"));
        let mut names = Vec::new();
        while let Some((kind, bytes)) = tag_or_end(&mut self.file).map_err(damaged)? {
            let mut element = (&mut self.file).take(bytes);
            let found = match kind {
                MATRIX => named(&mut element, wanted, &mut names),
                COMPRESSED => {
                    let mut inner = ZlibDecoder::new(&mut element);
                    match tag(&mut inner).map_err(damaged)? {
                        (MATRIX, Field::Long(bytes)) => named(&mut inner.take(bytes), wanted, &mut names),
                        _ => Ok(None),
                    }
                }
                _ => Ok(None),
            };
            if let Some(matrix) = found.map_err(damaged)? {
                return Ok(matrix);
            }
            std::io::copy(&mut element, &mut std::io::sink()).map_err(damaged)?;
        }
        let message = format!("no variable `{wanted}` in this file, which has: {}", names.join(", "));
        Err(DataError::Card { origin: path.display().to_string(), message })
    }
}

/// The data of an element: so many bytes that follow, or up to four within the tag itself.
enum Field {
    Long(u64),
    Short([u8; 4], usize),
}

fn tag(source: &mut impl Read) -> std::io::Result<(u32, Field)> {
    let (mut kind, mut rest) = ([0; 4], [0; 4]);
    source.read_exact(&mut kind)?;
    source.read_exact(&mut rest)?;
    let kind = u32::from_le_bytes(kind);
    Ok(match kind >> 16 {
        0 => (kind, Field::Long(u32::from_le_bytes(rest).into())),
        n => (kind & 0xffff, Field::Short(rest, (n as usize).min(4))),
    })
}

/// The tag of an element of the file itself, unless the file ends here.
fn tag_or_end(source: &mut impl Read) -> std::io::Result<Option<(u32, u64)>> {
    let mut first = [0];
    if source.read(&mut first)? == 0 {
        return Ok(None);
    }
    match tag(&mut first.chain(source))? {
        (kind, Field::Long(bytes)) => Ok(Some((kind, bytes))),
        (kind, Field::Short(..)) => Ok(Some((kind, 0))),
    }
}

/// The matrix, if it is the wanted one. Its name is kept either way.
fn named(source: &mut impl Read, wanted: &str, names: &mut Vec<String>) -> std::io::Result<Option<(usize, Vec<f32>)>> {
    let invalid = |message: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, message);
    let flags = small(source)?;
    let complex = flags.get(1).is_some_and(|f| f & 0x08 != 0);
    let sides: Vec<usize> = small(source)?.chunks_exact(4).map(|c| le(c) as u32 as usize).collect();
    let name = String::from_utf8_lossy(&small(source)?).into_owned();
    names.push(name.clone());
    if name != wanted {
        return Ok(None);
    }
    let [rows, columns] = sides[..] else { return Err(invalid("the variable is not a matrix of two dimensions")) };
    if complex {
        return Err(invalid("the variable is not a matrix of real numbers"));
    }
    let (kind, field) = tag(source)?;
    let values = match field {
        Field::Long(bytes) => numbers(kind, &mut source.take(bytes)),
        Field::Short(bytes, n) => numbers(kind, &mut bytes.get(..n).unwrap_or_default()),
    }?;
    if Some(values.len()) != rows.checked_mul(columns) {
        return Err(invalid(&format!("{} values instead of {rows} x {columns}", values.len())));
    }
    Ok(Some((rows, values)))
}

/// The bytes of a small element of a matrix, with its padding to eight bytes consumed.
fn small(source: &mut impl Read) -> std::io::Result<Vec<u8>> {
    match tag(source)?.1 {
        Field::Short(bytes, n) => Ok(bytes.get(..n).unwrap_or_default().to_vec()),
        Field::Long(n) => {
            let mut bytes = Vec::new();
            source.take(n.next_multiple_of(8).min(1 << 12)).read_to_end(&mut bytes)?;
            bytes.truncate(n as usize);
            Ok(bytes)
        }
    }
}

/// Numbers of one of the format's types.
fn numbers(kind: u32, source: &mut impl Read) -> std::io::Result<Vec<f32>> {
    let (bytes, convert): (usize, fn(&[u8]) -> f32) = match kind {
        1 => (1, |c| le(c) as i8 as f32),
        2 => (1, |c| le(c) as f32),
        3 => (2, |c| le(c) as i16 as f32),
        4 => (2, |c| le(c) as f32),
        5 => (4, |c| le(c) as i32 as f32),
        6 => (4, |c| le(c) as f32),
        7 => (4, |c| f32::from_bits(le(c) as u32)),
        9 => (8, |c| f64::from_bits(le(c)) as f32),
        12 => (8, |c| le(c) as i64 as f32),
        13 => (8, |c| le(c) as f32),
        _ => {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("numbers of unknown type {kind}"),
            ));
        }
    };
    let mut values = Vec::new();
    let mut chunk = Vec::with_capacity(CHUNK);
    loop {
        chunk.clear();
        if source.take(CHUNK as u64).read_to_end(&mut chunk)? == 0 {
            return Ok(values);
        }
        values.extend(chunk.chunks_exact(bytes).map(convert));
    }
}

/// Up to eight little-endian bytes.
fn le(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Images;
    use flate2::{Compression, write::ZlibEncoder};
    use std::io::Write;

    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn matrix(name: &str, rows: i32, columns: i32, kind: u32, data: &[u8]) -> Vec<u8> {
        let flags = element(6, &[6, 0, 0, 0, 0, 0, 0, 0]);
        let sides = element(5, &[rows.to_le_bytes(), columns.to_le_bytes()].concat());
        // A name of up to four letters lies within its tag.
        let mut short = [1, 0, name.len() as u8, 0].to_vec();
        short.extend(name.bytes());
        short.resize(8, 0);
        let name = if name.len() <= 4 { short } else { element(1, name.as_bytes()) };
        element(MATRIX, &[flags, sides, name, element(kind, data)].concat())
    }

    fn compressed(element: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(element).unwrap();
        let data = encoder.finish().unwrap();
        [&COMPRESSED.to_le_bytes(), &(data.len() as u32).to_le_bytes(), &data[..]].concat()
    }

    fn file(elements: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![b' '; 124];
        bytes.extend([0x00, 0x01, b'I', b'M']);
        bytes.extend(elements.concat());
        bytes
    }

    fn doubles(values: &[f64]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn sample() -> Vec<u8> {
        let shares: Vec<f64> = (0..12).map(|v| f64::from(v) / 15.0).collect();
        file(&[
            compressed(&matrix("targetchar", 1, 2, 9, &doubles(&[1.0, 2.0]))),
            compressed(&matrix("data", 6, 2, 9, &doubles(&shares))),
            matrix("testdata", 6, 1, 2, &[0, 1, 2, 3, 4, 255]),
        ])
    }

    fn read(bytes: &[u8], variable: &str, size: ImageSize) -> Result<ImageSet> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chardata.mat");
        std::fs::write(&path, bytes).unwrap();
        read_mat(&path, variable, size)
    }

    #[test]
    fn columns_become_images_with_pixels_from_top_to_bottom() {
        let size = ImageSize::grey(3, 2);
        let data = read(&sample(), "data", size).unwrap();
        assert_eq!(data.image(0).unwrap(), [0, 3, 1, 4, 2, 5].map(|v| 17 * v));
        assert_eq!(data.image(1).unwrap(), [6, 9, 7, 10, 8, 11].map(|v| 17 * v));
        assert_eq!(read(&sample(), "testdata", size).unwrap().pixels(), [0, 3, 1, 4, 2, 255]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let size = ImageSize::grey(3, 2);
        for (bytes, variable, size, words) in [
            (sample(), "train", size, "which has: targetchar, data, testdata"),
            (sample(), "data", ImageSize::grey(28, 28), "columns of 6 values instead of 784"),
            (sample()[..350].to_vec(), "testdata", size, "truncated or damaged"),
            (b"MATLAB 7.3".to_vec(), "data", size, "too short"),
            (vec![0; 200], "data", size, "-v7"),
            (
                file(&[matrix("data", 6, 1, 9, &doubles(&[0.0, -1.0, 0.0, 0.0, 0.0, 0.0]))]),
                "data",
                size,
                "-1 is not a pixel",
            ),
            (file(&[matrix("data", 6, 1, 9, &doubles(&[f64::NAN; 6]))]), "data", size, "NaN is not a pixel"),
            (file(&[matrix("data", 6, 2, 9, &doubles(&[0.0; 6]))]), "data", size, "6 values instead of 6 x 2"),
            (file(&[matrix("data", 6, 1, 18, &[0; 6])]), "data", size, "unknown type 18"),
        ] {
            let error = read(&bytes, variable, size).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("chardata.mat"), "`{error}` lacks `{words}`");
        }
    }

    #[test]
    fn damaged_files_never_panic() {
        let whole = sample();
        let mut rng = lsgm_core::Rng::new(1);
        for _ in 0..3000 {
            let mut bytes = whole.clone();
            let at = rng.below(bytes.len());
            bytes[at] = rng.bits() as u8;
            bytes.truncate(bytes.len() - rng.below(2) * rng.below(bytes.len()));
            if let Ok(set) = read(&bytes, "data", ImageSize::grey(3, 2)) {
                assert!(set.len() < 1000);
            }
        }
    }
}
