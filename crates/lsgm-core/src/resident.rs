//! Data sets in the memory of the device that trains on them.

use candle_core::{Device, Tensor};

use crate::{Batch, Dataset, Result, Rng, upload};

/// Items that are read at a time.
const STRETCH: usize = 1024;

/// What is left to do when items are visited, such as a draw.
pub type Finish = Box<dyn Fn(Tensor, &mut Rng) -> Result<Tensor> + Send + Sync>;

/// Items that live on a device, where their batches are put together too.
pub struct Resident {
    x: Tensor,
    labels: Option<Tensor>,
    finish: Finish,
}

impl Resident {
    /// `items` items on `device`, as `read` gives those of some indices, with what is left to do at each visit. `None` if they
    /// take more than half of `limit` bytes, as they are there twice while they are put together, or more than 2³² elements.
    ///
    /// # Errors
    /// Those of `read`; a failed tensor operation.
    pub fn load(
        items: usize,
        device: &Device,
        limit: usize,
        read: impl Fn(&[usize]) -> Result<Batch>,
        finish: Finish,
    ) -> Result<Option<Box<dyn Dataset>>> {
        let mut stretches: Vec<Batch> = Vec::new();
        for start in (0..items).step_by(STRETCH) {
            let indices: Vec<usize> = (start..items.min(start + STRETCH)).collect();
            let stretch = read(&indices)?;
            let elements = stretch.x.elem_count() / indices.len() * items;
            // The stretches and what is made of them are there at one time; a GPU counts elements by 32 bits.
            if 2 * elements * stretch.x.dtype().size_in_bytes() > limit || u32::try_from(elements).is_err() {
                return Ok(None);
            }
            let labels = stretch.labels.map(|labels| labels.to_device(device)).transpose()?;
            stretches.push(Batch { x: stretch.x.to_device(device)?, labels });
        }
        let x: Vec<&Tensor> = stretches.iter().map(|s| &s.x).collect();
        let labels: Option<Vec<&Tensor>> = stretches.iter().map(|s| s.labels.as_ref()).collect();
        let labels = labels.filter(|l| !l.is_empty()).map(|l| Tensor::cat(&l, 0)).transpose()?;
        if x.is_empty() {
            return Ok(None);
        }
        Ok(Some(Box::new(Self { x: Tensor::cat(&x, 0)?, labels, finish })))
    }
}

impl std::fmt::Debug for Resident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} items on {:?}", self.len(), self.x.device().location())
    }
}

impl Dataset for Resident {
    fn len(&self) -> usize {
        self.x.dims().first().copied().unwrap_or(0)
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Batch> {
        let rows: Vec<u32> = indices.iter().map(|i| u32::try_from(*i).unwrap_or(u32::MAX)).collect();
        let rows = upload(&Tensor::new(rows, &Device::Cpu)?, self.x.device())?;
        let labels = self.labels.as_ref().map(|l| l.index_select(&rows, 0)).transpose()?;
        Ok(Batch { x: (self.finish)(self.x.index_select(&rows, 0)?, rng)?, labels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    /// Items are their numbers; a visit adds a draw.
    fn set(items: usize, limit: usize) -> Option<Box<dyn Dataset>> {
        let read = |indices: &[usize]| {
            let x: Vec<f32> = indices.iter().map(|i| *i as f32).collect();
            let labels: Vec<u32> = indices.iter().map(|i| *i as u32 % 10).collect();
            Ok(Batch {
                x: Tensor::new(x, &Device::Cpu)?.unsqueeze(1)?,
                labels: Some(Tensor::new(labels, &Device::Cpu)?),
            })
        };
        let finish = |x: Tensor, rng: &mut Rng| Ok((&x + rng.uniform_tensor(x.shape(), DType::F32, x.device())?)?);
        Resident::load(items, &Device::Cpu, limit, read, Box::new(finish)).unwrap()
    }

    #[test]
    fn batches_are_put_together_from_all_stretches_and_finished() {
        let set = set(2500, 20_000).unwrap();
        assert_eq!(set.len(), 2500);
        let batch = set.batch(&[2499, 0, 1024], &mut Rng::new(1)).unwrap();
        let draws = Rng::new(1).uniforms(3);
        let expected: Vec<[f32; 1]> = [2499.0, 0.0, 1024.0].iter().zip(draws).map(|(i, u)| [i + u]).collect();
        assert_eq!(batch.x.to_vec2::<f32>().unwrap(), expected);
        assert_eq!(batch.labels.unwrap().to_vec1::<u32>().unwrap(), [9, 0, 4]);
        assert!(set.batch(&[2500], &mut Rng::new(1)).is_err());
    }

    #[test]
    fn what_does_not_fit_stays_where_it_is() {
        assert!(set(2500, 19_999).is_none());
        assert!(set(0, 1000).is_none());
    }
}
