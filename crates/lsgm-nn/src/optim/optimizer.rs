use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Tensor, Var};
use lsgm_core::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::composed;
use super::device::{self, Piece};
use super::slices::{read, write};
use super::{GradientScale, Gradients};
use crate::kernels::device::serves_f32;
use crate::kernels::optimizer::{Rule, Slices, Step, average, step};
use crate::kernels::{BLOCK, Float};
use crate::ops::has_kernel;

/// How gradients become updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam (Kingma & Ba 2015), weight decay as a part of the gradient.
    Adam,
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019).
    AdamW,
    /// Adam with the infinity norm (Kingma & Ba 2015, section 7.1), weight decay as a part of the gradient.
    Adamax,
}

/// Kind and numbers of an optimizer. The default is Adamax with betas 0.9 and 0.999, eps 1e-8 and no weight decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// How gradients become updates.
    pub kind: OptimizerKind,
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Added to the denominator, positive.
    pub eps: f64,
    /// Pull towards zero, not negative.
    pub weight_decay: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self { kind: OptimizerKind::Adamax, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

impl OptimizerConfig {
    /// Check the numbers; `key` is the config key of this section.
    ///
    /// # Errors
    /// [`Error::Config`] at the first number out of its range.
    pub fn validate(&self, key: &str) -> Result<()> {
        let unit = |v: f64| (0.0..1.0).contains(&v);
        let checks = [
            ("beta1", self.beta1, unit(self.beta1), "must be in [0, 1)"),
            ("beta2", self.beta2, unit(self.beta2), "must be in [0, 1)"),
            ("eps", self.eps, self.eps > 0.0 && self.eps.is_finite(), "must be positive"),
            (
                "weight_decay",
                self.weight_decay,
                self.weight_decay >= 0.0 && self.weight_decay.is_finite(),
                "must not be negative",
            ),
        ];
        match checks.iter().find(|(_, _, good, _)| !good) {
            Some((name, value, _, rule)) => Err(Error::config(format!("{key}.{name}"), format!("{value} {rule}"))),
            None => Ok(()),
        }
    }
}

/// An exponential moving average of the parameters, updated in the pass of a step.
#[derive(Debug, Clone, Copy)]
pub struct Ema<'a> {
    /// Weight of the old average, in [0, 1].
    pub decay: f64,
    /// The averages: names and shapes of the optimizer's parameters, in their order.
    pub averages: &'a [(String, Var)],
}

/// An optimizer with its state: two moments for each parameter, in the parameter's type.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    vars: Vec<(String, Var)>,
    moments: Vec<Moments>,
    steps: u64,
}

#[derive(Debug)]
enum Moments {
    F32(Vec<f32>, Vec<f32>),
    F64(Vec<f64>, Vec<f64>),
    /// On a device without kernels.
    Tensors(Tensor, Tensor),
}

impl Optimizer {
    /// An optimizer for `vars`, which must be contiguous `f32` or `f64`, all on one device.
    ///
    /// # Errors
    /// A parameter of another kind, or a number out of its range.
    pub fn new(config: OptimizerConfig, vars: Vec<(String, Var)>) -> Result<Self> {
        config.validate("optimizer")?;
        let mut seen = HashSet::new();
        if let Some((name, _)) = vars.iter().find(|(_, var)| !seen.insert(var.as_tensor().id())) {
            return Err(Error::contract("optimizer", format!("parameter `{name}` is listed twice")));
        }
        let moments = vars.iter().map(|(name, var)| Moments::zeros(name, var)).collect::<Result<_>>()?;
        Ok(Self { config, vars, moments, steps: 0 })
    }

    /// Number of steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The parameters.
    pub fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    /// One step with learning rate `lr`: every parameter that has a gradient moves, and every average follows.
    ///
    /// Gradients are multiplied by `gradient_scale` first; [`GradientScale::clip`] clips their norm.
    ///
    /// # Errors
    /// Gradients or averages of other parameters.
    pub fn step(
        &mut self,
        gradients: &Gradients,
        lr: f64,
        gradient_scale: impl Into<GradientScale>,
        ema: Option<Ema<'_>>,
    ) -> Result<()> {
        let gradients: Vec<_> = gradients.iter().collect();
        self.check("gradients", gradients.iter().map(|(n, g)| (*n, g.map(Tensor::dims))))?;
        if let Some(ema) = &ema {
            self.check("averages", ema.averages.iter().map(|(n, a)| (n.as_str(), Some(a.dims()))))?;
            if self.vars.iter().zip(ema.averages).any(|((_, p), (_, a))| p.as_tensor().id() == a.as_tensor().id()) {
                return Err(Error::contract("optimizer", "an average is the parameter itself"));
            }
        }
        self.steps += 1;
        let decay = ema.as_ref().map_or(0.0, |e| e.decay);
        let average_of = |i: usize| ema.as_ref().and_then(|e| e.averages.get(i)).map(|(_, average)| average);
        let gradient_scale = gradient_scale.into();
        if self.vars.first().is_some_and(|(_, var)| !has_kernel(var)) {
            return self.step_composed(&gradients, lr, &gradient_scale, ema);
        }
        let step = self.scalars(lr, gradient_scale.number()?, decay);
        self.vars.par_iter().zip(&mut self.moments).zip(&gradients).enumerate().try_for_each(
            |(i, (((_, var), moments), (_, gradient)))| {
                let gradient = gradient.map(Tensor::contiguous).transpose()?;
                let update = Update { step, gradient, moments: Mutex::new(moments), average: average_of(i) };
                var.as_tensor().inplace_op1(&update)
            },
        )?;
        Ok(())
    }

