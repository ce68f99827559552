//! How parameters start. Each function returns an [`Init`] for a fan (the number of inputs of one output).

pub use lsgm_core::Init;

/// Every element zero: the last layer of a residual branch.
pub fn zeros() -> Init {
    Init::Const(0.0)
}

/// Every element one: the scale of a normalisation.
pub fn ones() -> Init {
    Init::Const(1.0)
}

/// Uniform in ±1/√fan: PyTorch's default for linear and convolutional layers, weights and biases alike.
pub fn uniform_fan_in(fan_in: usize) -> Init {
    Init::Uniform(1.0 / (fan_in.max(1) as f64).sqrt())
}

/// Normal with variance 2/fan (He et al. 2015), for rectifiers.
pub fn he_normal(fan_in: usize) -> Init {
    Init::Normal((2.0 / fan_in.max(1) as f64).sqrt())
}

/// Uniform with variance 2/(fan_in + fan_out) (Glorot & Bengio 2010).
pub fn glorot_uniform(fan_in: usize, fan_out: usize) -> Init {
    Init::Uniform((6.0 / (fan_in + fan_out).max(1) as f64).sqrt())
}

/// Uniform with variance `scale`/mean(fan_in, fan_out): the initialiser of the DDPM and NCSN++ networks, which take
/// `scale` 1 inside and 1e-10 for a last layer.
pub fn variance_scaling(scale: f64, fan_in: usize, fan_out: usize) -> Init {
    let mean = (fan_in + fan_out).max(1) as f64 / 2.0;
    Init::Uniform((3.0 * scale / mean).sqrt())
}
