//! Grey and colour images as numbers.

use candle_core::{DType, Device, Tensor, WithDType};
use lsgm_core::{Batch, Dataset, Resident, Rng, Split, upload};
use rayon::prelude::*;

use crate::{DataError, ImageSize, Images, Result};

/// Images `[B, C, H, W]` (`f32`) of one split, whose pixels take `2^bits` values: `k / (2^bits - 1)` for
/// `k = 0, 1, ..., 2^bits - 1`, so that black is 0 and white is 1. Channels are red, green, blue, or grey alone.
///
/// With 8 bits `k` is the stored byte; with fewer, the byte without its lowest bits (`k = byte >> (8 - bits)`), as in
/// published likelihoods at 5 bits. A likelihood gets `k` back as `round(x * (2^bits - 1))`.
///
/// Training items are mirrored with probability 1/2 where that is asked for, by the generator given to
/// [`Dataset::batch`]; items of other splits never are.
pub struct PixelImages {
    images: Box<dyn Images>,
    bits: u8,
    flip: bool,
    /// The number that each byte turns to.
    values: Vec<f32>,
}

impl PixelImages {
    /// The images of a split with pixels of `bits` bits, 1 to 8. `flip` mirrors half of the visits to training items.
    ///
    /// # Errors
    /// [`DataError::Contract`] for another number of bits.
    pub fn new(images: Box<dyn Images>, split: Split, bits: u8, flip: bool) -> Result<Self> {
        if !(1..=8).contains(&bits) {
            return Err(DataError::Contract(format!("pixels of {bits} bits: 1 to 8 are possible")));
        }
        let highest = u8::MAX >> (8 - bits);
        let values = (0..=u8::MAX).map(|byte| f32::from(byte >> (8 - bits)) / f32::from(highest)).collect();
        Ok(Self { images, bits, flip: flip && split == Split::Train, values })
    }

    /// The images as bytes.
    pub fn images(&self) -> &dyn Images {
        self.images.as_ref()
    }

    fn item(&self, index: usize, mirrored: bool, x: &mut [f32]) -> Result<Option<u32>> {
        let size = self.images.size();
        let mut bytes = vec![0; size.bytes()];
        let label = self.images.read(index, &mut bytes)?;
        if mirrored {
            bytes.chunks_exact_mut(size.width.max(1)).for_each(<[u8]>::reverse);
        }
        // A byte always has its value: there are 256 of both.
        x.iter_mut().zip(&bytes).for_each(|(x, byte)| *x = self.values.get(usize::from(*byte)).copied().unwrap_or(0.0));
        Ok(label)
    }
}

impl std::fmt::Debug for PixelImages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} images of {} at {} bits", self.images.len(), self.images.size(), self.bits)
    }
}

