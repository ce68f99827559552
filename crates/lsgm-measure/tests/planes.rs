//! Feature spaces of small planes whose structure is known.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};
use lsgm_core::{Batch, Dataset, Measure, Result, Rng, Yardstick};
use lsgm_measure::{FeatureSpace, Training, compare};

/// Bars over noise: upright for label 0, level for label 1, at a place of their own.
struct Bars {
    labelled: bool,
    width: usize,
    noise: f32,
    visits: AtomicUsize,
}

impl Bars {
    fn new(labelled: bool, noise: f32) -> Self {
        Self { labelled, width: 12, noise, visits: AtomicUsize::new(0) }
    }

    fn item(&self, index: usize, rng: &mut Rng) -> Vec<f32> {
        let place = 2 + index / 2 % 8;
        let on = |row: usize, column: usize| if index.is_multiple_of(2) { column == place } else { row == place };
        let noise = rng.normals(12 * self.width);
        let at = |i: usize| f32::from(u8::from(on(i / self.width, i % self.width))) + self.noise * noise[i];
        (0..12 * self.width).map(at).collect()
    }
}

impl Dataset for Bars {
    fn len(&self) -> usize {
        400
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Batch> {
        self.visits.fetch_add(1, Ordering::SeqCst);
        let values: Vec<f32> = indices.iter().flat_map(|i| self.item(*i, rng)).collect();
        let labels: Vec<u32> = indices.iter().map(|i| (*i % 2) as u32).collect();
        Ok(Batch {
            x: Tensor::from_vec(values, (indices.len(), 1, 12, self.width), &Device::Cpu)?,
            labels: if self.labelled { Some(Tensor::new(labels, &Device::Cpu)?) } else { None },
        })
    }
}

const SHORT: Training = Training { steps: 60, batch_size: 32, learning_rate: 4e-3 };

/// Open a space; how often progress was told shows whether it was trained.
fn open(data: &Bars, cache: &Path) -> (FeatureSpace, usize) {
    let mut told = 0;
    let mut progress = |_| told += 1;
    let mut yardstick = Yardstick {
        data_dir: None,
        cache_dir: cache,
        device: &Device::Cpu,
        rng: &mut Rng::new(1),
        progress: &mut progress,
    };
    let space = FeatureSpace::open_with(data, &SHORT, &mut yardstick).unwrap();
    (space, told)
}

fn measure(space: &FeatureSpace, samples: &Tensor, data: &Bars) -> Vec<Measure> {
    let mut yardstick = Yardstick {
        data_dir: None,
        cache_dir: Path::new("unused"),
        device: &Device::Cpu,
        rng: &mut Rng::new(2),
        progress: &mut |_| {},
    };
    compare(space, samples, data, data, &mut yardstick).unwrap()
}

fn value(measures: &[Measure], name: &str) -> f64 {
    measures.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("no {name}")).value
}

fn planes(data: &Bars, indices: impl Iterator<Item = usize>) -> Tensor {
    data.batch(&indices.collect::<Vec<_>>(), &mut Rng::new(9)).unwrap().x
}

#[test]
fn data_are_close_to_data_and_noise_is_far() {
    let dir = tempfile::tempdir().unwrap();
    let data = Bars::new(true, 0.1);
    let (space, _) = open(&data, dir.path());
    assert_eq!(space.name(), "lsgm-features v2, 2 labels");
    let good = measure(&space, &planes(&data, 0..300), &data);
    let noise = Rng::new(3).normal_tensor((300, 1, 12, 12), DType::F32, &Device::Cpu).unwrap();
    let bad = measure(&space, &noise, &data);
    let half = measure(&space, &planes(&data, (0..600).step_by(2)), &data);
    let distance = |m: &[Measure]| value(m, "frechet_distance");
    assert!(distance(&good) < 0.02 * distance(&bad), "{} {}", distance(&good), distance(&bad));
    assert!(distance(&good) < 0.2 * distance(&half), "{} {}", distance(&good), distance(&half));
    assert!(value(&good, "feature_accuracy") > 0.95 && value(&good, "precision") > 0.8);
    assert!(value(&bad, "precision") < 0.2 && value(&bad, "coverage") < 0.2);
    // Of one class alone every sample is right, and half of the data are missed.
    assert!(value(&half, "precision") > 0.8 && value(&half, "coverage") < 0.6);
    assert!((value(&good, "class_entropy") - 2f64.ln()).abs() < 0.02 && value(&half, "class_entropy") < 0.3);
    assert!(good.iter().any(|m| m.meaning.contains(space.name())));
    let few = space.describe(&planes(&data, 0..3)).unwrap();
    assert_eq!((few.features.dims(), few.probabilities.unwrap().dims()), (&[3, 64][..], &[3, 2][..]));
}

#[test]
fn a_space_is_kept_and_made_anew_when_it_is_damaged_or_the_data_are_others() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("not/yet/there");
    let data = Bars::new(true, 0.1);
    let features = |space: &FeatureSpace| {
        let found = space.describe(&planes(&data, 0..5)).unwrap();
        found.features.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let (first, trained) = open(&data, &cache);
    let (second, again) = open(&data, &cache);
    assert_eq!((trained, again), (60, 0));
    assert_eq!(features(&first), features(&second));
    let files = || std::fs::read_dir(&cache).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(files().len(), 1);
    std::fs::write(&files()[0], b"no tensors").unwrap();
    let (third, trained) = open(&data, &cache);
    assert_eq!((trained, features(&third)), (60, features(&first)));
    assert_eq!(open(&Bars::new(true, 0.2), &cache).1, 60);
    assert_eq!(files().len(), 2);
}

#[test]
fn without_labels_symmetries_are_learnt_and_nothing_is_said_about_classes() {
    let dir = tempfile::tempdir().unwrap();
    for (width, name) in [(12, "quarter turns"), (14, "mirrored axes")] {
        let data = Bars { width, ..Bars::new(false, 0.1) };
        let (space, _) = open(&data, dir.path());
        assert_eq!(space.name(), format!("lsgm-features v2, {name}"));
        let good = measure(&space, &planes(&data, 0..200), &data);
        let noise = Rng::new(3).normal_tensor((200, 1, 12, width), DType::F32, &Device::Cpu).unwrap();
        let bad = measure(&space, &noise, &data);
        assert!(value(&good, "frechet_distance") < 0.1 * value(&bad, "frechet_distance"));
        assert!(good.iter().all(|m| m.name != "class_entropy" && m.name != "feature_accuracy"));
    }
}

#[test]
fn planes_of_another_size_are_refused_and_a_few_have_no_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let data = Bars::new(true, 0.1);
    let (space, _) = open(&data, dir.path());
    let mut yardstick = Yardstick {
        data_dir: None,
        cache_dir: dir.path(),
        device: &Device::Cpu,
        rng: &mut Rng::new(2),
        progress: &mut |_| {},
    };
    let colour = Tensor::zeros((20, 3, 12, 12), DType::F32, &Device::Cpu).unwrap();
    assert!(compare(&space, &colour, &data, &data, &mut yardstick).is_err());
    let few = compare(&space, &planes(&data, 0..4), &data, &data, &mut yardstick).unwrap();
    assert!(few.iter().any(|m| m.name == "frechet_distance") && few.iter().all(|m| m.name != "precision"));
}
