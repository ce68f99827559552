//! Between the stages: what a prior that is to be trained gets from a trained autoencoder.

use lsgm_core::{Error, ParamStore, Result};

use super::Trainer;
use crate::channels::{channel_kl, encoded};
use crate::events::{Event, Observer};

impl Trainer {
    /// What a prior that is to be trained gets from a trained autoencoder.
    pub(super) fn prepare_prior(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let trained = self.state.ema_steps > 0;
        if trained && self.config.lsgm.prior_only {
            // An autoencoder that is trained no further is the one that is evaluated: its averages.
            copy(&self.ema, &self.store, |name| !name.starts_with("prior."))?;
        }
        self.mask_inactive_channels(observer)?;
        if trained { self.fit_prior() } else { Ok(()) }
    }

    /// Hide the latent channels that stage 1 has left unused from the prior, where its config asks for it.
    fn mask_inactive_channels(&mut self, observer: &mut dyn Observer) -> Result<()> {
        if !self.spec.prior.mask_inactive {
            return Ok(());
        }
        let mut rng = self.rng.fork("inactive channels");
        let model = self.spec.build_frozen(&self.store)?;
        let kl = channel_kl(&model, self.data.as_ref(), self.part_size(), &self.device, &mut rng)?;
        let active: Vec<bool> = kl.iter().map(|kl| *kl >= self.config.vae.inactive_kl).collect();
        if !active.contains(&true) {
            let most = kl.iter().copied().fold(0.0, f64::max);
            let message = format!("no latent channel says more than {most:.3} nats: nothing is left for the prior");
            return Err(Error::config("train.vae.inactive_kl", message));
        }
        self.model.prior.set_active_channels(&active)?;
        self.copy_buffers()?;
        self.write_event(&serde_json::json!({ "step": self.state.step, "channel_kl": kl, "active_channels": active }))?;
        observer.event(&Event::Masked { active: &active })
    }

    /// Let a score network that can do so start from the latents of stage 1.
    fn fit_prior(&mut self) -> Result<()> {
        if !self.model.prior.fits() {
            return Ok(());
        }
        let mut rng = self.rng.fork("fit of the prior");
        let model = self.spec.build_frozen(&self.store)?;
        let (mean, variance) = encoded(&model, self.data.as_ref(), self.part_size(), &self.device, &mut rng)?;
        self.model.prior.fit(&mean, &variance, &mut rng)?;
        // The averages of the prior begin anew, at its weights.
        copy(&self.store, &self.ema, |name| name.starts_with("prior."))
    }
}

/// Set the parameters of `to` that are `chosen` by name to those of `from`.
fn copy(from: &ParamStore, to: &ParamStore, chosen: impl Fn(&str) -> bool) -> Result<()> {
    for ((name, from), (_, to)) in from.vars().iter().zip(to.vars()) {
        if chosen(name) {
            to.set(from.as_tensor())?;
        }
    }
    Ok(())
}
