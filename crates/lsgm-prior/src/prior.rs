use std::f64::consts::PI;
use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor, Var};
use lsgm_core::{Error, LatentShape, Params, Pass, Result, Rng};

use crate::baseline::NormalBaseline;
use crate::networks::ScoreNetwork;
use crate::{MixedScore, Prediction, PriorConfig, Sde, Times, Weighting};

/// The score-based generative prior over latents `[B, C, *spatial]`: an SDE, a score network, and the mixed score.
///
/// Built on frozen parameters ([`lsgm_core::ParamStore::frozen_root`]) no gradient reaches or is computed for them;
/// that is what sampling, ODE likelihoods and the encoder's half of algorithm 3 want.
#[derive(Clone)]
pub struct Prior {
    sde: Sde,
    shape: LatentShape,
    t_eps: f64,
    mixed: Option<MixedScore>,
    active: Option<Var>,
    prediction: Prediction,
    network: Arc<dyn ScoreNetwork>,
    guidance: Option<Guidance>,
    baseline: NormalBaseline,
}

/// How a prior is guided in sampling ([`Prior::guided`]).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    /// How often what the network knows from the context counts ([`ScoreNetwork::guided`]).
    pub strength: f64,
    /// The time from which on down to 0 it does; before, where the noise hides what a sample is to be about, the prior is
    /// itself, which keeps its variety (Kynkäänniemi et al. 2024, arXiv 2404.07724).
    pub below: f64,
}

impl std::fmt::Debug for Prior {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prior").field("sde", &self.sde).field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Prior {
    /// The prior of a config. Parameters: `mixing_logit` `[1, C, 1(, 1)]` and `network.…` below `params`; buffer:
    /// `active_channels` where the config asks for it.
    ///
    /// # Errors
    /// [`Error::Config`] as [`PriorConfig::validate`].
    pub fn new(config: &PriorConfig, shape: LatentShape, params: &Params) -> Result<Self> {
        config.validate(&shape)?;
        let mixed = config.mixed.then(|| MixedScore::new(&shape, config.alpha_init, params)).transpose()?;
        let active =
            config.mask_inactive.then(|| params.buffer("active_channels", shape.channel_dims(), 1.0)).transpose()?;
        let sde = Sde::new(&config.sde)?;
        let network = config.network.build(shape, &sde, &params.pp("network"))?.into();
        let baseline = NormalBaseline::new(&sde, &shape, config.t_eps)?;
        let (t_eps, prediction, guidance) = (config.t_eps, config.prediction, None);
        Ok(Self { sde, shape, t_eps, mixed, active, prediction, network, guidance, baseline })
    }

    /// A prior around a given score network, such as an exact score. Without a mixed score α is 1.
    ///
    /// # Errors
    /// [`Error::Config`] when `t_eps` is no valid cut-off.
    pub fn with_network(
        sde: Sde,
        shape: LatentShape,
        t_eps: f64,
        mixed: Option<MixedScore>,
        network: Box<dyn ScoreNetwork>,
    ) -> Result<Self> {
        sde.check_t_eps("prior.t_eps", t_eps)?;
        let baseline = NormalBaseline::new(&sde, &shape, t_eps)?;
        let (active, prediction, network, guidance) = (None, Prediction::Noise, network.into(), None);
        Ok(Self { sde, shape, t_eps, mixed, active, prediction, network, guidance, baseline })
    }

    /// The same prior for samples whose latents agree with each other more than they do under the prior itself, for a
    /// strength above 1 ([`ScoreNetwork::guided`]). It is no density of anything: bounds are those of the prior itself.
    pub fn guided(&self, guidance: Guidance) -> Self {
        Self { guidance: Some(guidance).filter(|g| g.strength != 1.0), ..self.clone() }
    }

    /// The SDE.
    pub fn sde(&self) -> &Sde {
        &self.sde
    }

    /// The shape of the latents.
    pub fn shape(&self) -> LatentShape {
        self.shape
    }

    pub(crate) fn baseline(&self) -> &NormalBaseline {
        &self.baseline
    }

    /// The cut-off of time.
    pub fn t_eps(&self) -> f64 {
        self.t_eps
    }

