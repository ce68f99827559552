//! Normalisation with learned scale and shift.

use std::sync::{Arc, OnceLock};

use candle_core::{Device, Shape, Tensor};
use lsgm_core::Result;
use serde::{Deserialize, Serialize};

use super::composed;
use super::custom::{Op, View, apply2, apply3, fault, has_kernel, keep};
use crate::kernels::Float;
use crate::kernels::norm::{
    Groups, Moments, Rows, channel_backward, channel_forward, channel_moments, group_backward, group_forward,
    row_backward, row_forward,
};

/// A function fused with the normalisation before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// `x · sigmoid(x)`.
    Silu,
}

/// Group normalisation (Wu & He 2018) of `x: [B, C, ..]` over each of `groups` groups of channels and all positions,
/// then `gamma: [C]`, `beta: [C]` and `activation`.
///
/// # Errors
/// Shapes that do not fit; a number of groups that does not divide `C`.
pub fn group_norm(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let (channels, positions) = channels("group_norm", x, gamma, beta)?;
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(fault("group_norm", format!("{groups} groups do not divide the {channels} channels")));
    }
    if !has_kernel(x) {
        return composed::group_norm(x, gamma, beta, groups, eps, activation);
    }
    let sizes = Groups { channels, positions, groups, eps, activation };
    apply3(GroupNorm { sizes, saved: OnceLock::new() }, [x, gamma, beta])
}

/// Layer normalisation (Ba et al. 2016) of the last dimension of `x: [.., D]`, then `gamma: [D]` and `beta: [D]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    let width = last("layer_norm", x, &[gamma, beta])?;
    if !has_kernel(x) {
        return composed::layer_norm(x, gamma, beta, eps);
    }
    let sizes = Rows { width, eps, centered: true };
    apply3(RowNorm { sizes, saved: OnceLock::new() }, [x, gamma, beta])
}

/// Root-mean-square normalisation (Zhang & Sennrich 2019) of the last dimension of `x: [.., D]`, then `gamma: [D]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn rms_norm(x: &Tensor, gamma: &Tensor, eps: f64) -> Result<Tensor> {
    let width = last("rms_norm", x, &[gamma])?;
    if !has_kernel(x) {
        return composed::rms_norm(x, gamma, eps);
    }
    let sizes = Rows { width, eps, centered: false };
    apply2(RowNorm { sizes, saved: OnceLock::new() }, [x, gamma])
}

/// Batch normalisation (Ioffe & Szegedy 2015) of `x: [B, C, ..]` with the moments of the batch, then `gamma: [C]`,
/// `beta: [C]` and `activation`. Also returns the batch's mean and biased variance, `[C]` each, without a gradient.
///
/// # Errors
/// Shapes that do not fit.
pub fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    activation: Activation,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (channels, positions) = channels("batch_norm", x, gamma, beta)?;
    if !has_kernel(x) {
        return composed::batch_norm_train(x, gamma, beta, eps, activation);
    }
    let saved = Arc::new(OnceLock::new());
    let op = BatchNorm { positions, eps, activation, of_batch: true, saved: saved.clone() };
    let y = apply3(op, [x, gamma, beta])?;
    let moments: &Moments = saved.get_or_init(Vec::new);
    let column = |f: &dyn Fn(&(f64, f64)) -> f64| {
        Tensor::from_vec(moments.iter().map(f).collect::<Vec<f64>>(), channels, &Device::Cpu)?.to_dtype(x.dtype())
    };
    let mean = column(&|(mean, _)| *mean)?;
    let variance = column(&|(_, rstd)| 1.0 / (rstd * rstd) - eps)?;
    Ok((y, mean, variance))
}

/// Batch normalisation of `x: [B, C, ..]` with given `mean: [C]` and `variance: [C]` (constants: no gradient reaches
/// them), then `gamma: [C]`, `beta: [C]` and `activation`.
///
/// # Errors
/// Shapes that do not fit.
pub fn batch_norm_eval(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let (channels, positions) = channels("batch_norm", x, gamma, beta)?;
    if mean.dims() != [channels] || variance.dims() != [channels] {
        let (mean, variance) = (mean.dims(), variance.dims());
        return Err(fault("batch_norm", format!("mean {mean:?} and variance {variance:?} must be [{channels}]")));
    }
    if !has_kernel(x) {
        return composed::batch_norm_eval(x, gamma, beta, [mean, variance], eps, activation);
    }
    let wide = |t: &Tensor| t.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>();
    let moments: Moments =
        wide(mean)?.into_iter().zip(wide(variance)?).map(|(m, v)| (m, 1.0 / (v + eps).sqrt())).collect();
    let op = BatchNorm { positions, eps, activation, of_batch: false, saved: Arc::new(OnceLock::from(moments)) };
    apply3(op, [x, gamma, beta])
}

