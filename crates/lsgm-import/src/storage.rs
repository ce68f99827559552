//! The numbers of tensors: where they lie in a file, and how they become tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use candle_core::{DType, Device, Tensor};
use zip::ZipArchive;

use crate::pickle::{StorageRef, TensorRef};

/// Types of numbers that checkpoints hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElementType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    U8,
    /// Signed bytes and truth values: read, but of no use in a model.
    Byte,
}

impl ElementType {
    pub(crate) fn of_storage_class(class: &str) -> Option<Self> {
        Some(match class {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "ShortStorage" => Self::I16,
            "ByteStorage" => Self::U8,
            "CharStorage" | "BoolStorage" => Self::Byte,
            _ => return None,
        })
    }

    pub(crate) fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::U8 | Self::Byte => 1,
        }
    }

    fn dtype(self) -> DType {
        match self {
            Self::F64 => DType::F64,
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
            Self::I64 => DType::I64,
            Self::I32 => DType::I32,
            Self::I16 => DType::I16,
            Self::U8 | Self::Byte => DType::U8,
        }
    }
}

/// The storages of one file.
pub(crate) enum Storages {
    /// Each a member of a zip archive, below this folder of it.
    Zip(Box<ZipArchive<BufReader<File>>>, String),
    /// One after another in an old file: first byte, and number of elements.
    Legacy(BufReader<File>, BTreeMap<String, (u64, u64)>),
}

impl Storages {
    /// A tensor of the file, in `f32` if it holds fractions.
    ///
    /// # Errors
    /// A storage that is missing or of another size than announced; a tensor that leaves its storage.
    pub(crate) fn tensor(&mut self, tensor: &TensorRef) -> Result<Tensor, String> {
        let class = &tensor.storage.class;
        let kind = tensor.storage.element_type().ok_or_else(|| format!("numbers of type `{class}` cannot be read"))?;
        let places = Places::of(tensor)?;
        let bytes = self.bytes(&tensor.storage, kind)?;
        let chosen = places.choose(&bytes, kind.size())?;
        let shape: Vec<usize> = places.shape.clone();
        let tensor = Tensor::from_raw_buffer(&chosen, kind.dtype(), &shape, &Device::Cpu).map_err(|e| e.to_string())?;
        let tensor = if tensor.dtype().is_float() { tensor.to_dtype(DType::F32) } else { Ok(tensor) };
        tensor.map_err(|e| e.to_string())
    }

    fn bytes(&mut self, storage: &StorageRef, kind: ElementType) -> Result<Vec<u8>, String> {
        let StorageRef { key, elements, .. } = storage;
        let expected = elements.checked_mul(kind.size() as u64).ok_or("a storage of impossible size is announced")?;
        let wrong = |found: u64| format!("storage `{key}` has {found} bytes instead of {expected}");
        let mut bytes = Vec::new();
        match self {
            Self::Zip(archive, folder) => {
                let name = format!("{folder}data/{key}");
                let member = archive.by_name(&name).map_err(|e| format!("`{name}` of the archive: {e}"))?;
                if member.size() != expected {
                    return Err(wrong(member.size()));
                }
                member.take(expected).read_to_end(&mut bytes).map_err(|e| format!("`{name}` of the archive: {e}"))?;
            }
            Self::Legacy(file, places) => {
                let (start, found) = *places.get(key).ok_or_else(|| format!("storage `{key}` is missing"))?;
                if found != *elements {
                    return Err(format!("storage `{key}` has {found} numbers instead of {elements}"));
                }
                file.seek(SeekFrom::Start(start)).map_err(|e| e.to_string())?;
                file.take(expected).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
            }
        }
        if bytes.len() as u64 == expected { Ok(bytes) } else { Err(wrong(bytes.len() as u64)) }
    }
}

