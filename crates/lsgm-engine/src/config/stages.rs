use lsgm_core::{Error, Result};
use lsgm_nn::optim::{OptimizerConfig, OptimizerKind};
use lsgm_prior::{PriorConfig, Sde, Weighting};
use serde::{Deserialize, Serialize};

use super::checks::{not_negative, positive, share};
use crate::budget::{Budget, seconds};
use crate::schedule::Schedule;

/// Section `[train.vae]`: the autoencoder alone, with an N(0, I) prior.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaeStage {
    /// Length in optimizer steps; 0 trains everything together from scratch. Give one of `steps`, `epochs`,
    /// `time_budget`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Length in passes over the training split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Length in training time, such as `"10m"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_budget: Option<String>,
    /// Optimizer of encoder and decoder.
    pub optimizer: OptimizerConfig,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Share of the stage over which the learning rate rises from 0.
    pub warmup: f64,
    /// Learning rate at the end of the cosine decay, as a share of `learning_rate`.
    pub final_ratio: f64,
    /// Share of the stage over which the weight of the KL term rises to `kl_end`.
    pub kl_annealing: f64,
    /// Weight of the KL term at the start.
    pub kl_start: f64,
    /// Weight that it rises to. Below 1, stage 2 may go on from there (`train.lsgm.kl_start`).
    pub kl_end: f64,
    /// During the annealing, weight the KL terms of the posterior's groups by their KL divergence per latent dimension
    /// (NVAE, appendix A), so that groups which say little are not silenced before they are of use.
    pub kl_balance: bool,
    /// Nats that each latent channel, all its positions together and averaged over a batch, may say at no cost (Kingma
    /// et al. 2016, "free bits"); 0 is off. Reported figures are always those of the true bound.
    pub free_bits: f64,
    /// Nats, counted in the same way, below which a channel is taken to be inactive when the stage ends. With
    /// `prior.mask_inactive` such channels are hidden from the score network and keep the N(0, I) prior.
    pub inactive_kl: f64,
    /// Weight of the autoencoder's own penalty where it has one, such as NVAE's on spectral norms and batch-norm scales;
    /// 0 is off.
    pub regularizer: f64,
    /// Weight of that penalty where the KL term has none, if it is to fall to `regularizer` (by factors) as the weight of the
    /// KL term rises to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regularizer_start: Option<f64>,
    /// Largest global gradient norm; longer gradients are scaled down to it.
    pub gradient_clip: f64,
}

impl Default for VaeStage {
    fn default() -> Self {
        Self {
            steps: None,
            epochs: None,
            time_budget: None,
            optimizer: OptimizerConfig { kind: OptimizerKind::Adamax, ..OptimizerConfig::default() },
            learning_rate: 4e-3,
            warmup: 0.02,
            final_ratio: 0.1,
            kl_annealing: 0.2,
            kl_start: 0.1,
            kl_end: 1.0,
            kl_balance: false,
            free_bits: 0.0,
            inactive_kl: 0.1,
            regularizer: 1e-2,
            regularizer_start: None,
            gradient_clip: 200.0,
        }
    }
}

