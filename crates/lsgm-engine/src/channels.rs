use candle_core::{DType, Device, Tensor};
use lsgm_core::{Dataset, Error, Group, Pass, Result, Rng};

use crate::model::Model;

/// Items that decide which channels are active.
const ITEMS: usize = 1000;

/// The KL divergence to N(0, I) of each channel that the score-based prior models, in nats, averaged over items that are
/// spread over the data.
pub(crate) fn channel_kl(
    model: &Model,
    data: &dyn Dataset,
    batch_size: usize,
    device: &Device,
    rng: &mut Rng,
) -> Result<Vec<f64>> {
    let items = ITEMS.min(data.len());
    let indices: Vec<usize> = (0..items).map(|i| i * data.len() / items).collect();
    let mut totals = vec![0.0; model.latent_shape().channels];
    for batch in indices.chunks(batch_size.max(1)) {
        let x = data.batch(batch, rng)?.to_device(device)?.x;
        let posterior = model.autoencoder.encode(&x, &mut Pass::eval(rng))?;
        let channels =
            posterior.groups.iter().filter(|g| !g.side).map(Group::kl_channels).collect::<Result<Vec<_>>>()?;
        let sums: Vec<f64> = Tensor::cat(&channels, 1)?.detach().to_dtype(DType::F64)?.sum(0)?.to_vec1()?;
        totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    match totals.iter().find(|total| !total.is_finite()) {
        Some(total) => Err(Error::contract("encoder", format!("a KL divergence of {total} at the end of stage 1"))),
        None => Ok(totals.iter().map(|total| total / items as f64).collect()),
    }
}
