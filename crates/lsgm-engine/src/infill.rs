//! Items of which a part is given.

use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};
use lsgm_core::{Error, Pass, Result, Rng, Template};
use lsgm_prior::solvers::guided_ancestral;

use crate::config::SampleConfig;
use crate::model::Model;
use crate::sample::{Samples, decode};

/// How the unknown part of an item is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InfillOptions {
    /// Steps of the guided reverse diffusion.
    pub steps: usize,
    /// Weight of the known part's gradient in it.
    pub guidance: f64,
    /// Steps of gradient ascent on the latents afterwards, so that what is known is decoded as it is.
    pub refinements: usize,
}

impl Default for InfillOptions {
    fn default() -> Self {
        Self { steps: 100, guidance: 1.0, refinements: 30 }
    }
}

/// Items that agree with a template.
#[derive(Debug, Clone)]
pub struct Infilled {
    /// The items; the known part is the template's.
    pub samples: Samples,
    /// `-log p(known part | z)` in nats, averaged over items: how well the latents agree with it. Near 0 they do.
    pub disagreement: f64,
}

/// Length of a refinement's step, as a root mean square over the latent's dimensions.
const STEP: f64 = 0.05;

/// Draw `count` items whose known part is that of `template`: latents from the prior by a reverse diffusion that the
/// gradient of the known part's likelihood guides, refined by gradient ascent, decoded.
///
/// Draws are approximately from p(unknown | known): the guidance judges a diffused latent by what it is predicted to
/// become.
///
/// # Errors
/// A kind of data whose likelihood has no parts; options out of range.
pub fn infill(
    model: &Model,
    template: &Template,
    count: usize,
    options: &InfillOptions,
    config: &SampleConfig,
    device: &Device,
    rng: &mut Rng,
) -> Result<Infilled> {
    let clock = Instant::now();
    if count == 0 {
        return Err(Error::config("count", "0 items are none: give at least 1"));
    }
    let repeated = |t: &Tensor| Ok::<_, Error>(t.repeat(repeats(t.rank(), count))?.to_device(device)?);
    let (x, known) = (repeated(&template.x)?, repeated(&template.known)?);
    let times = config.grid.times(model.prior.sde(), options.steps, model.prior.t_eps())?;
    let z1 = model.prior.sample_base(count, config.temperature, DType::F32, device, rng)?;
    let agreement = Agreement { model, x: &x, known: &known };
    let mut decoder_rng = rng.fork("infill decoder");
    let (z0, nfe) = guided_ancestral(
        &config.guided(&model.prior),
        &z1,
        &times,
        rng,
        &mut |_| Ok(()),
        &mut |z| agreement.of(z, &mut decoder_rng),
        options.guidance,
    )?;
    let z0 = agreement.refine(z0, options.refinements, &mut decoder_rng)?;
    let found = agreement.of(&z0, &mut decoder_rng)?.mean_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    let decoded = decode(model, z0.clone().into(), config, rng)?;
    let items = known.where_cond(&x.to_dtype(decoded.dtype())?, &decoded)?;
    let seconds = clock.elapsed().as_secs_f64();
    Ok(Infilled { samples: Samples { items, latents: z0, nfe: nfe as f64, seconds }, disagreement: -found })
}

fn repeats(rank: usize, count: usize) -> Vec<usize> {
    (0..rank).map(|dim| if dim == 0 { count } else { 1 }).collect()
}

/// How well latents agree with what is known.
struct Agreement<'a> {
    model: &'a Model,
    x: &'a Tensor,
    known: &'a Tensor,
}

impl Agreement<'_> {
    /// `log p(known part | z)`, `[B]`.
    fn of(&self, z: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let likelihood = self.model.autoencoder.decode(&z.clone().into(), &mut Pass::eval(rng))?;
        likelihood.log_prob_known(self.x, self.known)
    }

    /// Gradient ascent with steps of falling length; an item that agrees already has a gradient near zero and stays.
    fn refine(&self, z: Tensor, steps: usize, rng: &mut Rng) -> Result<Tensor> {
        let mut z = z;
        for step in 0..steps {
            let at = Var::from_tensor(&z)?;
            let gradients = self.of(at.as_tensor(), rng)?.sum_all()?.backward()?;
            let Some(gradient) = gradients.get(at.as_tensor()) else { return Ok(z) };
            let gradient = gradient.detach();
            let size = gradient.sqr()?.flatten_from(1)?.mean_keepdim(1)?.sqrt()?;
            // Steps of equal length, but never longer than the gradient itself.
            let length = STEP * (1.0 - step as f64 / steps as f64);
            let scale = (size.maximum(length)?.recip()? * length)?;
            let flat = gradient.flatten_from(1)?.broadcast_mul(&scale)?;
            z = (&z + flat.reshape(z.shape())?)?;
        }
        Ok(z)
    }
}
