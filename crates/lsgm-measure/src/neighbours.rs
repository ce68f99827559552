use candle_core::{DType, Tensor};
use lsgm_core::{Error, Result};
use rayon::prelude::*;

/// Rows whose distances are computed together.
const BLOCK: usize = 256;

/// How two sets of feature vectors overlap, judged by neighbourhoods. All lie in [0, 1], but density, which has no upper
/// bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Overlap {
    /// Share of samples inside a neighbourhood of the reference (Kynkäänniemi et al. 2019).
    pub precision: f64,
    /// Share of the reference inside a neighbourhood of the samples (Kynkäänniemi et al. 2019).
    pub recall: f64,
    /// Number of reference neighbourhoods that a sample lies in, over their `k` (Naeem et al. 2020); expected to be 1
    /// where both are drawn from one distribution.
    pub density: f64,
    /// Share of reference neighbourhoods with a sample inside (Naeem et al. 2020).
    pub coverage: f64,
}

/// Feature vectors, each with the ball around it that reaches to its `k`-th nearest neighbour.
#[derive(Debug, Clone)]
pub(crate) struct Neighbourhoods {
    points: Tensor,
    norms: Vec<f64>,
    /// Squared radii.
    radii: Vec<f64>,
    k: usize,
}

impl Neighbourhoods {
    /// The neighbourhoods of features `[N, D]`.
    ///
    /// # Errors
    /// `k` of 0, or not more than `k` vectors.
    pub(crate) fn new(features: &Tensor, k: usize) -> Result<Self> {
        let (n, _) = features.dims2()?;
        if k == 0 || n <= k {
            let message = format!("{n} items have no {k} nearest neighbours each: measure more");
            return Err(Error::contract("features", message));
        }
        let points = features.to_dtype(DType::F64)?.contiguous()?;
        let norms = points.sqr()?.sum(1)?.to_vec1()?;
        let mut found = Self { points, norms, radii: Vec::new(), k };
        // The nearest is the point itself.
        let kth = |row: &[f64]| {
            let mut row = row.to_vec();
            *row.select_nth_unstable_by(k, f64::total_cmp).1
        };
        found.radii = found.each_row(&found, kth)?;
        Ok(found)
    }

    /// How `samples` overlap with these, the reference.
    ///
    /// # Errors
    /// Vectors of another length.
    pub(crate) fn overlap(&self, samples: &Self) -> Result<Overlap> {
        // A ball holds what lies on its surface.
        let inside = |radii: &[f64], row: &[f64]| row.iter().zip(radii).filter(|(d, r)| d <= r).count() as f64;
        let balls = self.each_row(samples, |row| inside(&self.radii, row))?;
        let recalled = samples.each_row(self, |row| inside(&samples.radii, row))?;
        let nearest = samples.each_row(self, |row| row.iter().copied().fold(f64::INFINITY, f64::min))?;
        let share = |hits: usize, of: usize| hits as f64 / of as f64;
        Ok(Overlap {
            precision: share(balls.iter().filter(|n| **n > 0.0).count(), balls.len()),
            recall: share(recalled.iter().filter(|n| **n > 0.0).count(), recalled.len()),
            density: balls.iter().sum::<f64>() / (self.k * balls.len()) as f64,
            coverage: share(nearest.iter().zip(&self.radii).filter(|(d, r)| d <= r).count(), nearest.len()),
        })
    }

    /// A function of the squared distances of each point of `others` to all points of this set, one value for each of
    /// `others`.
    fn each_row(&self, others: &Self, value: impl Fn(&[f64]) -> f64 + Sync) -> Result<Vec<f64>> {
        let transposed = self.points.t()?.contiguous()?;
        let mut found = Vec::with_capacity(others.norms.len());
        for start in (0..others.norms.len()).step_by(BLOCK) {
            let rows = BLOCK.min(others.norms.len() - start);
            let products = others.points.narrow(0, start, rows)?.matmul(&transposed)?.to_vec2::<f64>()?;
            let block: Vec<f64> = products
                .into_par_iter()
                .zip(others.norms[start..start + rows].par_iter())
                .map(|(mut row, norm)| {
                    row.iter_mut().zip(&self.norms).for_each(|(x, other)| *x = (norm + other - 2.0 * *x).max(0.0));
                    value(&row)
                })
                .collect();
            found.extend(block);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use lsgm_core::Rng;

    fn line(values: &[f32], k: usize) -> Neighbourhoods {
        Neighbourhoods::new(&Tensor::new(values, &Device::Cpu).unwrap().unsqueeze(1).unwrap(), k).unwrap()
    }

    #[test]
    fn a_hand_made_case() {
        // Reference balls of radius 1, 1, 2, 6 around 0, 1, 3, 9; sample balls of radius 1, 1, 19 around 0.5, 1.5, 20.5.
        let reference = line(&[0.0, 1.0, 3.0, 9.0], 1);
        let samples = line(&[0.5, 1.5, 20.5], 1);
        let found = reference.overlap(&samples).unwrap();
        // 0.5 lies in the balls around 0 and 1, 1.5 in those around 1 and 3, 20.5 in none.
        assert!((found.precision - 2.0 / 3.0).abs() < 1e-12);
        assert!((found.density - 4.0 / 3.0).abs() < 1e-12);
        // 0 and 1 are close to 0.5; 3 and 9 lie in the wide ball around 20.5.
        assert!((found.recall - 1.0).abs() < 1e-12, "{found:?}");
        // The ball around 9 has no sample inside.
        assert!((found.coverage - 0.75).abs() < 1e-12);
    }

    #[test]
    fn one_distribution_overlaps_and_two_apart_do_not() {
        let draw = |seed, shift: f64| {
            let x = Rng::new(seed).normal_tensor((600, 4), DType::F32, &Device::Cpu).unwrap();
            Neighbourhoods::new(&(x + shift).unwrap(), 5).unwrap()
        };
        let reference = draw(1, 0.0);
        let same = reference.overlap(&draw(2, 0.0)).unwrap();
        assert!(same.precision > 0.9 && same.recall > 0.9 && same.coverage > 0.9, "{same:?}");
        assert!((same.density - 1.0).abs() < 0.15, "{same:?}");
        let apart = reference.overlap(&draw(3, 40.0)).unwrap();
        assert_eq!(apart, Overlap { precision: 0.0, recall: 0.0, density: 0.0, coverage: 0.0 });
        // One mode alone is precise, but covers little.
        let narrow = Rng::new(4).normal_tensor((600, 4), DType::F32, &Device::Cpu).unwrap();
        let narrow = reference.overlap(&Neighbourhoods::new(&(narrow * 0.1).unwrap(), 5).unwrap()).unwrap();
        assert!(narrow.precision > 0.99 && narrow.recall < 0.1 && narrow.coverage < 0.5, "{narrow:?}");
    }

    #[test]
    fn too_few_points_are_refused() {
        let x = Tensor::zeros((5, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(Neighbourhoods::new(&x, 5).unwrap_err().to_string().contains("measure more"));
        assert!(Neighbourhoods::new(&x, 0).is_err());
    }
}
