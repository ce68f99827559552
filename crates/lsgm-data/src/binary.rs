//! Grey images as draws of black and white ones.

use candle_core::{DType, Device, Tensor};
use lsgm_core::{Batch, Dataset, Resident, Rng, Split};
use serde::{Deserialize, Serialize};

use crate::Images;
use crate::pixels::{byte_batch, image_batch};

/// How grey turns to black and white.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binarization {
    /// A pixel of grey value `g` is white with probability `g / 255`: drawn afresh at each visit of a training item,
    /// once and for all for an item of another split. Published results on "dynamically binarized" sets mean this.
    #[default]
    Dynamic,
    /// White from grey value 128 upwards.
    Static,
}

/// Binary images `[B, C, H, W]` (`f32`, 0 or 1) of one split.
///
/// Training items under [`Binarization::Dynamic`] take their draws from the generator given to
/// [`Dataset::batch`]. Items of other splits ignore it: the draw of item `i` is a function of the evaluation seed,
/// the split and `i`, so that a likelihood does not depend on batch size or order.
pub struct BinaryImages {
    images: Box<dyn Images>,
    binarization: Binarization,
    /// Where the fixed draws of an evaluation split come from.
    fixed: Option<Rng>,
}

impl BinaryImages {
    /// The binary images of `images`, which belong to `split`. `seed` fixes the draws of evaluation splits.
    pub fn new(images: Box<dyn Images>, split: Split, binarization: Binarization, seed: u64) -> Self {
        let fixed = (split != Split::Train).then(|| Rng::new(seed).fork("binarization").fork(split.name()));
        Self { images, binarization, fixed }
    }

    /// The grey images.
    pub fn images(&self) -> &dyn Images {
        self.images.as_ref()
    }

    fn binarize(&self, index: usize, grey: &[u8], rng: &mut Rng, x: &mut Vec<f32>) {
        match (self.binarization, &self.fixed) {
            (Binarization::Static, _) => x.extend(grey.iter().map(|g| f32::from(*g >> 7))),
            (Binarization::Dynamic, None) => draw(grey, rng, x),
            (Binarization::Dynamic, Some(fixed)) => draw(grey, &mut fixed.fork(&index.to_string()), x),
        }
    }
}

impl std::fmt::Debug for BinaryImages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} binary images of {} ({:?})", self.images.len(), self.images.size(), self.binarization)
    }
}

fn draw(grey: &[u8], rng: &mut Rng, x: &mut Vec<f32>) {
    let uniforms = rng.uniforms(grey.len());
    x.extend(grey.iter().zip(uniforms).map(|(g, u)| f32::from(u8::from(u * 255.0 < f32::from(*g)))));
}

