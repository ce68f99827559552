use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use lsgm_core::{Error, Result};

use super::device;
use super::slices::square_norm;
use crate::kernels::device::serves_f32;
use crate::ops::has_kernel;

/// Gradients of named parameters, in the order of the parameters.
#[derive(Debug, Clone)]
pub struct Gradients(Vec<(String, Option<Tensor>)>);

impl Gradients {
    /// The gradients of `vars`; a parameter that the loss does not depend on has none.
    pub fn collect(store: &GradStore, vars: &[(String, Var)]) -> Self {
        Self(vars.iter().map(|(name, var)| (name.clone(), store.get(var.as_tensor()).cloned())).collect())
    }

    /// The gradient of `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|(n, _)| n == name).and_then(|(_, g)| g.as_ref())
    }

    /// Names and gradients in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&Tensor>)> {
        self.0.iter().map(|(name, g)| (name.as_str(), g.as_ref()))
    }

    /// Parameters without a gradient.
    pub fn missing(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, g)| g.is_none()).map(|(name, _)| name.as_str()).collect()
    }

    /// The Euclidean norm over all parameters, accumulated in `f64` in a fixed order. NaN or infinite when a gradient
    /// is.
    ///
    /// # Errors
    /// A gradient that is not `f32` or `f64`.
    pub fn norm(&self) -> Result<f64> {
        Ok(self.norm_tensor()?.to_scalar::<f64>()?)
    }

    /// [`Gradients::norm`] as a scalar (`f64`) on the device of the gradients, which the host does not wait for.
    ///
    /// # Errors
    /// As [`Gradients::norm`].
    pub fn norm_tensor(&self) -> Result<Tensor> {
        let gradients: Vec<&Tensor> = self.0.iter().filter_map(|(_, g)| g.as_ref()).collect();
        if gradients.first().is_some_and(|g| !has_kernel(g)) {
            if gradients.iter().all(|g| serves_f32(g)) {
                let gradients = gradients.iter().map(|g| g.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
                let gradients: Vec<&Tensor> = gradients.iter().collect();
                return device::norm(gradients[0].device(), &gradients);
            }
            let squares = gradients.iter().map(|g| g.sqr()?.sum_all()).collect::<candle_core::Result<Vec<_>>>()?;
            return Ok(Tensor::stack(&squares, 0)?.to_dtype(DType::F64)?.sum_all()?.sqrt()?);
        }
        let mut total = 0.0;
        for g in gradients {
            total += square_norm(g)?;
        }
        Ok(Tensor::new(total.sqrt(), &Device::Cpu)?)
    }

    /// Whether every gradient is finite.
    ///
    /// # Errors
    /// As [`Gradients::norm`].
    pub fn is_finite(&self) -> Result<bool> {
        Ok(self.norm()?.is_finite())
    }

    /// Add the gradients of another batch.
    ///
    /// # Errors
    /// Other parameters.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        if self.0.len() != other.0.len() || self.0.iter().zip(&other.0).any(|(a, b)| a.0 != b.0) {
            return Err(Error::contract("gradients", "gradients of different parameters cannot be added"));
        }
        for ((_, mine), (_, theirs)) in self.0.iter_mut().zip(&other.0) {
            *mine = match (mine.take(), theirs) {
                (Some(a), Some(b)) => Some((a + b)?),
                (a, b) => a.or_else(|| b.clone()),
            };
        }
        Ok(())
    }

    /// Multiply every gradient by `factor`.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        for (_, g) in &mut self.0 {
            if let Some(t) = g {
                *g = Some((&*t * factor)?);
            }
        }
        Ok(())
    }
}
