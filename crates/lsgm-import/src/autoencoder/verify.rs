use candle_core::Tensor;
use lsgm_core::{Error, Latents, ParamStore, Result, Rng};
use lsgm_image::Nvae;

use super::Architecture;
use crate::Half;
use crate::check::Check;

/// Recompute the outputs that `half` carries on the weights in `store`: posteriors, likelihood and reconstruction of `x`
/// under given draws, and a decoding of given latents.
///
/// # Errors
/// When the model cannot be built or run; a difference is no error here but a [`Check`] that fails.
pub fn verify(half: &Half, architecture: &Architecture, store: &ParamStore) -> Result<Vec<Check>> {
    let model = Nvae::new(&architecture.nvae, architecture.image, &store.frozen_root())?;
    let mut checks = Vec::new();
    if let Some(x) = half.io.get("x") {
        checks.extend(verify_inference(half, &model, &unpadded(x, architecture)?)?);
    }
    let given = numbered(half, "decode_eps");
    if let (false, Some(expected)) = (given.is_empty(), half.io.get("decode_logits")) {
        let (prior, side) = given.split_at(architecture.nvae.groups_per_scale.min(given.len()));
        let latents = Latents { prior: Tensor::cat(prior, 1)?, side: side.to_vec() };
        let logits = model.generate(&latents, false, &mut Rng::new(0))?;
        checks.push(Check::largest("decode_logits", &logits, expected, 1e-4)?);
    }
    Ok(checks)
}

fn verify_inference(half: &Half, model: &Nvae, x: &Tensor) -> Result<Vec<Check>> {
    let noise = numbered(half, "noise");
    let found = model.infer(x, false, &mut |group, dims| match noise.get(group) {
        Some(noise) if noise.dims() == dims => Ok(noise.clone()),
        _ => Err(Error::input(&half.path, format!("`io.noise.{group}` is missing or has another shape than {dims:?}"))),
    })?;
    let mut checks = Vec::new();
    for (group, expected) in numbered(half, "eps").iter().enumerate() {
        let Some(posterior) = found.posterior.groups.get(group) else { continue };
        checks.push(Check::largest(format!("eps.{group}"), &posterior.z, expected, 1e-4)?);
    }
    for (group, expected) in numbered(half, "log_q").iter().enumerate() {
        let Some(posterior) = found.posterior.groups.get(group) else { continue };
        checks.push(Check::largest(format!("log_q.{group}"), &posterior.log_q_elements()?, expected, 1e-4)?);
    }
    if let Some(expected) = half.io.get("log_q") {
        let mut log_q = expected.zeros_like()?;
        for group in &found.posterior.groups {
            log_q = (log_q + group.log_q()?)?;
        }
        checks.push(Check::largest_relative("log_q", &log_q, expected, 1e-5)?);
    }
    if let Some(expected) = half.io.get("recon_nll") {
        let nll = model.likelihood(&found.logits)?.log_prob(x)?.neg()?;
        checks.push(Check::largest_relative("recon_nll", &nll, expected, 1e-5)?);
    }
    if let Some(expected) = half.io.get("logits") {
        checks.push(Check::largest("logits", &found.logits, expected, 1e-4)?);
    }
    Ok(checks)
}

/// `NAME.0`, `NAME.1`, ... of the inputs and outputs.
fn numbered(half: &Half, name: &str) -> Vec<Tensor> {
    (0..).map_while(|i| half.io.get(&format!("{name}.{i}"))).cloned().collect()
}

/// Published inputs are padded and in [-1, 1]; ours are neither.
fn unpadded(x: &Tensor, architecture: &Architecture) -> Result<Tensor> {
    let (image, padding) = (&architecture.image, architecture.nvae.padding);
    let x = x.narrow(2, padding, image.height)?.narrow(3, padding, image.width)?.contiguous()?;
    Ok(x.affine(0.5, 0.5)?)
}
