//! Log-probabilities of pixels under discretised logistic distributions.

use candle_core::{Shape, Tensor};
use lsgm_core::Result;

use super::composed;
use super::custom::{Op, View, apply2, fault, has_kernel};
use crate::kernels::Float;
use crate::kernels::logistic::{Logistics, log_prob, log_prob_gradient};

/// How the parameters of a [`discretized_logistic_log_prob`] lie in their channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogisticForm {
    /// One logistic distribution for each of `C` channels: `C` means, then `C` logarithms of scales.
    Single,
    /// A mixture of `M` for the channels together, after PixelCNN++ (Salimans et al. 2017, arXiv 1701.05517): `M` logits of
    /// weights; then for each channel `M` means, `M` logarithms of scales and, with three channels, `M` couplings. The
    /// hyperbolic tangents of the couplings shift the mean of green by red, of blue by red, and of blue by green.
    Mixture(usize),
}

impl LogisticForm {
    /// Channels of the parameters for pixels of `channels`.
    pub fn parameters(self, channels: usize) -> usize {
        self.logistics(channels, 0, 0.0).planes()
    }

    fn logistics(self, channels: usize, positions: usize, half_bin: f64) -> Logistics {
        let mixtures = if let Self::Mixture(m) = self { m } else { 0 };
        Logistics { channels, positions, mixtures, half_bin }
    }
}

/// `log p(x)` of each item in nats, `[B]`, for pixels `x: [B, C, H, W]` with `levels` values that divide [-1, 1] evenly,
/// ends included, and parameters `[B, P, H, W]` with `P` of [`LogisticForm::parameters`].
///
/// Each value has the mass of the bin around it, the first and the last to infinity: the masses of all values sum to one.
/// Logarithms of scales below -7 count as -7. No gradient reaches `x`.
///
/// # Errors
/// Shapes that do not fit; fewer than two levels; a mixture without components, or for channels other than 1 and 3.
pub fn discretized_logistic_log_prob(
    parameters: &Tensor,
    x: &Tensor,
    levels: usize,
    form: LogisticForm,
) -> Result<Tensor> {
    let op = "discretized_logistic_log_prob";
    let [batch, channels, height, width] = x.dims() else {
        return Err(fault(op, format!("pixels {:?} must have 4 dimensions", x.dims())));
    };
    let known = match form {
        LogisticForm::Single => true,
        LogisticForm::Mixture(m) => m > 0 && matches!(channels, 1 | 3),
    };
    if !known || levels < 2 {
        return Err(fault(op, format!("{form:?} with {levels} levels is not for {channels} channels")));
    }
    let s = form.logistics(*channels, height * width, 1.0 / (levels - 1) as f64);
    if parameters.dims() != [*batch, s.planes(), *height, *width] {
        let (parameters, planes) = (parameters.dims(), s.planes());
        return Err(fault(
            op,
            format!("parameters {parameters:?} must have {planes} channels for pixels {:?}", x.dims()),
        ));
    }
    if !has_kernel(parameters) {
        return composed::discretized_logistic_log_prob(&s, parameters, x);
    }
    apply2(DiscretizedLogistic(s), [parameters, &x.detach()])
}

struct DiscretizedLogistic(Logistics);

impl Op<2> for DiscretizedLogistic {
    const NAME: &'static str = "discretized_logistic_log_prob";

    fn forward<T: Float>(&self, [parameters, x]: [View<'_, T>; 2]) -> (Vec<T>, Shape) {
        (log_prob(&self.0, parameters.data, x.data), x.dims[0].into())
    }

    fn backward<T: Float>(
        &self,
        [parameters, x]: [View<'_, T>; 2],
        _: View<'_, T>,
        gy: &[T],
        needed: [bool; 2],
    ) -> [Option<Vec<T>>; 2] {
        [needed[0].then(|| log_prob_gradient(&self.0, parameters.data, x.data, gy)), None]
    }
}