    fn step_composed(
        &mut self,
        gradients: &[(&str, Option<&Tensor>)],
        lr: f64,
        gradient_scale: &GradientScale,
        ema: Option<Ema<'_>>,
    ) -> Result<()> {
        let step = self.scalars(lr, 1.0, ema.as_ref().map_or(0.0, |e| e.decay));
        if let Some((_, var)) = self.vars.first()
            && self.vars.iter().all(|(_, var)| serves_f32(var))
        {
            let device = var.device();
            let scale = gradient_scale.tensor(device)?;
            let gradients = gradients.iter().map(|(_, g)| g.map(Tensor::contiguous).transpose());
            let gradients = gradients.collect::<candle_core::Result<Vec<_>>>()?;
            let averages = ema.map(|e| e.averages);
            let pieces = self.vars.iter().zip(&self.moments).zip(&gradients).enumerate();
            let pieces: Vec<_> = pieces
                .map(|(i, (((_, var), moments), gradient))| Piece {
                    parameter: Some(var.as_tensor()),
                    gradient: gradient.as_ref(),
                    moments: moments.on_device(),
                    average: averages.and_then(|a| a.get(i)).map(|(_, average)| average.as_tensor()),
                })
                .collect();
            return device::step(device, &step, &scale, &pieces);
        }
        for (((_, var), moments), (_, gradient)) in self.vars.iter().zip(&mut self.moments).zip(gradients) {
            if let Some(gradient) = gradient {
                let (m, v) = moments.as_tensors(var)?;
                let (m, v) = composed::update(&step, var, &composed::scaled(gradient, gradient_scale)?, &m, &v)?;
                *moments = Moments::Tensors(m, v);
            }
        }
        if let Some(Ema { decay, averages }) = ema {
            for ((_, var), (_, average)) in self.vars.iter().zip(averages) {
                composed::follow(average, var, decay)?;
            }
        }
        Ok(())
    }

    /// The moments: `<parameter>.m` and `<parameter>.v`.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for ((name, var), moments) in self.vars.iter().zip(&self.moments) {
            let (m, v) = moments.as_tensors(var)?;
            state.insert(format!("{name}.m"), m);
            state.insert(format!("{name}.v"), v);
        }
        Ok(state)
    }

    /// Go on from a stored [`Optimizer::state`] after `steps` steps.
    ///
    /// # Errors
    /// A name that is missing, unknown or of another shape; nothing changes then.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, steps: u64) -> Result<()> {
        if let Some(name) = state.keys().find(|k| !self.owns(k)) {
            return Err(Error::contract("optimizer state", format!("`{name}` belongs to no parameter")));
        }
        let mut moments = Vec::with_capacity(self.vars.len());
        for (name, var) in &self.vars {
            let find = |suffix: &str| -> Result<&Tensor> {
                let key = format!("{name}.{suffix}");
                match state.get(&key) {
                    Some(t) if t.dims() == var.dims() => Ok(t),
                    Some(t) => {
                        let message = format!("`{key}` has shape {:?} instead of {:?}", t.dims(), var.dims());
                        Err(Error::contract("optimizer state", message))
                    }
                    None => Err(Error::contract("optimizer state", format!("`{key}` is missing"))),
                }
            };
            moments.push(Moments::from_tensors(var, find("m")?, find("v")?)?);
        }
        self.moments = moments;
        self.steps = steps;
        Ok(())
    }

    fn owns(&self, key: &str) -> bool {
        let name = key.strip_suffix(".m").or_else(|| key.strip_suffix(".v"));
        name.is_some_and(|name| self.vars.iter().any(|(n, _)| n == name))
    }

    fn check<'a>(
        &self,
        what: &str,
        given: impl ExactSizeIterator<Item = (&'a str, Option<&'a [usize]>)>,
    ) -> Result<()> {
        if given.len() != self.vars.len() {
            let message = format!("{} {what} for {} parameters", given.len(), self.vars.len());
            return Err(Error::contract("optimizer", message));
        }
        for ((name, var), (other, dims)) in self.vars.iter().zip(given) {
            if name != other || dims.is_some_and(|d| d != var.dims()) {
                let message = format!("{what} `{other}` {dims:?} in the place of parameter `{name}` {:?}", var.dims());
                return Err(Error::contract("optimizer", message));
            }
        }
        Ok(())
    }

    fn scalars(&self, lr: f64, gradient_scale: f64, ema_decay: f64) -> Step {
        let c = &self.config;
        // Far beyond the number of steps at which the correction is 1 to the last digit.
        let t = i32::try_from(self.steps).unwrap_or(i32::MAX);
        Step {
            rule: match c.kind {
                OptimizerKind::Adam => Rule::Adam,
                OptimizerKind::AdamW => Rule::AdamW,
                OptimizerKind::Adamax => Rule::Adamax,
            },
            lr,
            beta1: c.beta1,
            beta2: c.beta2,
            eps: c.eps,
            weight_decay: c.weight_decay,
            correction: (1.0 - c.beta1.powi(t), 1.0 - c.beta2.powi(t)),
            gradient_scale,
            ema_decay,
        }
    }
}

