use candle_core::Tensor;
use lsgm_core::{Error, Init, Params, Result};

use crate::init;
use crate::ops::{self, Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig};

fn per_group(what: &str, channels: usize, groups: usize) -> Result<usize> {
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Error::contract(what, format!("{groups} groups do not divide {channels} channels")));
    }
    Ok(channels / groups)
}

macro_rules! conv_layer {
    (
        $(#[$doc:meta])* $name:ident, $config:ty, $kernel:ty, $function:path,
        |$k:ident| $kernel_dims:expr, |$inputs:ident, $outputs:ident| ($rows:expr, $columns:expr)
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            weight: Tensor,
            bias: Option<Tensor>,
            config: $config,
        }

        impl $name {
            /// With PyTorch's default initialisation, uniform in ±1/√fan.
            ///
            /// # Errors
            /// Groups that do not divide the channels, or a store that has a parameter with another shape.
            pub fn new(
                inputs: usize,
                outputs: usize,
                kernel: $kernel,
                config: $config,
                bias: bool,
                params: &Params,
            ) -> Result<Self> {
                let dims = Self::weight_dims(inputs, outputs, kernel, &config)?;
                let init = init::uniform_fan_in(dims[1..].iter().product());
                Self::new_with(inputs, outputs, kernel, config, bias.then_some(init), init, params)
            }

            /// With given initialisations; no bias for `None`.
            ///
            /// # Errors
            /// As [`Self::new`].
            pub fn new_with(
                inputs: usize,
                outputs: usize,
                kernel: $kernel,
                config: $config,
                bias: Option<Init>,
                weight: Init,
                params: &Params,
            ) -> Result<Self> {
                let dims = Self::weight_dims(inputs, outputs, kernel, &config)?;
                Ok(Self {
                    weight: params.get("weight", dims, weight)?,
                    bias: bias.map(|init| params.get("bias", outputs, init)).transpose()?,
                    config,
                })
            }

            fn weight_dims($inputs: usize, $outputs: usize, $k: $kernel, config: &$config) -> Result<Vec<usize>> {
                per_group(stringify!($name), $inputs, config.groups)?;
                per_group(stringify!($name), $outputs, config.groups)?;
                let mut dims = vec![$rows, $columns / config.groups];
                dims.extend($kernel_dims);
                Ok(dims)
            }

            /// Apply the layer.
            ///
            /// # Errors
            /// Another number of channels, or a kernel larger than the padded input.
            pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
                $function(x, &self.weight, self.bias.as_ref(), &self.config)
            }
        }
    };
}

conv_layer!(
    /// Convolution of `[B, inputs, H, W]`; see [`ops::conv2d`].
    ///
    /// Parameters: `weight` `[outputs, inputs/groups, kh, kw]`, `bias` `[outputs]`.
    Conv2d, Conv2dConfig, (usize, usize), ops::conv2d,
    |k| [k.0, k.1], |inputs, outputs| (outputs, inputs)
);
conv_layer!(
    /// Convolution of `[B, inputs, L]`; see [`ops::conv1d`].
    ///
    /// Parameters: `weight` `[outputs, inputs/groups, k]`, `bias` `[outputs]`.
    Conv1d, Conv1dConfig, usize, ops::conv1d,
    |k| [k], |inputs, outputs| (outputs, inputs)
);
conv_layer!(
    /// Transposed convolution of `[B, inputs, H, W]`; see [`ops::conv_transpose2d`].
    ///
    /// Parameters: `weight` `[inputs, outputs/groups, kh, kw]`, `bias` `[outputs]`.
    ConvTranspose2d, ConvTranspose2dConfig, (usize, usize), ops::conv_transpose2d,
    |k| [k.0, k.1], |inputs, outputs| (inputs, outputs)
);
conv_layer!(
    /// Transposed convolution of `[B, inputs, L]`; see [`ops::conv_transpose1d`].
    ///
    /// Parameters: `weight` `[inputs, outputs/groups, k]`, `bias` `[outputs]`.
    ConvTranspose1d, ConvTranspose1dConfig, usize, ops::conv_transpose1d,
    |k| [k], |inputs, outputs| (inputs, outputs)
);