/// Section `[train.lsgm]`: encoder, decoder and score-based prior together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LsgmStage {
    /// Length in optimizer steps. Give one of `steps`, `epochs`, `time_budget`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Length in passes over the training split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Length in training time, such as `"10m"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_budget: Option<String>,
    /// How the gradients of prior and autoencoder are made, 1, 2 or 3 (LSGM, appendix G): 1 trains both on one loss with a
    /// likelihood weighting; 2 weights the same diffusion times differently for the prior; 3 draws times of their own.
    pub algorithm: u8,
    /// How diffusion times are drawn and weighted for the prior. Algorithm 1 needs one of the likelihood
    /// weightings, whose names begin with `ll-`.
    pub weighting: Weighting,
    /// How they are drawn for the autoencoder under algorithm 3: by a likelihood weighting, one of the names with `ll-`.
    pub encoder_weighting: Weighting,
    /// Average the noise that the prior is to find over the posterior in closed form, instead of drawing `z_0` from it. The
    /// expectation is the same and the variance lower. In a hierarchy it is the last group that is averaged over.
    pub analytic_posterior: bool,
    /// Under algorithm 3, let the moving average of the prior be what the encoder is trained against.
    pub averaged_prior: bool,
    /// Train the prior alone, on the latents of a frozen autoencoder, as a comparison.
    pub prior_only: bool,
    /// Share of the stage over which the weight of entropy and cross entropy rises to 1.
    pub kl_annealing: f64,
    /// Weight of entropy and cross entropy at the start.
    pub kl_start: f64,
    /// During the annealing, weight the terms of the posterior's groups as in stage 1, with their KL divergences to
    /// N(0, I); for the encoder alone.
    pub kl_balance: bool,
    /// Share of the stage over which the encoder is led over from N(0, I), the prior of stage 1, to the score-based prior:
    /// the gradient that it receives from what the prior says beyond N(0, I) rises from 0 to 1. Keeps the first steps of
    /// a prior that knows nothing yet from disturbing the encoder.
    pub encoder_gradient_warmup: f64,
    /// Weight of the autoencoder's own penalty, as in stage 1.
    pub regularizer: f64,
    /// Weight of the same penalty on the prior, on the spectral norms of its convolutions and the largest scale of each group
    /// norm; 0 is off.
    pub prior_regularizer: f64,
    /// Whether that penalty has the spectral norms in it.
    pub prior_regularizer_spectral: bool,
    /// Optimizer of the prior.
    pub prior_optimizer: OptimizerConfig,
    /// Highest learning rate of the prior.
    pub prior_learning_rate: f64,
    /// Optimizer of encoder and decoder.
    pub vae_optimizer: OptimizerConfig,
    /// Highest learning rate of encoder and decoder.
    pub vae_learning_rate: f64,
    /// Share of the stage over which the learning rates rise from 0.
    pub warmup: f64,
    /// Learning rates at the end of the cosine decay, as a share of the highest.
    pub final_ratio: f64,
    /// The same for encoder and decoder, where it is to be another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae_final_ratio: Option<f64>,
    /// Largest global gradient norm of each of the two parts; longer gradients are scaled down to it.
    pub gradient_clip: f64,
}

impl Default for LsgmStage {
    fn default() -> Self {
        Self {
            steps: None,
            epochs: None,
            time_budget: None,
            algorithm: 1,
            weighting: Weighting::LlIw,
            encoder_weighting: Weighting::LlIw,
            analytic_posterior: true,
            averaged_prior: false,
            prior_only: false,
            kl_annealing: 0.0,
            kl_start: 1.0,
            kl_balance: false,
            encoder_gradient_warmup: 0.0,
            regularizer: 1e-2,
            prior_regularizer: 0.0,
            prior_regularizer_spectral: true,
            prior_optimizer: OptimizerConfig { kind: OptimizerKind::AdamW, ..OptimizerConfig::default() },
            prior_learning_rate: 1e-3,
            vae_optimizer: OptimizerConfig { kind: OptimizerKind::Adamax, ..OptimizerConfig::default() },
            vae_learning_rate: 1e-3,
            warmup: 0.02,
            final_ratio: 0.01,
            vae_final_ratio: None,
            gradient_clip: 200.0,
        }
    }
}

/// The length of a stage as a config states it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StageBudget {
    /// Optimizer steps.
    Steps(u64),
    /// Passes over the training split.
    Epochs(f64),
    /// Training time.
    Seconds(f64),
}

impl StageBudget {
    fn read(section: &str, steps: Option<u64>, epochs: Option<f64>, time_budget: Option<&str>) -> Result<Self> {
        match (steps, epochs, time_budget) {
            (Some(n), None, None) => Ok(Self::Steps(n)),
            (None, Some(n), None) if n.is_finite() && n >= 0.0 => Ok(Self::Epochs(n)),
            (None, Some(n), None) => {
                Err(Error::config(format!("{section}.epochs"), format!("{n} is not a number of epochs")))
            }
            (None, None, Some(text)) => Ok(Self::Seconds(seconds(&format!("{section}.time_budget"), text)?)),
            _ => Err(Error::config(section, "give exactly one of `steps`, `epochs` and `time_budget`")),
        }
    }

    /// The budget for an epoch of `steps_per_epoch`.
    pub(crate) fn is_zero(self) -> bool {
        match self {
            Self::Steps(n) => n == 0,
            Self::Epochs(n) | Self::Seconds(n) => n == 0.0,
        }
    }

    pub(crate) fn resolve(self, steps_per_epoch: f64) -> Budget {
        match self {
            Self::Steps(n) => Budget::Steps(n),
            Self::Epochs(n) => Budget::Steps((n * steps_per_epoch).ceil() as u64),
            Self::Seconds(s) => Budget::Seconds(s),
        }
    }
}