impl Moments {
    fn zeros(name: &str, var: &Var) -> Result<Self> {
        let n = var.elem_count();
        match var.dtype() {
            DType::F32 | DType::F64 if !has_kernel(var) => Ok(Self::Tensors(var.zeros_like()?, var.zeros_like()?)),
            DType::F32 => Ok(Self::F32(vec![0.0; n], vec![0.0; n])),
            DType::F64 => Ok(Self::F64(vec![0.0; n], vec![0.0; n])),
            other => Err(Error::contract("optimizer", format!("parameter `{name}` is of type {other:?}"))),
        }
    }

    fn from_tensors(var: &Var, m: &Tensor, v: &Tensor) -> Result<Self> {
        let (dtype, device) = (var.dtype(), var.device());
        let (m, v) = (m.to_dtype(dtype)?.to_device(device)?, v.to_dtype(dtype)?.to_device(device)?);
        if !has_kernel(var) {
            // Moments of one's own: a kernel may change them in place.
            return Ok(Self::Tensors(m.copy()?, v.copy()?));
        }
        let (m, v) = (m.flatten_all()?, v.flatten_all()?);
        Ok(match dtype {
            DType::F64 => Self::F64(m.to_vec1()?, v.to_vec1()?),
            _ => Self::F32(m.to_vec1()?, v.to_vec1()?),
        })
    }

    /// Those that are tensors.
    fn on_device(&self) -> Option<(&Tensor, &Tensor)> {
        if let Self::Tensors(m, v) = self { Some((m, v)) } else { None }
    }

    fn as_tensors(&self, var: &Var) -> Result<(Tensor, Tensor)> {
        let (shape, device) = (var.shape(), var.device());
        Ok(match self {
            Self::Tensors(m, v) => (m.clone(), v.clone()),
            Self::F32(m, v) => (Tensor::from_slice(m, shape, device)?, Tensor::from_slice(v, shape, device)?),
            Self::F64(m, v) => (Tensor::from_slice(m, shape, device)?, Tensor::from_slice(v, shape, device)?),
        })
    }
}

/// The step of one parameter, run on its memory.
struct Update<'a> {
    step: Step,
    gradient: Option<Tensor>,
    moments: Mutex<&'a mut Moments>,
    average: Option<&'a Var>,
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "optimizer step"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let mut moments = self.moments.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &mut **moments {
            Moments::F32(m, v) => self.typed(storage, layout, m, v),
            Moments::F64(m, v) => self.typed(storage, layout, m, v),
            Moments::Tensors(..) => candle_core::bail!("optimizer: its moments belong to another device"),
        }
    }
}

impl Update<'_> {
    fn typed<T: Float>(
        &self,
        storage: &mut CpuStorage,
        layout: &Layout,
        m: &mut [T],
        v: &mut [T],
    ) -> candle_core::Result<()> {
        write::<T, _>(storage, layout, |p| {
            if let Some(gradient) = &self.gradient {
                read::<T, _>(gradient, |g| {
                    p.par_chunks_mut(BLOCK)
                        .zip(g.par_chunks(BLOCK))
                        .zip(m.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK)))
                        .for_each(|((p, g), (m, v))| step(&self.step, Slices { p, g, m, v }));
                })?;
            }
            match self.average {
                Some(average) => average.as_tensor().inplace_op1(&Follow { p, decay: self.step.ema_decay }),
                None => Ok(()),
            }
        })?
    }
}

/// The moving average's part of a step.
struct Follow<'a, T> {
    p: &'a [T],
    decay: f64,
}

impl<T: Float> InplaceOp1 for Follow<'_, T> {
    fn name(&self) -> &'static str {
        "moving average"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        write::<T, _>(storage, layout, |a| {
            a.par_chunks_mut(BLOCK).zip(self.p.par_chunks(BLOCK)).for_each(|(a, p)| average(a, p, T::of(self.decay)));
        })
    }
}
