use candle_core::{DType, Device, Tensor};
use lsgm_core::{Batch, Dataset, Error, Result, Rng, Yardstick, spread_indices};
use lsgm_nn::ops::softmax;

use crate::network::Network;
use crate::task::Task;
use crate::training::Training;
use crate::{cache, digest};

/// Items that stand for the data: they decide the task, the range of values and the fingerprint.
const PROBE: usize = 2000;
/// Items that go through the network together.
const BATCH: usize = 250;

/// Features are the same whatever device the model is on.
const DEVICE: &Device = &Device::Cpu;
/// Changes with anything that changes features: architecture, training, seeds.
const VERSION: u32 = 2;

/// The feature space of a data set: a small convolutional network, trained on it.
pub struct FeatureSpace {
    network: Network,
    task: Task,
    name: String,
}

/// What a feature space says about items.
#[derive(Debug, Clone)]
pub struct Described {
    /// Features `[N, D]`.
    pub features: Tensor,
    /// Probabilities of the labels `[N, K]`, where the network was trained on labels.
    pub probabilities: Option<Tensor>,
    /// The labels `[N]` that the items came with.
    pub labels: Option<Tensor>,
}

impl FeatureSpace {
    /// The feature space of the planes `[B, C, H, W]` in `data`, from the cache or trained now: to name their labels, or
    /// without labels, to tell by which symmetry a plane was moved.
    ///
    /// # Errors
    /// When the data are empty, no planes, or cannot be read.
    pub fn open(data: &dyn Dataset, yardstick: &mut Yardstick<'_>) -> Result<Self> {
        Self::open_with(data, &Training::default(), yardstick)
    }

    /// [`FeatureSpace::open`] with another training.
    ///
    /// # Errors
    /// As [`FeatureSpace::open`].
    pub fn open_with(data: &dyn Dataset, training: &Training, yardstick: &mut Yardstick<'_>) -> Result<Self> {
        let probe = probe(data)?;
        let task = Task::of(&probe)?;
        let (_, channels, height, width) = probe.x.dims4()?;
        let store = Network::store(DEVICE);
        let network = Network::new((channels, height, width), task.classes(), &store.root())?;
        let fingerprint = digest::digest(data.len(), &probe)?;
        let Training { steps, batch_size, learning_rate } = *training;
        let recipe = match *training == Training::default() {
            true => String::new(),
            false => format!("-{steps}x{batch_size}x{learning_rate}"),
        };
        let path = yardstick.cache_dir.join(format!("features-v{VERSION}-{fingerprint}{recipe}.safetensors"));
        if !cache::restore(&path, &store, DEVICE) {
            network.standardize(&probe.x)?;
            training.run(&network, &store, task, data, yardstick.progress)?;
            cache::keep(&path, &store);
        }
        let frozen = Network::new((channels, height, width), task.classes(), &store.frozen_root())?;
        Ok(Self { network: frozen, task, name: format!("lsgm-features v{VERSION}, {}", task.describe()) })
    }

    /// Name and version of the features, to go with every figure.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Describe planes `[N, C, H, W]`.
    ///
    /// # Errors
    /// Planes of another size than those of the data.
    pub fn describe(&self, planes: &Tensor) -> Result<Described> {
        let n = planes.dim(0)?;
        let mut parts = Vec::new();
        for start in (0..n).step_by(BATCH) {
            let x = planes.narrow(0, start, BATCH.min(n - start))?.to_dtype(DType::F32)?.to_device(DEVICE)?;
            parts.push(self.network.features(&x)?);
        }
        self.described(&parts, None)
    }

    /// Describe up to `limit` items, spread over `data`.
    ///
    /// # Errors
    /// As [`FeatureSpace::describe`], and when the data are empty or cannot be read.
    pub fn describe_data(&self, data: &dyn Dataset, limit: usize, rng: &mut Rng) -> Result<Described> {
        let indices = spread(data, limit, rng)?;
        let (mut parts, mut labels) = (Vec::new(), Vec::new());
        for chunk in indices.chunks(BATCH) {
            let batch = data.batch(chunk, rng)?;
            parts.push(self.network.features(&batch.x)?);
            labels.extend(batch.labels);
        }
        let labels = if labels.is_empty() { None } else { Some(Tensor::cat(&labels, 0)?) };
        self.described(&parts, labels)
    }

    fn described(&self, parts: &[Tensor], labels: Option<Tensor>) -> Result<Described> {
        if parts.is_empty() {
            return Err(Error::contract("features", "there are no items to measure"));
        }
        let features = Tensor::cat(parts, 0)?;
        let probabilities = match self.task {
            Task::Labels(_) => Some(softmax(&self.network.logits(&features)?)?),
            Task::Turns | Task::Mirrors => None,
        };
        Ok(Described { features, probabilities, labels })
    }
}

impl std::fmt::Debug for FeatureSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeatureSpace").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The items that stand for the data, always the same.
fn probe(data: &dyn Dataset) -> Result<Batch> {
    let rng = &mut Rng::new(0).fork("probe");
    data.batch(&spread(data, PROBE, rng)?, rng)
}

/// Up to `limit` indices, spread over the data.
fn spread(data: &dyn Dataset, limit: usize, rng: &mut Rng) -> Result<Vec<usize>> {
    let indices = spread_indices(data.len(), limit, rng);
    if indices.is_empty() {
        return Err(Error::contract("features", "there are no data to measure against"));
    }
    Ok(indices)
}