impl VaeStage {
    /// Check every value.
    pub(super) fn validate(&self) -> Result<()> {
        self.budget()?;
        self.optimizer.validate("train.vae.optimizer")?;
        positive("train.vae.learning_rate", self.learning_rate)?;
        positive("train.vae.gradient_clip", self.gradient_clip)?;
        for (key, value) in [
            ("warmup", self.warmup),
            ("final_ratio", self.final_ratio),
            ("kl_annealing", self.kl_annealing),
            ("kl_start", self.kl_start),
            ("kl_end", self.kl_end),
        ] {
            share(&format!("train.vae.{key}"), value)?;
        }
        not_negative("train.vae.free_bits", self.free_bits)?;
        not_negative("train.vae.inactive_kl", self.inactive_kl)?;
        not_negative("train.vae.regularizer", self.regularizer)?;
        if let Some(start) = self.regularizer_start {
            positive("train.vae.regularizer_start", start)?;
            positive("train.vae.regularizer", self.regularizer)?;
            if self.kl_annealing == 0.0 {
                let message = "it falls while the weight of the KL term rises, but train.vae.kl_annealing is 0";
                return Err(Error::config("train.vae.regularizer_start", message));
            }
        }
        balanced("train.vae", self.kl_balance, self.kl_annealing)
    }

    /// The length of the stage.
    ///
    /// # Errors
    /// Unless exactly one of `steps`, `epochs`, `time_budget` is given and valid.
    pub fn budget(&self) -> Result<StageBudget> {
        StageBudget::read("train.vae", self.steps, self.epochs, self.time_budget.as_deref())
    }

    pub(crate) fn schedule(&self) -> Schedule {
        Schedule { warmup: self.warmup, final_ratio: self.final_ratio }
    }

    /// The weight of the KL term at a share of the stage.
    pub(crate) fn kl_weight(&self, progress: f64) -> f64 {
        annealed(self.kl_start, self.kl_end, self.kl_annealing, progress)
    }

    /// The weight of the autoencoder's own penalty at a share of the stage.
    pub(crate) fn regularizer_weight(&self, progress: f64) -> f64 {
        match self.regularizer_start {
            None => self.regularizer,
            Some(start) => start * (self.regularizer / start).powf(self.kl_weight(progress)),
        }
    }
}

/// From `start` to `end` over the first `share` of a stage.
fn annealed(start: f64, end: f64, share: f64, progress: f64) -> f64 {
    if share <= 0.0 { end } else { start + (end - start) * (progress / share).min(1.0) }
}

impl LsgmStage {
    /// Check every value.
    pub(super) fn validate(&self) -> Result<()> {
        self.budget()?;
        self.prior_optimizer.validate("train.lsgm.prior_optimizer")?;
        self.vae_optimizer.validate("train.lsgm.vae_optimizer")?;
        positive("train.lsgm.prior_learning_rate", self.prior_learning_rate)?;
        positive("train.lsgm.vae_learning_rate", self.vae_learning_rate)?;
        positive("train.lsgm.gradient_clip", self.gradient_clip)?;
        share("train.lsgm.warmup", self.warmup)?;
        share("train.lsgm.final_ratio", self.final_ratio)?;
        share("train.lsgm.vae_final_ratio", self.vae_final_ratio.unwrap_or(self.final_ratio))?;
        share("train.lsgm.kl_annealing", self.kl_annealing)?;
        share("train.lsgm.kl_start", self.kl_start)?;
        share("train.lsgm.encoder_gradient_warmup", self.encoder_gradient_warmup)?;
        not_negative("train.lsgm.regularizer", self.regularizer)?;
        not_negative("train.lsgm.prior_regularizer", self.prior_regularizer)?;
        balanced("train.lsgm", self.kl_balance, self.kl_annealing)?;
        self.check_algorithm()
    }

    /// The length of the stage.
    ///
    /// # Errors
    /// Unless exactly one of `steps`, `epochs`, `time_budget` is given and valid.
    pub fn budget(&self) -> Result<StageBudget> {
        StageBudget::read("train.lsgm", self.steps, self.epochs, self.time_budget.as_deref())
    }

    /// Refuse weightings that the SDE of the prior does not have.
    ///
    /// # Errors
    /// [`Error::Config`] with the list of those that are defined.
    pub fn check_sde(&self, sde: &Sde) -> Result<()> {
        self.weighting.check("train.lsgm.weighting", sde)?;
        self.encoder_weighting.check("train.lsgm.encoder_weighting", sde)
    }

