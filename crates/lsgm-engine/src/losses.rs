use candle_core::Tensor;
use lsgm_core::{Error, Pass, Result};
use lsgm_prior::Weighting;

use crate::model::Model;

/// The loss of one step and its parts, in nats for each item.
pub(crate) struct Loss {
    pub(crate) total: Tensor,
    pub(crate) values: Vec<(&'static str, f64)>,
}

/// Stage 1: reconstruction and the KL divergence to N(0, I), weighted by `kl_weight`.
pub(crate) fn vae_loss(model: &Model, x: &Tensor, kl_weight: f64, pass: &mut Pass<'_>) -> Result<Loss> {
    let (posterior, likelihood) = model.autoencoder.reconstruct(x, pass)?;
    check_latent(model, &posterior.latents()?.prior)?;
    let reconstruction = likelihood.log_prob(x)?.mean_all()?.neg()?;
    let mut kl = Tensor::zeros_like(&reconstruction)?;
    for group in posterior.kl_groups()? {
        kl = (kl + group.mean_all()?)?;
    }
    let total = (&reconstruction + (&kl * kl_weight)?)?;
    let (r, k) = (scalar(&reconstruction)?, scalar(&kl)?);
    let values = vec![("loss", scalar(&total)?), ("reconstruction", r), ("kl", k), ("nelbo_normal_prior", r + k)];
    Ok(Loss { total: regularized(model, total)?, values })
}

/// Stage 2, algorithm 1: one loss with the likelihood weighting for encoder, decoder and prior together
/// (LSGM, eq. 5 and algorithm 1 of appendix G).
pub(crate) fn lsgm_loss(model: &Model, x: &Tensor, weighting: Weighting, pass: &mut Pass<'_>) -> Result<Loss> {
    let (posterior, likelihood) = model.autoencoder.reconstruct(x, pass)?;
    let z0 = posterior.latents()?.prior;
    check_latent(model, &z0)?;
    let times = model.prior.stratified_times(weighting, z0.dim(0)?, pass.rng)?;
    let reconstruction = likelihood.log_prob(x)?.mean_all()?.neg()?;
    let neg_entropy = posterior.neg_entropy()?.mean_all()?;
    let cross_entropy = model.prior.cross_entropy(&z0, &times, pass)?.mean_all()?;
    let mut total = ((&reconstruction + &neg_entropy)? + &cross_entropy)?;
    if let Some(kl) = posterior.side_kl()? {
        total = (total + kl.mean_all()?)?;
    }
    let nelbo = scalar(&total)?;
    let values = vec![
        ("loss", nelbo),
        ("nelbo", nelbo),
        ("reconstruction", scalar(&reconstruction)?),
        ("neg_entropy", scalar(&neg_entropy)?),
        ("cross_entropy", scalar(&cross_entropy)?),
    ];
    Ok(Loss { total: regularized(model, total)?, values })
}

fn regularized(model: &Model, total: Tensor) -> Result<Tensor> {
    Ok(match model.autoencoder.regularizer()? {
        Some(penalty) => (total + penalty)?,
        None => total,
    })
}

fn check_latent(model: &Model, z0: &Tensor) -> Result<()> {
    model.latent_shape().check("encoder", z0)
}

pub(crate) fn scalar(x: &Tensor) -> Result<f64> {
    let value = x.to_dtype(candle_core::DType::F64)?;
    if value.rank() != 0 {
        return Err(Error::contract("loss", format!("a scalar was expected, not {:?}", value.dims())));
    }
    Ok(value.to_scalar::<f64>()?)
}
