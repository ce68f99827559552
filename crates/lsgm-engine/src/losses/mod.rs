mod balance;
#[cfg(test)]
mod tests;

use balance::{Balance, kl_with_free_bits};
use candle_core::Tensor;
use lsgm_core::{Auxiliary, Error, Group, LatentNormal, Likelihood, Pass, Posterior, Result};
use lsgm_prior::Prior;

use crate::config::{LsgmStage, VaeStage};
use crate::model::Model;

/// The loss of one step and its parts, in nats for each item.
pub(crate) struct Loss {
    pub(crate) total: Tensor,
    /// Scalars (`f64`) where the loss is computed: the host need not wait for them.
    pub(crate) values: Vec<(&'static str, Tensor)>,
}

/// Stage 1 at a share `progress` of it: reconstruction and the annealed KL divergence to N(0, I). The values are those of
/// the bound itself, without annealing, balancing and free bits.
pub(crate) fn vae_loss(
    model: &Model,
    x: &Tensor,
    config: &VaeStage,
    progress: f64,
    pass: &mut Pass<'_>,
) -> Result<Loss> {
    let (posterior, likelihood) = model.autoencoder.reconstruct(x, pass)?;
    check_latent(model, &posterior.latents()?.prior)?;
    let reconstruction = likelihood.log_prob(x)?.mean_all()?.neg()?;
    let kl_weight = config.kl_weight(progress);
    let balance = balance(&posterior, config.kl_balance, kl_weight)?;
    let penalty = balance.sum(&kl_with_free_bits(&posterior, config.free_bits)?)?;
    let total = (&reconstruction + (penalty * kl_weight)?)?;
    let kl = Balance::None.sum(&posterior.kl_groups()?)?.mean_all()?;
    let (r, k) = (number(&reconstruction)?, number(&kl)?);
    let nelbo = (&r + &k)?;
    let values = vec![("loss", number(&total)?), ("reconstruction", r), ("kl", k), ("nelbo_normal_prior", nelbo)];
    let loss = Loss { total, values };
    with_terms_of_its_own(model, x, likelihood.as_ref(), config.regularizer_weight(progress), loss)
}

/// Stage 2 at a share `progress` of it, end to end: reconstruction, negative encoder entropy and cross entropy with the
/// prior (LSGM, eq. 5), their gradients made by one of the three algorithms of appendix G. `frozen` is the prior that
/// algorithm 3 shows the encoder.
pub(crate) fn lsgm_loss(
    model: &Model,
    frozen: &Prior,
    x: &Tensor,
    config: &LsgmStage,
    progress: f64,
    pass: &mut Pass<'_>,
) -> Result<Loss> {
    let (posterior, decode) = model.autoencoder.encode_to_decode(x, pass)?;
    let latents = latents(&posterior, config)?;
    check_latent(model, &latents.mean)?;
    let kl_weight = config.kl_weight(progress);
    let balance = balance(&posterior, config.kl_balance, kl_weight)?;
    let entropies = posterior.groups.iter().map(entropy_term).collect::<Result<Vec<_>>>()?;
    let penalty = balance.sum(&entropies)?.mean_all()?;
    let latents = balance.on_latents(&posterior, latents)?;
    let (cross_entropy, prior_term) = cross_entropy_terms(model, frozen, &latents, config, progress, pass)?;
    let likelihood = decode(pass)?;
    let reconstruction = likelihood.log_prob(x)?.mean_all()?.neg()?;
    let total = ((&reconstruction + (penalty * kl_weight)?)? + prior_term)?;
    let neg_entropy = Balance::None.sum(&entropies)?.mean_all()?;
    let (r, h, ce) = (number(&reconstruction)?, number(&neg_entropy)?, number(&cross_entropy)?);
    let values = vec![
        ("loss", number(&total)?),
        ("nelbo", ((&r + &h)? + &ce)?),
        ("reconstruction", r),
        ("neg_entropy", h),
        ("cross_entropy", ce),
    ];
    with_terms_of_its_own(model, x, likelihood.as_ref(), config.regularizer, Loss { total, values })
}

/// The factors on the groups while the KL terms are annealed.
fn balance(posterior: &Posterior, wanted: bool, kl_weight: f64) -> Result<Balance> {
    if wanted && kl_weight < 1.0 { Balance::of(posterior) } else { Ok(Balance::None) }
}

/// What a group adds to the bound beside the cross entropy, `[B]` nats: its negative entropy; outside the score-based
/// prior the whole KL divergence to N(0, I).
fn entropy_term(group: &Group) -> Result<Tensor> {
    if group.side { group.kl_standard_normal() } else { group.neg_entropy() }
}

/// The cross entropy in nats for reports, and the term of the loss that stands for it.
fn cross_entropy_terms(
    model: &Model,
    frozen: &Prior,
    latents: &LatentNormal,
    config: &LsgmStage,
    progress: f64,
    pass: &mut Pass<'_>,
) -> Result<(Tensor, Tensor)> {
    let items = latents.mean.dim(0)?;
    let (kl_weight, share) = (config.kl_weight(progress), config.encoder_share(progress));
    let times = model.prior.stratified_times(config.weighting, items, pass.rng)?;
    match config.algorithm {
        2 => {
            let losses = model.prior.shared_time_losses(latents, &times, kl_weight, share, pass)?;
            Ok((losses.cross_entropy.mean_all()?, losses.objective.mean_all()?))
        }
        3 => {
            let encoder_times = frozen.stratified_times(config.encoder_weighting, items, pass.rng)?;
            let cross_entropy = frozen.encoder_cross_entropy(latents, &encoder_times, share, pass)?.mean_all()?;
            let objective = model.prior.objective(latents.detach(), &times, pass)?.mean_all()?;
            let term = ((&cross_entropy * kl_weight)? + objective)?;
            Ok((cross_entropy, term))
        }
        _ => {
            let cross_entropy = model.prior.encoder_cross_entropy(latents, &times, share, pass)?.mean_all()?;
            let term = (&cross_entropy * kl_weight)?;
            Ok((cross_entropy, term))
        }
    }
}

/// What the prior sees of a posterior.
fn latents(posterior: &Posterior, config: &LsgmStage) -> Result<LatentNormal> {
    if config.analytic_posterior { posterior.conditional() } else { Ok(posterior.latents()?.prior.into()) }
}

/// Stage 2 for the prior alone, on latents of the autoencoder as it is.
pub(crate) fn prior_loss(model: &Model, x: &Tensor, config: &LsgmStage, pass: &mut Pass<'_>) -> Result<Loss> {
    let posterior = model.autoencoder.encode(x, &mut Pass::eval(pass.rng))?;
    let latents = latents(&posterior, config)?.detach();
    check_latent(model, &latents.mean)?;
    let times = model.prior.stratified_times(config.weighting, latents.mean.dim(0)?, pass.rng)?;
    let total = model.prior.objective(&latents, &times, pass)?.mean_all()?;
    Ok(Loss { values: vec![("loss", number(&total)?)], total })
}

/// The loss with what the autoencoder adds to it: its own penalty, times `weight`, and terms beside the bound under their
/// own names.
fn with_terms_of_its_own(
    model: &Model,
    x: &Tensor,
    likelihood: &dyn Likelihood,
    weight: f64,
    mut loss: Loss,
) -> Result<Loss> {
    if weight != 0.0
        && let Some(penalty) = model.autoencoder.regularizer()?
    {
        loss.total = (loss.total + (penalty * weight)?)?;
    }
    for Auxiliary { name, loss: term } in model.autoencoder.auxiliary(x, likelihood)? {
        loss.values.push((name, number(&term)?));
        loss.total = (loss.total + term)?;
    }
    Ok(loss)
}

fn check_latent(model: &Model, z0: &Tensor) -> Result<()> {
    model.latent_shape().check("encoder", z0)
}

/// A scalar for reports: `f64`, without the graph behind it.
fn number(x: &Tensor) -> Result<Tensor> {
    if x.rank() != 0 {
        return Err(Error::contract("loss", format!("a scalar was expected, not {:?}", x.dims())));
    }
    Ok(x.detach().to_dtype(candle_core::DType::F64)?)
}

/// A scalar, waited for.
pub(crate) fn scalar(x: &Tensor) -> Result<f64> {
    Ok(number(x)?.to_scalar::<f64>()?)
}