/// Which elements of a storage make up a tensor.
struct Places {
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Places {
    /// # Errors
    /// When they leave the storage, or are more than the storage has: no tensor of a state dict repeats elements.
    fn of(tensor: &TensorRef) -> Result<Self, String> {
        let elements = tensor.storage.elements;
        let count = tensor.shape.iter().try_fold(1u64, |n, size| n.checked_mul(*size));
        let last =
            tensor.shape.iter().zip(&tensor.strides).try_fold(tensor.offset, |at, (size, stride)| {
                at.checked_add(size.saturating_sub(1).checked_mul(*stride)?)
            });
        let fits = match (count, last) {
            (Some(0), _) => true,
            (Some(count), Some(last)) => count <= elements && last < elements,
            _ => false,
        };
        let small = |numbers: &[u64]| numbers.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<Vec<_>>>();
        match (fits, usize::try_from(tensor.offset), small(&tensor.shape), small(&tensor.strides)) {
            (true, Ok(offset), Some(shape), Some(strides)) => Ok(Self { offset, shape, strides }),
            _ => Err(format!(
                "shape {:?} from element {} on does not fit its storage of {elements} numbers",
                tensor.shape, tensor.offset
            )),
        }
    }

    /// The bytes of the elements, the last dimension running fastest.
    fn choose(&self, bytes: &[u8], size: usize) -> Result<Vec<u8>, String> {
        let count: usize = self.shape.iter().product();
        let run = self.contiguous();
        let mut chosen = Vec::with_capacity(count * size);
        let mut index = vec![0; self.shape.len() - run.dimensions];
        for _ in 0..count.checked_div(run.length).unwrap_or(0) {
            let at: usize = self.offset + index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum::<usize>();
            let part = bytes.get(at * size..(at + run.length) * size).ok_or("a tensor leaves its storage")?;
            chosen.extend_from_slice(part);
            for (i, length) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < *length {
                    break;
                }
                *i = 0;
            }
        }
        Ok(chosen)
    }

    /// How many of the last dimensions lie one element after another, and how many elements that makes.
    fn contiguous(&self) -> Run {
        let mut run = Run { dimensions: 0, length: 1 };
        for (length, stride) in self.shape.iter().zip(&self.strides).rev() {
            if *length != 1 && *stride != run.length {
                break;
            }
            run.length *= length;
            run.dimensions += 1;
        }
        run
    }
}

struct Run {
    dimensions: usize,
    length: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(offset: u64, shape: &[u64], strides: &[u64], elements: u64) -> Result<Places, String> {
        let storage = StorageRef { key: "0".into(), class: "ByteStorage".into(), elements };
        Places::of(&TensorRef { storage, offset, shape: shape.to_vec(), strides: strides.to_vec() })
    }

    #[test]
    fn elements_are_chosen_by_strides() {
        let bytes: Vec<u8> = (0..24).collect();
        let chosen = |offset, shape: &[u64], strides: &[u64]| {
            places(offset, shape, strides, 24).unwrap().choose(&bytes, 1).unwrap()
        };
        assert_eq!(chosen(0, &[2, 3, 4], &[12, 4, 1]), bytes);
        assert_eq!(chosen(2, &[3], &[1]), [2, 3, 4]);
        assert_eq!(chosen(0, &[2, 3], &[1, 2]), [0, 2, 4, 1, 3, 5]);
        assert_eq!(chosen(1, &[2, 1, 2], &[8, 99, 1]), [1, 2, 9, 10]);
        assert_eq!(chosen(7, &[], &[]), [7]);
        assert_eq!(chosen(0, &[0, 3], &[3, 1]), [0u8; 0]);
        // Two bytes an element.
        assert_eq!(places(1, &[2], &[2], 12).unwrap().choose(&bytes, 2).unwrap(), [2, 3, 6, 7]);
    }

    #[test]
    fn nothing_leaves_its_storage() {
        for (offset, shape, strides) in [
            (0, &[25][..], &[1][..]),
            (20, &[5], &[1]),
            (0, &[2], &[24]),
            (0, &[1 << 40, 1 << 40], &[0, 0]),
            (0, &[u64::MAX, 2], &[1, 1]),
            (u64::MAX, &[2], &[1]),
            (0, &[2], &[u64::MAX]),
            // Repetition asks for more than there is.
            (0, &[1000], &[0]),
        ] {
            let error = places(offset, shape, strides, 24).err().unwrap();
            assert!(error.contains("24 numbers"), "{error}");
        }
    }
}