/// Channels and positions of `x: [B, C, ..]`.
fn channels(op: &str, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<(usize, usize)> {
    match x.dims() {
        dims if dims.contains(&0) => Err(fault(op, format!("input {dims:?} is empty"))),
        [_, channels, rest @ ..] if gamma.dims() == [*channels] && beta.dims() == [*channels] => {
            Ok((*channels, rest.iter().product()))
        }
        dims => {
            let (gamma, beta) = (gamma.dims(), beta.dims());
            Err(fault(op, format!("input {dims:?} must be [B, C, ..] with scale {gamma:?} and shift {beta:?} of [C]")))
        }
    }
}

fn last(op: &str, x: &Tensor, parameters: &[&Tensor]) -> Result<usize> {
    match x.dims().last() {
        Some(width) if parameters.iter().all(|p| p.dims() == [*width]) => Ok(*width),
        _ => {
            let parameters: Vec<_> = parameters.iter().map(|p| p.dims()).collect();
            Err(fault(op, format!("input {:?} does not fit parameters {parameters:?}", x.dims())))
        }
    }
}

struct GroupNorm {
    sizes: Groups,
    saved: OnceLock<Moments>,
}

impl Op<3> for GroupNorm {
    const NAME: &'static str = "group_norm";

    fn forward<T: Float>(&self, [x, gamma, beta]: [View<'_, T>; 3]) -> (Vec<T>, Shape) {
        let (y, moments) = group_forward(&self.sizes, x.data, gamma.data, beta.data);
        self.saved.get_or_init(|| moments);
        (y, x.dims.into())
    }

    fn backward<T: Float>(
        &self,
        [x, gamma, beta]: [View<'_, T>; 3],
        _: View<'_, T>,
        gy: &[T],
        needed: [bool; 3],
    ) -> [Option<Vec<T>>; 3] {
        let saved = self.saved.get_or_init(Vec::new);
        let g = group_backward(&self.sizes, x.data, gamma.data, beta.data, saved, gy);
        keep(needed, [g.x, g.gamma, g.beta])
    }
}

struct RowNorm {
    sizes: Rows,
    saved: OnceLock<Moments>,
}

impl RowNorm {
    fn run<T: Float>(&self, x: View<'_, T>, gamma: &[T], beta: Option<&[T]>) -> (Vec<T>, Shape) {
        let (y, moments) = row_forward(&self.sizes, x.data, gamma, beta);
        self.saved.get_or_init(|| moments);
        (y, x.dims.into())
    }

    fn gradients<T: Float>(&self, x: &[T], gamma: &[T], gy: &[T]) -> [Vec<T>; 3] {
        let g = row_backward(&self.sizes, x, gamma, self.saved.get_or_init(Vec::new), gy);
        [g.x, g.gamma, g.beta]
    }
}

impl Op<2> for RowNorm {
    const NAME: &'static str = "rms_norm";

    fn forward<T: Float>(&self, [x, gamma]: [View<'_, T>; 2]) -> (Vec<T>, Shape) {
        self.run(x, gamma.data, None)
    }

    fn backward<T: Float>(
        &self,
        [x, gamma]: [View<'_, T>; 2],
        _: View<'_, T>,
        gy: &[T],
        needed: [bool; 2],
    ) -> [Option<Vec<T>>; 2] {
        let [dx, dgamma, _] = self.gradients(x.data, gamma.data, gy);
        keep(needed, [dx, dgamma])
    }
}

impl Op<3> for RowNorm {
    const NAME: &'static str = "layer_norm";

    fn forward<T: Float>(&self, [x, gamma, beta]: [View<'_, T>; 3]) -> (Vec<T>, Shape) {
        self.run(x, gamma.data, Some(beta.data))
    }

    fn backward<T: Float>(
        &self,
        [x, gamma, _]: [View<'_, T>; 3],
        _: View<'_, T>,
        gy: &[T],
        needed: [bool; 3],
    ) -> [Option<Vec<T>>; 3] {
        keep(needed, self.gradients(x.data, gamma.data, gy))
    }
}

struct BatchNorm {
    positions: usize,
    eps: f64,
    activation: Activation,
    /// Whether the moments are those of the input itself.
    of_batch: bool,
    /// Mean and reciprocal standard deviation of each channel.
    saved: Arc<OnceLock<Moments>>,
}

impl BatchNorm {
    fn moments<T: Float>(&self, x: &[T], channels: usize) -> &Moments {
        self.saved.get_or_init(|| {
            let moments = channel_moments(x, channels, self.positions);
            moments.into_iter().map(|(mean, variance)| (mean, 1.0 / (variance + self.eps).sqrt())).collect()
        })
    }
}

impl Op<3> for BatchNorm {
    const NAME: &'static str = "batch_norm";

    fn forward<T: Float>(&self, [x, gamma, beta]: [View<'_, T>; 3]) -> (Vec<T>, Shape) {
        let moments = self.moments(x.data, gamma.data.len());
        let y = channel_forward(x.data, self.positions, gamma.data, beta.data, moments, self.activation);
        (y, x.dims.into())
    }

    fn backward<T: Float>(
        &self,
        [x, gamma, beta]: [View<'_, T>; 3],
        _: View<'_, T>,
        gy: &[T],
        needed: [bool; 3],
    ) -> [Option<Vec<T>>; 3] {
        let moments = self.moments(x.data, gamma.data.len());
        let (activation, of_batch) = (self.activation, self.of_batch);
        let g = channel_backward(x.data, self.positions, gamma.data, beta.data, moments, activation, of_batch, gy);
        keep(needed, [g.x, g.gamma, g.beta])
    }
}
