use candle_core::{D, Tensor};
use lsgm_core::Result;

use super::constant;

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