impl Dataset for PixelImages {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn resident(&self, device: &Device, limit: usize) -> lsgm_core::Result<Option<Box<dyn Dataset>>> {
        let (flip, values) = (self.flip, Tensor::new(self.values.as_slice(), device)?);
        let finish = move |bytes: Tensor, rng: &mut Rng| {
            // As an index of one byte 255 would mean none.
            let places = bytes.flatten_all()?.to_dtype(DType::U32)?;
            let x = values.index_select(&places, 0)?.reshape(bytes.shape())?;
            if !flip {
                return Ok(x);
            }
            let draws = rng.uniforms(x.dim(0)?);
            let mirrored: Vec<u8> = draws.into_iter().map(|u| u8::from(u < 0.5)).collect();
            let mirrored = upload(&Tensor::from_vec(mirrored, (x.dim(0)?, 1, 1, 1), &Device::Cpu)?, x.device())?;
            Ok(mirrored.broadcast_as(x.shape())?.where_cond(&x.flip(&[3])?, &x)?)
        };
        let read = |indices: &[usize]| byte_batch(self.images.as_ref(), indices);
        Resident::load(self.len(), device, limit, read, Box::new(finish))
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> lsgm_core::Result<Batch> {
        let size = self.images.size();
        let mut x = vec![0.0; indices.len() * size.bytes()];
        let mirrored = if self.flip { rng.uniforms(indices.len()) } else { vec![1.0; indices.len()] };
        let items = x.par_chunks_exact_mut(size.bytes().max(1)).zip(indices).zip(mirrored);
        let read = items.map(|((x, index), draw)| self.item(*index, draw < 0.5, x));
        let labels: Vec<u32> = read.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        image_batch(x, size, indices.len(), labels)
    }
}

/// Images as their bytes, `[n, C, H, W]`.
pub(crate) fn byte_batch(images: &dyn Images, indices: &[usize]) -> lsgm_core::Result<Batch> {
    let size = images.size();
    let mut x = vec![0; indices.len() * size.bytes()];
    let pixels = x.par_chunks_exact_mut(size.bytes().max(1)).zip(indices);
    let labels = pixels.map(|(pixels, index)| images.read(*index, pixels)).collect::<Result<Vec<_>>>()?;
    image_batch(x, size, indices.len(), labels.into_iter().flatten().collect())
}

/// A batch `[n, C, H, W]` of values one image after another, with a label for each image or for none.
pub(crate) fn image_batch<T: WithDType>(
    x: Vec<T>,
    size: ImageSize,
    n: usize,
    labels: Vec<u32>,
) -> lsgm_core::Result<Batch> {
    if !labels.is_empty() && labels.len() != n {
        return Err(DataError::Contract("some images have labels and some have none".into()).into());
    }
    let x = Tensor::from_vec(x, (n, size.channels, size.height, size.width), &Device::Cpu)?;
    let labels = if labels.is_empty() { None } else { Some(Tensor::new(labels, &Device::Cpu)?) };
    Ok(Batch { x, labels })
}

/// That a set in the memory of a device has the batches of the set itself, and goes on drawing where that does.
#[cfg(test)]
pub(crate) fn assert_resident(set: &dyn Dataset) {
    let resident = set.resident(&Device::Cpu, usize::MAX).unwrap().expect("it fits");
    assert_eq!(resident.len(), set.len());
    let indices: Vec<usize> = (0..set.len()).rev().chain([0, 0]).collect();
    let (mut a, mut b) = (Rng::new(3), Rng::new(3));
    for indices in [&indices[..], &indices[1..]] {
        let (x, y) = (set.batch(indices, &mut a).unwrap(), resident.batch(indices, &mut b).unwrap());
        let labels = |batch: &Batch| batch.labels.as_ref().map(|l| l.to_vec1::<u32>().unwrap());
        assert_eq!(x.x.dims(), y.x.dims());
        assert_eq!(x.x.dtype(), y.x.dtype());
        let values = |batch: &Batch| batch.x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(values(&x) == values(&y));
        assert_eq!(labels(&x), labels(&y));
    }
    assert_eq!(a.bits(), b.bits());
    assert!(set.resident(&Device::Cpu, 1).unwrap().is_none());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageSet;
    use crate::glyphs::Glyphs;

    fn set(split: Split, bits: u8, flip: bool) -> PixelImages {
        let size = ImageSize { channels: 3, height: 1, width: 2 };
        let pixels = vec![0, 7, 8, 15, 128, 255, 9, 9, 9, 9, 9, 9];
        PixelImages::new(Box::new(ImageSet::new(size, pixels, Some(vec![4, 5])).unwrap()), split, bits, flip).unwrap()
    }

    fn values(batch: &Batch) -> Vec<f32> {
        batch.x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn pixels_are_whole_multiples_of_the_step() {
        let batch = set(Split::Test, 8, true).batch(&[1, 0], &mut Rng::new(0)).unwrap();
        assert_eq!(batch.x.dims(), [2, 3, 1, 2]);
        assert_eq!(values(&batch)[6..], [0., 7., 8., 15., 128., 255.].map(|k: f32| k / 255.0));
        assert_eq!(batch.labels.unwrap().to_vec1::<u32>().unwrap(), [5, 4]);
        let batch = set(Split::Test, 5, true).batch(&[0], &mut Rng::new(0)).unwrap();
        assert_eq!(values(&batch), [0., 0., 1., 1., 16., 31.].map(|k: f32| k / 31.0));
        assert!(PixelImages::new(Box::new(Glyphs::new(0, Split::Test, 1)), Split::Test, 9, false).is_err());
    }

    #[test]
    fn a_set_on_a_device_has_the_same_batches() {
        for (bits, flip) in [(8, true), (5, true), (8, false)] {
            assert_resident(&set(Split::Train, bits, flip));
        }
        let glyphs = PixelImages::new(Box::new(Glyphs::new(0, Split::Train, 1500)), Split::Train, 8, true).unwrap();
        assert_resident(&glyphs);
    }

    #[test]
    fn training_items_alone_are_mirrored_half_of_the_time() {
        let train = set(Split::Train, 8, true);
        let x = values(&train.batch(&[0; 4000], &mut Rng::new(1)).unwrap());
        let mirrored = x.chunks(6).filter(|image| image[0] > image[1]).count();
        assert!(mirrored.abs_diff(2000) < 127, "{mirrored}");
        assert!(x.chunks(6).all(|i| (i[0] > i[1]) == (i[2] > i[3]) && (i[2] > i[3]) == (i[4] > i[5])));
        assert_eq!(x, values(&train.batch(&[0; 4000], &mut Rng::new(1)).unwrap()));
        for plain in [set(Split::Val, 8, true), set(Split::Train, 8, false)] {
            let x = values(&plain.batch(&[0; 100], &mut Rng::new(1)).unwrap());
            assert!(x.chunks(6).all(|image| image[0] < image[1]));
        }
        assert!(train.batch(&[2], &mut Rng::new(1)).is_err());
        assert_eq!(train.batch(&[], &mut Rng::new(1)).unwrap().size(), 0);
    }
}