    /// Whether the score network starts from encoded data: [`Prior::fit`].
    pub fn fits(&self) -> bool {
        self.network.fits()
    }

    /// Let the score network start from encoded data, means and variances `[N, C, *spatial]` of posteriors.
    ///
    /// # Errors
    /// [`Error::Contract`] for another shape of latents, or when the prior is built on frozen parameters.
    pub fn fit(&self, mean: &Tensor, variance: &Tensor, rng: &mut Rng) -> Result<()> {
        self.shape.check("prior", mean)?;
        self.shape.check("prior", variance)?;
        self.network.fit(mean, variance, rng)
    }

    /// α of each channel; 0 for inactive channels, all 1 without the mixed score.
    pub fn alpha(&self) -> Result<Vec<f64>> {
        let mut alpha = match &self.mixed {
            Some(mixed) => mixed.values()?,
            None => vec![1.0; self.shape.channels],
        };
        if let Some(active) = &self.active {
            let active: Vec<f64> = active.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
            alpha.iter_mut().zip(active).for_each(|(alpha, active)| *alpha *= active);
        }
        Ok(alpha)
    }

    /// Declare which channels are active. The others are modelled as N(0, I), and the network sees zeros in their place,
    /// so that the cross entropy stays a bound.
    ///
    /// # Errors
    /// [`Error::Config`] when the prior was built without `mask_inactive`, [`Error::Contract`] for a wrong number of
    /// channels.
    pub fn set_active_channels(&self, channels: &[bool]) -> Result<()> {
        let Some(active) = &self.active else {
            return Err(Error::config("prior.mask_inactive", "must be true for channels to be masked"));
        };
        if channels.len() != self.shape.channels {
            let message = format!("{} flags for {} channels", channels.len(), self.shape.channels);
            return Err(Error::contract("active channels", message));
        }
        let values: Vec<f64> = channels.iter().map(|&on| f64::from(u8::from(on))).collect();
        let mask = Tensor::from_vec(values, self.shape.channel_dims(), &Device::Cpu)?;
        Ok(active.set(&mask.to_dtype(active.dtype())?.to_device(active.device())?)?)
    }

    /// `ε_θ(z_t, t)`, the mixed score network's estimate of the noise in `z_t` `[B, C, *spatial]` at times `t` `[B]`.
    pub fn epsilon(&self, z_t: &Tensor, t: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
        self.epsilon_at(z_t, &t.to_dtype(DType::F64)?.to_vec1::<f64>()?, pass)
    }

    /// [`Prior::epsilon`] for times in full precision, one per item.
    pub fn epsilon_at(&self, z_t: &Tensor, t: &[f64], pass: &mut Pass<'_>) -> Result<Tensor> {
        Ok(self.estimate(z_t, t, None, pass)?.0)
    }

    /// [`Prior::epsilon_at`], and the loss `[B]` that the network adds to the objective where it is shown the latents `z_0`.
    pub(crate) fn estimate(
        &self,
        z_t: &Tensor,
        t: &[f64],
        z_0: Option<&Tensor>,
        pass: &mut Pass<'_>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        self.shape.check("prior", z_t)?;
        let times = Tensor::new(t, &Device::Cpu)?;
        let visible = match &self.active {
            Some(active) => z_t.broadcast_mul(active.as_tensor())?,
            None => z_t.clone(),
        };
        // Samplers take all items of a batch through the same times.
        let guidance = self.guidance.filter(|g| t.iter().all(|t| *t <= g.below));
        let (output, loss) = match (z_0, guidance) {
            (Some(z_0), _) => self.network.forward_to(&visible, &times, z_0, pass)?,
            (None, Some(g)) => (self.network.guided(&visible, &times, g.strength, pass)?, None),
            (None, None) => (self.network.forward(&visible, &times, pass)?, None),
        };
        self.shape.check("score network", &output)?;
        let normal = self.per_item(t, |t| self.sde.mixing_coefficient(t), z_t)?.broadcast_mul(z_t)?;
        let epsilon = match self.prediction {
            Prediction::Noise => output,
            Prediction::Correction => {
                (&normal + output.broadcast_mul(&self.per_item(t, |t| self.sde.sigma(t), z_t)?)?)?
            }
        };
        let Some(alpha) = self.mixing_weights()? else { return Ok((epsilon, loss)) };
        Ok(((&normal + (epsilon - &normal)?.broadcast_mul(&alpha)?)?, loss))
    }

