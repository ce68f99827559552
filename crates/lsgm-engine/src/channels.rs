use candle_core::{DType, Device, Tensor};
use lsgm_core::{Dataset, Error, Group, Pass, Posterior, Result, Rng, spread_indices};

use crate::model::Model;

/// Items that decide which channels are active, and that the prior is fitted to.
const ITEMS: usize = 2000;

/// The KL divergence to N(0, I) of each channel that the score-based prior models, in nats, averaged over items that are
/// spread over the data.
pub(crate) fn channel_kl(
    model: &Model,
    data: &dyn Dataset,
    batch_size: usize,
    device: &Device,
    rng: &mut Rng,
) -> Result<Vec<f64>> {
    let mut totals = vec![0.0; model.latent_shape().channels];
    let items = for_posteriors(model, data, batch_size, device, rng, |posterior| {
        let channels =
            posterior.groups.iter().filter(|g| !g.side).map(Group::kl_channels).collect::<Result<Vec<_>>>()?;
        let sums: Vec<f64> = Tensor::cat(&channels, 1)?.detach().to_dtype(DType::F64)?.sum(0)?.to_vec1()?;
        totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        Ok(())
    })?;
    match totals.iter().find(|total| !total.is_finite()) {
        Some(total) => Err(Error::contract("encoder", format!("a KL divergence of {total} at the end of stage 1"))),
        None => Ok(totals.iter().map(|total| total / items as f64).collect()),
    }
}

/// Means and variances `[N, C, *spatial]` of the posteriors of items that are spread over the data, of the groups that
/// the score-based prior models. Where a flow follows the Normal, its samples stand for the means.
pub(crate) fn encoded(
    model: &Model,
    data: &dyn Dataset,
    batch_size: usize,
    device: &Device,
    rng: &mut Rng,
) -> Result<(Tensor, Tensor)> {
    let (mut means, mut variances) = (Vec::new(), Vec::new());
    for_posteriors(model, data, batch_size, device, rng, |posterior| {
        let groups: Vec<&Group> = posterior.groups.iter().filter(|g| !g.side).collect();
        let mean: Vec<&Tensor> = groups.iter().map(|g| if g.base.is_some() { &g.z } else { &g.mu }).collect();
        let variance = groups.iter().map(|g| Ok((&g.log_sigma * 2.0)?.exp()?)).collect::<Result<Vec<_>>>()?;
        means.push(Tensor::cat(&mean, 1)?.detach());
        variances.push(Tensor::cat(&variance, 1)?.detach());
        Ok(())
    })?;
    Ok((Tensor::cat(&means, 0)?, Tensor::cat(&variances, 0)?))
}

/// Hand the posteriors of items that are spread over the data to `each`, batch by batch; the number of items.
fn for_posteriors(
    model: &Model,
    data: &dyn Dataset,
    batch_size: usize,
    device: &Device,
    rng: &mut Rng,
    mut each: impl FnMut(Posterior) -> Result<()>,
) -> Result<usize> {
    let indices = spread_indices(data.len(), ITEMS, rng);
    for batch in indices.chunks(batch_size.max(1)) {
        let x = data.batch(batch, rng)?.to_device(device)?.x;
        each(model.autoencoder.encode(&x, &mut Pass::eval(rng))?)?;
    }
    Ok(indices.len())
}