    /// Check the values that depend on the prior.
    ///
    /// # Errors
    /// [`Error::Config`] for a term of the prior's own where prior and encoder share one pass through the network, for a
    /// penalty on convolutions where the network has none, and as [`LsgmStage::check_sde`].
    pub fn validate_with(&self, prior: &PriorConfig) -> Result<()> {
        self.check_sde(&Sde::new(&prior.sde)?)?;
        if prior.network.has_loss() && !self.prior_only && self.algorithm != 3 {
            let message = format!(
                "belongs to an objective of the prior alone, and algorithm {} has none: set train.lsgm.prior_only = true or \
                 train.lsgm.algorithm = 3, or leave it at 0",
                self.algorithm
            );
            return Err(Error::config("prior.network.category_weight", message));
        }
        if self.prior_regularizer > 0.0 && !prior.network.has_convolutions() {
            let message = "is for networks of convolutions, and this prior.network has none: leave it at 0";
            return Err(Error::config("train.lsgm.prior_regularizer", message));
        }
        Ok(())
    }

    fn check_algorithm(&self) -> Result<()> {
        let likelihood = || {
            let names = Weighting::ALL.iter().filter(|w| w.is_likelihood()).map(|w| format!("`{}`", w.name()));
            names.collect::<Vec<_>>().join(", ")
        };
        if !(1..=3).contains(&self.algorithm) {
            return Err(Error::config(
                "train.lsgm.algorithm",
                format!("there is no algorithm {}: use 1, 2 or 3", self.algorithm),
            ));
        }
        if self.algorithm == 1 && !self.prior_only && !self.weighting.is_likelihood() {
            let message =
                format!("algorithm 1 needs a likelihood weighting, {}; algorithms 2 and 3 take any", likelihood());
            return Err(Error::config("train.lsgm.weighting", message));
        }
        if !self.encoder_weighting.is_likelihood() {
            let message = format!(
                "the encoder needs a likelihood weighting, {}: with another it drifts from the posterior",
                likelihood()
            );
            return Err(Error::config("train.lsgm.encoder_weighting", message));
        }
        if self.averaged_prior && self.algorithm != 3 {
            return Err(Error::config("train.lsgm.averaged_prior", "belongs to algorithm 3"));
        }
        Ok(())
    }

    /// The weight of entropy and cross entropy at a share of the stage.
    pub(crate) fn kl_weight(&self, progress: f64) -> f64 {
        annealed(self.kl_start, 1.0, self.kl_annealing, progress)
    }

    /// The share of the score-based prior, as against N(0, I), in what the encoder is trained on.
    pub(crate) fn encoder_share(&self, progress: f64) -> f64 {
        annealed(0.0, 1.0, self.encoder_gradient_warmup, progress)
    }

    pub(crate) fn prior_schedule(&self) -> Schedule {
        Schedule { warmup: self.warmup, final_ratio: self.final_ratio }
    }

    pub(crate) fn vae_schedule(&self) -> Schedule {
        Schedule { final_ratio: self.vae_final_ratio.unwrap_or(self.final_ratio), ..self.prior_schedule() }
    }
}

/// KL balancing has a meaning only while the KL terms are annealed.
fn balanced(section: &str, balance: bool, annealing: f64) -> Result<()> {
    if balance && annealing == 0.0 {
        let message = "balances during the annealing: give kl_annealing a share above 0, such as 0.2";
        return Err(Error::config(format!("{section}.kl_balance"), message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_penalty_falls_by_factors_as_the_kl_weight_rises() {
        let stage = VaeStage { kl_start: 0.0, kl_end: 1.0, kl_annealing: 0.5, ..VaeStage::default() };
        let stage = VaeStage { regularizer: 0.01, regularizer_start: Some(1.0), ..stage };
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        for (progress, weight) in [(0.0, 1.0), (0.25, 0.1), (0.5, 0.01), (1.0, 0.01)] {
            close(stage.regularizer_weight(progress), weight);
        }
        close(VaeStage { regularizer_start: None, ..stage }.regularizer_weight(0.0), 0.01);
    }

    #[test]
    fn the_rate_of_the_autoencoder_can_fall_by_itself() {
        let stage = LsgmStage { final_ratio: 1.0, vae_final_ratio: Some(0.1), warmup: 0.0, ..LsgmStage::default() };
        assert_eq!((stage.prior_schedule().factor(1.0), stage.vae_schedule().factor(1.0)), (1.0, 0.1));
        assert_eq!(LsgmStage { vae_final_ratio: None, ..stage }.vae_schedule().factor(1.0), 1.0);
    }

    #[test]
    fn the_kl_weight_can_stop_below_one() {
        let stage = VaeStage { kl_start: 0.1, kl_end: 0.7, kl_annealing: 0.5, ..VaeStage::default() };
        let weights = [0.0, 0.25, 0.5, 1.0].map(|p| (stage.kl_weight(p) * 100.0).round());
        assert_eq!(weights, [10.0, 40.0, 70.0, 70.0]);
        assert_eq!(VaeStage { kl_annealing: 0.0, ..stage }.kl_weight(0.0), 0.7);
    }
}