    /// [`Prior::epsilon`] with one time for the whole batch.
    pub fn epsilon_all(&self, z_t: &Tensor, t: f64, pass: &mut Pass<'_>) -> Result<Tensor> {
        self.epsilon_at(z_t, &vec![t; z_t.dims().first().copied().unwrap_or(0)], pass)
    }

    /// The share of the network in the mixture, `None` where it is 1 everywhere.
    fn mixing_weights(&self) -> Result<Option<Tensor>> {
        let alpha = self.mixed.as_ref().map(MixedScore::alpha).transpose()?;
        Ok(match (alpha, &self.active) {
            (Some(alpha), Some(active)) => Some((alpha * active.as_tensor())?),
            (None, Some(active)) => Some(active.as_tensor().clone()),
            (alpha, None) => alpha,
        })
    }

    /// A function of each item's time as a tensor `[B, 1, 1(, 1)]` in the type and on the device of `like`.
    pub(crate) fn per_item(&self, t: &[f64], value: impl Fn(f64) -> f64, like: &Tensor) -> Result<Tensor> {
        let values: Vec<f64> = t.iter().map(|&t| value(t)).collect();
        column(&values, like)
    }

    /// `n` times for a weighting by inversion of independent uniform numbers, with the prior's own cut-off.
    ///
    /// # Errors
    /// [`Error::Config`] when the SDE has no such weighting.
    pub fn sample_times(&self, weighting: Weighting, n: usize, rng: &mut Rng) -> Result<Times> {
        self.sde.sample_times(weighting, n, self.t_eps, rng)
    }

    /// [`Prior::sample_times`] with times that cover their range evenly: [`Sde::stratified_times`].
    ///
    /// # Errors
    /// As [`Prior::sample_times`].
    pub fn stratified_times(&self, weighting: Weighting, n: usize, rng: &mut Rng) -> Result<Times> {
        self.sde.stratified_times(weighting, n, self.t_eps, rng)
    }

    /// The times that given uniform numbers lead to, with the prior's own cut-off.
    ///
    /// # Errors
    /// As [`Prior::sample_times`].
    pub fn times_at(&self, weighting: Weighting, rho: &[f64]) -> Result<Times> {
        self.sde.times_at(weighting, rho, self.t_eps)
    }

    /// `n` draws of `z_1` from the base distribution, its standard deviation multiplied by `temperature`.
    pub fn sample_base(
        &self,
        n: usize,
        temperature: f64,
        dtype: DType,
        device: &Device,
        rng: &mut Rng,
    ) -> Result<Tensor> {
        Ok((rng.normal_tensor(self.shape.dims(n), dtype, device)? * (temperature * self.sde.base_sigma()))?)
    }

    /// Log-density of `z_1` under the base distribution, `[B]` nats.
    pub fn base_log_prob(&self, z1: &Tensor) -> Result<Tensor> {
        let variance = self.sde.base_sigma().powi(2);
        let constant = 0.5 * self.shape.dim() as f64 * (2.0 * PI * variance).ln();
        Ok(sum_per_item(&z1.sqr()?)?.affine(-0.5 / variance, -constant)?)
    }
}

/// One value per item as `[B, 1, …]` with the rank, type and device of `like`.
pub(crate) fn column(values: &[f64], like: &Tensor) -> Result<Tensor> {
    let mut dims = vec![1; like.rank()];
    if let Some(first) = dims.first_mut() {
        *first = values.len();
    }
    Ok(Tensor::new(values, &Device::Cpu)?.reshape(dims)?.to_dtype(like.dtype())?.to_device(like.device())?)
}

/// The sum over everything but the batch: `[B]`.
pub(crate) fn sum_per_item(x: &Tensor) -> Result<Tensor> {
    Ok(x.flatten_from(1)?.sum(D::Minus1)?)
}