impl Dataset for BinaryImages {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn resident(&self, device: &Device, limit: usize) -> lsgm_core::Result<Option<Box<dyn Dataset>>> {
        let binarization = self.binarization;
        if self.fixed.is_some() && binarization == Binarization::Dynamic {
            return Ok(None);
        }
        let finish = move |grey: Tensor, rng: &mut Rng| {
            let grey = grey.to_dtype(DType::F32)?;
            let threshold = match binarization {
                Binarization::Static => (grey.zeros_like()? + 127.5)?,
                Binarization::Dynamic => (rng.uniform_tensor(grey.shape(), DType::F32, grey.device())? * 255.0)?,
            };
            Ok(threshold.lt(&grey)?.to_dtype(DType::F32)?)
        };
        let read = |indices: &[usize]| byte_batch(self.images.as_ref(), indices);
        Resident::load(self.len(), device, limit, read, Box::new(finish))
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> lsgm_core::Result<Batch> {
        let size = self.images.size();
        let mut x = Vec::with_capacity(indices.len() * size.bytes());
        let mut labels = Vec::with_capacity(indices.len());
        let mut grey = vec![0; size.bytes()];
        for &index in indices {
            labels.extend(self.images.read(index, &mut grey)?);
            self.binarize(index, &grey, rng, &mut x);
        }
        image_batch(x, size, indices.len(), labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glyphs::Glyphs;
    use crate::pixels::assert_resident;
    use crate::{ImageSet, ImageSize};

    fn grey() -> Box<dyn Images> {
        Box::new(
            ImageSet::new(ImageSize::grey(1, 4), vec![0, 64, 128, 255, 0, 127, 192, 255], Some(vec![3, 4])).unwrap(),
        )
    }

    fn values(set: &BinaryImages, indices: &[usize], rng: &mut Rng) -> Vec<f32> {
        set.batch(indices, rng).unwrap().x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn static_binarization_is_a_threshold_at_one_half() {
        let set = BinaryImages::new(grey(), Split::Train, Binarization::Static, 0);
        let batch = set.batch(&[1, 0], &mut Rng::new(0)).unwrap();
        assert_eq!(batch.x.dims(), [2, 1, 1, 4]);
        assert_eq!(batch.x.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0., 0., 1., 1., 0., 0., 1., 1.]);
        assert_eq!(batch.labels.unwrap().to_vec1::<u32>().unwrap(), [4, 3]);
    }

    #[test]
    fn training_draws_follow_the_generator_and_have_the_right_mean() {
        let set = BinaryImages::new(grey(), Split::Train, Binarization::Dynamic, 0);
        let n = 40_000;
        let x = values(&set, &vec![0; n], &mut Rng::new(1));
        assert_eq!(x[..400], values(&set, &[0; 100], &mut Rng::new(1))[..]);
        assert_ne!(x[..400], values(&set, &[0; 100], &mut Rng::new(2))[..]);
        for (pixel, p) in [0.0, 64.0 / 255.0, 128.0 / 255.0, 1.0].into_iter().enumerate() {
            let mean = x.iter().skip(pixel).step_by(4).map(|v| f64::from(*v)).sum::<f64>() / n as f64;
            let error = (p * (1.0 - p) / n as f64).sqrt();
            assert!((mean - p).abs() <= 4.0 * error, "pixel {pixel}: {mean} {p}");
        }
    }

    #[test]
    fn evaluation_draws_depend_on_seed_split_and_index_alone() {
        let open = |split, seed| {
            BinaryImages::new(Box::new(Glyphs::new(0, Split::Test, 50)), split, Binarization::Dynamic, seed)
        };
        let set = open(Split::Test, 5);
        let mut rng = Rng::new(1);
        let all = values(&set, &(0..50).collect::<Vec<_>>(), &mut rng);
        assert_eq!(all[784 * 9..784 * 10], values(&set, &[9], &mut rng)[..]);
        assert_eq!(all[784 * 9..784 * 11], values(&set, &[9, 10], &mut Rng::new(77))[..]);
        assert_ne!(all, values(&open(Split::Test, 6), &(0..50).collect::<Vec<_>>(), &mut rng));
        assert_ne!(all, values(&open(Split::Val, 5), &(0..50).collect::<Vec<_>>(), &mut rng));
        assert!(all.iter().all(|v| *v == 0.0 || *v == 1.0));
    }

    #[test]
    fn a_set_on_a_device_has_the_same_batches() {
        for binarization in [Binarization::Dynamic, Binarization::Static] {
            assert_resident(&BinaryImages::new(grey(), Split::Train, binarization, 0));
            let glyphs = Box::new(Glyphs::new(0, Split::Train, 1100));
            assert_resident(&BinaryImages::new(glyphs, Split::Train, binarization, 0));
        }
        let fixed = BinaryImages::new(grey(), Split::Test, Binarization::Dynamic, 0);
        assert!(fixed.resident(&Device::Cpu, usize::MAX).unwrap().is_none(), "draws of its own");
    }

    #[test]
    fn a_wrong_index_is_an_error() {
        let set = BinaryImages::new(grey(), Split::Test, Binarization::Dynamic, 0);
        assert!(set.batch(&[2], &mut Rng::new(0)).is_err());
        assert_eq!(set.batch(&[], &mut Rng::new(0)).unwrap().size(), 0);
    }
}
