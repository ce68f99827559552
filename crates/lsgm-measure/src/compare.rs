use candle_core::{DType, Tensor};
use lsgm_core::{Dataset, Measure, Result, Yardstick};

use crate::classes::Confidence;
use crate::neighbours::Neighbourhoods;
use crate::{Described, FeatureSpace, Gaussian};

/// Most reference items that the Fréchet distance takes in.
const REFERENCE: usize = 10_000;
/// Most items of each side whose neighbourhoods are compared: the work grows with the square.
const NEIGHBOURS: usize = 3000;
/// The neighbour that bounds a neighbourhood (Naeem et al. 2020).
const K: usize = 5;

/// [`compare`] in the feature space of the training data itself ([`FeatureSpace::open`]).
///
/// # Errors
/// As both.
pub fn compare_with(
    samples: &Tensor,
    reference: &dyn Dataset,
    train: &dyn Dataset,
    yardstick: &mut Yardstick<'_>,
) -> Result<Vec<Measure>> {
    compare(&FeatureSpace::open(train, yardstick)?, samples, reference, train, yardstick)
}

/// Measures of planes `[N, C, H, W]` that a model drew, against data that it was not trained on. `train` is what it was
/// trained on: as many of its items show what the distance would be if the samples were data.
///
/// # Errors
/// Planes of another size, or data that cannot be read.
pub fn compare(
    space: &FeatureSpace,
    samples: &Tensor,
    reference: &dyn Dataset,
    train: &dyn Dataset,
    yardstick: &mut Yardstick<'_>,
) -> Result<Vec<Measure>> {
    let samples = space.describe(samples)?;
    let reference = space.describe_data(reference, REFERENCE, yardstick.rng)?;
    let train = space.describe_data(train, samples.features.dim(0)?, yardstick.rng)?;
    let mut measures = distances(space, &samples, &reference, &train)?;
    measures.extend(overlaps(space, &samples, &reference)?);
    measures.extend(classes(space, &samples, &reference)?);
    Ok(measures)
}

fn distances(
    space: &FeatureSpace,
    samples: &Described,
    reference: &Described,
    train: &Described,
) -> Result<Vec<Measure>> {
    let data = Gaussian::fit(&reference.features)?;
    let (name, n) = (space.name(), samples.features.dim(0)?);
    let distance = Gaussian::fit(&samples.features)?.distance(&data);
    let floor = Gaussian::fit(&train.features)?.distance(&data);
    Ok(vec![
        Measure::new("frechet_distance", distance, "", format!("squared, {n} samples to data, {name}")),
        Measure::new("frechet_floor", floor, "", format!("the same of {} training items", train.features.dim(0)?)),
    ])
}

/// How samples and data lie among each other; nothing where either are too few to have neighbours.
fn overlaps(space: &FeatureSpace, samples: &Described, reference: &Described) -> Result<Vec<Measure>> {
    if samples.features.dim(0)?.min(reference.features.dim(0)?) <= K {
        return Ok(Vec::new());
    }
    let few = |features: &Tensor| features.narrow(0, 0, features.dim(0)?.min(NEIGHBOURS));
    let samples = Neighbourhoods::new(&few(&samples.features)?, K)?;
    let reference = Neighbourhoods::new(&evenly(&reference.features, NEIGHBOURS)?, K)?;
    let found = reference.overlap(&samples)?;
    let by = format!("{K} nearest neighbours, {}", space.name());
    Ok(vec![
        Measure::new("precision", found.precision, "share", format!("samples that look like data, {by}")),
        Measure::new("recall", found.recall, "share", format!("data that look like samples, {by}")),
        Measure::new("density", found.density, "", format!("data around a sample, 1 for data, {by}")),
        Measure::new("coverage", found.coverage, "share", format!("data with a sample close by, {by}")),
    ])
}

/// What a classifier of the labels says; nothing without labels.
fn classes(space: &FeatureSpace, samples: &Described, reference: &Described) -> Result<Vec<Measure>> {
    let (Some(of_samples), Some(of_data)) = (&samples.probabilities, &reference.probabilities) else {
        return Ok(Vec::new());
    };
    let (samples, data, name) = (Confidence::of(of_samples)?, Confidence::of(of_data)?, space.name());
    let entropy = format!("of the labels over samples, {:.4} for data, {name}", data.class_entropy);
    let confidence = format!("of the likeliest label, {:.4} for data, {name}", data.mean_confidence);
    let mut measures = vec![
        Measure::new("class_entropy", samples.class_entropy, "nats", entropy),
        Measure::new("mean_confidence", samples.mean_confidence, "share", confidence).with_stderr(samples.stderr),
    ];
    if let Some(labels) = &reference.labels {
        let hits = of_data.argmax(1)?.eq(labels)?.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>()?;
        let stderr = (hits * (1.0 - hits) / labels.dim(0)? as f64).sqrt();
        measures.push(
            Measure::new("feature_accuracy", hits, "share", "labels of the data that the features name rightly")
                .with_stderr(stderr),
        );
    }
    Ok(measures)
}

/// At most `limit` rows, spread evenly.
fn evenly(rows: &Tensor, limit: usize) -> Result<Tensor> {
    let n = rows.dim(0)?;
    let kept = limit.min(n);
    let indices: Vec<u32> = (0..kept).map(|i| (i * n / kept) as u32).collect();
    Ok(rows.index_select(&Tensor::new(indices, rows.device())?, 0)?)
}
