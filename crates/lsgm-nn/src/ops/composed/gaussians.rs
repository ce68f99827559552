use candle_core::{D, Tensor};
use lsgm_core::Result;

use super::{constant, log_softmax, softmax};
use crate::precision::{Precision, with_precision};

/// `a · b`. What comes of it are small differences of large numbers: no precision of a pass may round them.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    with_precision(Precision::F32, || Ok(a.contiguous()?.matmul(&b.contiguous()?)?))
}

pub(crate) fn diffused_gaussians(
    means: &Tensor,
    log_variance: &Tensor,
    log_shares: &Tensor,
    moments: &[(f64, f64)],
) -> Result<Tensor> {
    let column =
        |value: fn(&(f64, f64)) -> f64| constant(moments.iter().map(value).collect(), (moments.len(), 1, 1), means);
    let (m, noise) = (column(|(m, _)| *m)?, column(|(_, noise)| *noise)?);
    let log_variance = log_variance.exp()?.broadcast_mul(&m.sqr()?)?.broadcast_add(&noise)?.log()?;
    let precision = log_variance.neg()?.exp()?;
    let centre = means.broadcast_mul(&m)?;
    let pull = (&precision * &centre)?;
    let squares = (&pull * centre)?;
    let offset = ((squares + log_variance)?.sum_keepdim(D::Minus1)? * -0.5)?;
    Ok(Tensor::cat(&[&pull, &precision, &offset.broadcast_add(&log_shares.unsqueeze(1)?)?], D::Minus1)?)
}

pub(crate) fn component_shares(features: &Tensor, factors: &Tensor) -> Result<Tensor> {
    softmax(&product(features, &factors.t()?)?)
}

pub(crate) fn expected_factors(
    features: &Tensor,
    factors: &Tensor,
    context: &Tensor,
    targets: Option<[&Tensor; 2]>,
) -> Result<(Tensor, Option<Tensor>)> {
    let guess = product(features, &factors.t()?)?;
    let expected = product(&softmax(&(&guess + context)?)?, factors)?;
    let Some([features, factors]) = targets else { return Ok((expected, None)) };
    let rows = features.contiguous()?.flatten(0, 1)?;
    let shares = softmax(&product(&rows, &factors.t()?)?)?.reshape(context.shape())?.detach();
    let told = log_softmax(&(guess.detach() + context)?)?;
    Ok((expected, Some((shares * told)?.sum(D::Minus1)?.neg()?)))
}
