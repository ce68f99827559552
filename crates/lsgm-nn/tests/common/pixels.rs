//! The operations of image models on small pictures.

use candle_core::Tensor;
use lsgm_nn::ops::{self, LogisticForm};

use super::{Case, normal, tensor};

fn case(
    name: &str,
    inputs: Vec<Tensor>,
    f: impl Fn(&[Tensor]) -> lsgm_core::Result<Tensor> + Send + Sync + 'static,
) -> Case {
    Case { name: name.into(), inputs, f: Box::new(f) }
}

/// Pixels on the grid of `levels` values, both ends among them.
pub(crate) fn pixels(channels: usize, levels: usize) -> Tensor {
    let n = 2 * channels * 15;
    let values = (0..n).map(|i| 2.0 * ((i * 7 + i / 3) % levels) as f64 / (levels - 1) as f64 - 1.0).collect();
    tensor(values, (2, channels, 3, 5))
}

/// The log-probability of those pixels, by parameters around `shift`.
pub(crate) fn likelihood(form: LogisticForm, channels: usize, levels: usize, shift: f64) -> Case {
    let parameters = (normal(7, (2, form.parameters(channels), 3, 5)) + shift).unwrap();
    let x = pixels(channels, levels);
    case(&format!("{form:?} {channels} {levels}"), vec![parameters], move |t| {
        ops::discretized_logistic_log_prob(&t[0], &x.to_dtype(t[0].dtype())?.to_device(t[0].device())?, levels, form)
    })
}

/// Every op of image models.
pub(crate) fn cases() -> Vec<Case> {
    let planes = |seed, h, w| normal(seed, (2, 3, h, w));
    vec![
        likelihood(LogisticForm::Mixture(3), 3, 256, 0.0),
        likelihood(LogisticForm::Mixture(2), 1, 32, -1.0),
        likelihood(LogisticForm::Mixture(1), 3, 4, 0.5),
        likelihood(LogisticForm::Single, 3, 256, -2.0),
        case("bilinear", vec![planes(1, 3, 4)], |t| ops::upsample_bilinear2d(&t[0], 2)),
        case("bilinear of points", vec![planes(1, 1, 2)], |t| ops::upsample_bilinear2d(&t[0], 3)),
        case("gated residual", vec![planes(1, 2, 3), planes(2, 2, 3), normal(3, (2, 3))], |t| {
            ops::gated_residual(&t[0], &t[1], &t[2], 0.1)
        }),
    ]
}
