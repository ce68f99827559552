//! Differentiable operations with hand-written kernels.
//!
//! Each takes tensors of any layout, `f32` or `f64`, and computes the gradients of those inputs only that lead to a
//! variable. None has a second derivative. On a GPU they are kernels or composed of tensor operations; activations may be
//! `bf16` there, together with parameters in `f32`.

mod activation;
mod affine;
mod attention;
mod bilinear;
mod components;
mod composed;
mod conv;
#[cfg(any(test, feature = "cudnn"))]
mod cudnn;
mod custom;
mod device;
mod diffused_gaussians;
mod embedding;
mod gated_residual;
mod likelihood;
mod linear;
mod logistic;
mod logistic_mixture;
mod mask;
mod modulation;
mod norm;
mod resample;
mod rotary;
mod scale_gradient;
mod self_attention;
mod snake;
mod softmax;
mod spectral;
mod weight_norm;

pub use activation::{elu, gelu, relu, sigmoid, silu, softplus};
pub use attention::attention;
pub use bilinear::upsample_bilinear2d;
pub use components::{component_shares, expected_factors};
pub use conv::{
    Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig, conv_transpose1d, conv_transpose2d,
    conv1d, conv2d,
};
pub(crate) use custom::has_kernel;
pub use custom::{is_synchronous, without_kernels};
pub use diffused_gaussians::diffused_gaussians;
pub use embedding::embedding;
pub use gated_residual::gated_residual;
pub use likelihood::{bernoulli_log_prob, categorical_log_prob};
pub use linear::linear;
pub use logistic::{LogisticForm, discretized_logistic_log_prob};
pub use logistic_mixture::logistic_mixture_log_prob;
pub use mask::{dropout, mask};
pub use modulation::{gated_sum, modulated_layer_norm};
pub use norm::{Activation, batch_norm_eval, batch_norm_train, group_norm, layer_norm, rms_norm};
pub use resample::{avg_pool1d, avg_pool2d, global_avg_pool, squeeze_excite, upsample_nearest1d, upsample_nearest2d};
pub use rotary::rotary;
pub use scale_gradient::scale_gradient;
pub use self_attention::self_attention;
pub use snake::snake;
pub use softmax::{log_softmax, softmax};
pub use spectral::{spectral_norm, spectral_norms};
pub use weight_norm::weight_norm;
