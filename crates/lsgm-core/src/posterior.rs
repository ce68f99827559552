use std::f64::consts::{E, PI};

use candle_core::{D, Tensor};

use crate::{Error, Latents, Result, Rng};

/// `scale · tanh(x / scale)`: keeps posterior means and log-scales in a range without a hard edge (LSGM, appendix G).
pub fn soft_clamp(x: &Tensor, scale: f64) -> Result<Tensor> {
    Ok(((x / scale)?.tanh()? * scale)?)
}

/// One group of a hierarchical posterior: a diagonal Normal `q(z^g | x, z^<g)` and its sample.
#[derive(Debug, Clone)]
pub struct Group {
    /// Mean, `[B, C_g, *spatial]`.
    pub mu: Tensor,
    /// Logarithm of the standard deviation, same shape.
    pub log_sigma: Tensor,
    /// The reparameterised sample, same shape.
    pub z: Tensor,
    /// Whether the group lies at a scale of its own, outside the score-based prior.
    pub side: bool,
    /// The Normal's own sample, where `z` is its image under a flow; see [`Group::through`].
    pub base: Option<Tensor>,
}

impl Group {
    /// Draw `z = mu + sigma · eps`.
    pub fn sample(mu: Tensor, log_sigma: Tensor, side: bool, rng: &mut Rng) -> Result<Self> {
        let eps = rng.normal_tensor(mu.shape().clone(), mu.dtype(), mu.device())?;
        Self::with_noise(mu, log_sigma, side, &eps)
    }

    /// `z = mu + sigma · eps` for given `eps`.
    pub fn with_noise(mu: Tensor, log_sigma: Tensor, side: bool, eps: &Tensor) -> Result<Self> {
        let z = (&mu + (log_sigma.exp()? * eps)?)?;
        Ok(Self { mu, log_sigma, z, side, base: None })
    }

    /// The group behind a normalizing flow that preserves volume, given by its action on the sample. Entropy and
    /// log-density stay those of the Normal; a divergence from N(0, I) is then estimated from the sample.
    pub fn through(self, flow: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self { z: flow(&self.z)?, base: Some(self.z), ..self })
    }

    /// `log q(z | x)` of the sample in nats, summed over its dimensions: `[B]`.
    pub fn log_q(&self) -> Result<Tensor> {
        Ok((per_item_sum(&self.log_q_shape()?)? - 0.5 * (2.0 * PI).ln() * self.dim())?)
    }

    /// [`Group::log_q`] of each dimension of the sample, in its shape.
    pub fn log_q_elements(&self) -> Result<Tensor> {
        Ok((self.log_q_shape()? - 0.5 * (2.0 * PI).ln())?)
    }

    /// The same without the constant.
    fn log_q_shape(&self) -> Result<Tensor> {
        let sample = self.base.as_ref().unwrap_or(&self.z);
        let normalized = ((sample - &self.mu)? * self.log_sigma.neg()?.exp()?)?;
        Ok(((normalized.sqr()? * -0.5)? - &self.log_sigma)?)
    }

    /// `log N(z; 0, I)` of the sample in nats, summed over its dimensions: `[B]`.
    pub fn log_standard_normal(&self) -> Result<Tensor> {
        Ok(((per_item_sum(&self.z.sqr()?)? * -0.5)? - 0.5 * (2.0 * PI).ln() * self.dim())?)
    }

    /// `E log q(z | x)`, in closed form given the groups before it: `[B]` nats.
    pub fn neg_entropy(&self) -> Result<Tensor> {
        Ok((per_item_sum(&self.log_sigma)?.neg()? - 0.5 * (2.0 * PI * E).ln() * self.dim())?)
    }

    /// `KL(q || N(0, I))` given the groups before it: `[B]` nats. In closed form, but for a flow.
    pub fn kl_standard_normal(&self) -> Result<Tensor> {
        per_item_sum(&self.kl_elements()?)
    }

    /// [`Group::kl_standard_normal`] of each channel, summed over its positions: `[B, C_g]` nats.
    pub fn kl_channels(&self) -> Result<Tensor> {
        Ok(self.kl_elements()?.flatten_from(2)?.sum(D::Minus1)?)
    }

    /// Number of latent dimensions of an item.
    pub fn size(&self) -> usize {
        self.mu.dims().iter().skip(1).product()
    }

    fn kl_elements(&self) -> Result<Tensor> {
        let second_moment = match &self.base {
            None => (self.mu.sqr()? + (&self.log_sigma * 2.0)?.exp()?)?,
            Some(_) => self.z.sqr()?,
        };
        Ok(((second_moment * 0.5)? - &self.log_sigma)?.affine(1.0, -0.5)?)
    }

    fn dim(&self) -> f64 {
        self.size() as f64
    }
}

/// Independent Normals `[B, C, *spatial]` that latents `z_0` are drawn from. A tensor of latents becomes Normals without
/// variance.
#[derive(Debug, Clone)]
pub struct LatentNormal {
    /// Means.
    pub mean: Tensor,
    /// Variances, `None` where all are zero.
    pub variance: Option<Tensor>,
}

impl LatentNormal {
    /// Another mean and variance, in the same way.
    pub fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self { mean: f(&self.mean)?, variance: self.variance.as_ref().map(f).transpose()? })
    }

    /// The same without a way back for gradients.
    pub fn detach(&self) -> Self {
        Self { mean: self.mean.detach(), variance: self.variance.as_ref().map(Tensor::detach) }
    }

    /// `E z_0²` of each element.
    pub fn square(&self) -> Result<Tensor> {
        let square = self.mean.sqr()?;
        match &self.variance {
            Some(variance) => Ok((square + variance)?),
            None => Ok(square),
        }
    }
}

impl From<Tensor> for LatentNormal {
    fn from(z0: Tensor) -> Self {
        Self { mean: z0, variance: None }
    }
}

impl From<&Tensor> for LatentNormal {
    fn from(z0: &Tensor) -> Self {
        z0.clone().into()
    }
}

impl From<&LatentNormal> for LatentNormal {
    fn from(latents: &LatentNormal) -> Self {
        latents.clone()
    }
}

/// A (possibly hierarchical) posterior over latents of a batch, with one sample of it.
#[derive(Debug, Clone)]
pub struct Posterior {
    /// The groups, in the order in which the decoder takes them.
    pub groups: Vec<Group>,
}

impl Posterior {
    /// A posterior with a single diagonal Normal.
    pub fn normal(mu: Tensor, log_sigma: Tensor, rng: &mut Rng) -> Result<Self> {
        Ok(Self { groups: vec![Group::sample(mu, log_sigma, false, rng)?] })
    }

    /// The sample: groups that the score-based prior models concatenated over channels, the others apart.
    pub fn latents(&self) -> Result<Latents> {
        let main: Vec<&Tensor> = self.groups.iter().filter(|g| !g.side).map(|g| &g.z).collect();
        let prior = match main.as_slice() {
            [one] => (*one).clone(),
            several => Tensor::cat(several, 1)?,
        };
        let side = self.groups.iter().filter(|g| g.side).map(|g| g.z.clone()).collect();
        Ok(Latents { prior, side })
    }

    /// What the latents of the score-based prior are drawn from, given the sample of all groups but the last: the last
    /// group's Normal, beside the sample itself of those before it, on which it depends.
    pub fn conditional(&self) -> Result<LatentNormal> {
        let main: Vec<&Group> = self.groups.iter().filter(|g| !g.side).collect();
        let Some((last, before)) = main.split_last() else {
            return Err(Error::contract("posterior", "no group for the score-based prior"));
        };
        if last.base.is_some() {
            return Ok(self.latents()?.prior.into());
        }
        let mut means: Vec<&Tensor> = before.iter().map(|g| &g.z).collect();
        means.push(&last.mu);
        let mut variances = before.iter().map(|g| Ok(g.z.zeros_like()?)).collect::<Result<Vec<_>>>()?;
        variances.push((&last.log_sigma * 2.0)?.exp()?);
        Ok(LatentNormal { mean: Tensor::cat(&means, 1)?, variance: Some(Tensor::cat(&variances, 1)?) })
    }

    /// `E log q(z0 | x)` of the groups that the score-based prior models: `[B]` nats.
    pub fn neg_entropy(&self) -> Result<Tensor> {
        sum(self.groups.iter().filter(|g| !g.side).map(Group::neg_entropy))
    }

    /// `log q(z0 | x)` of the sample, for the groups that the score-based prior models: `[B]` nats.
    pub fn log_q(&self) -> Result<Tensor> {
        sum(self.groups.iter().filter(|g| !g.side).map(Group::log_q))
    }

    /// `log N(z; 0, I) − log q(z | x)` of the sample, for the groups outside the score-based prior: `[B]` nats, `None`
    /// without such groups.
    pub fn side_log_ratio(&self) -> Result<Option<Tensor>> {
        if !self.groups.iter().any(|g| g.side) {
            return Ok(None);
        }
        sum(self.groups.iter().filter(|g| g.side).map(|g| Ok((g.log_standard_normal()? - g.log_q()?)?))).map(Some)
    }

    /// `KL(q || N(0, I))` of every group: `[B]` nats each.
    pub fn kl_groups(&self) -> Result<Vec<Tensor>> {
        self.groups.iter().map(Group::kl_standard_normal).collect()
    }

    /// `KL(q || N(0, I))` of the groups outside the score-based prior: `[B]` nats, `None` without such groups.
    pub fn side_kl(&self) -> Result<Option<Tensor>> {
        if !self.groups.iter().any(|g| g.side) {
            return Ok(None);
        }
        sum(self.groups.iter().filter(|g| g.side).map(Group::kl_standard_normal)).map(Some)
    }
}

fn per_item_sum(x: &Tensor) -> Result<Tensor> {
    Ok(x.flatten_from(1)?.sum(D::Minus1)?)
}

fn sum(terms: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let mut total: Option<Tensor> = None;
    for term in terms {
        let term = term?;
        total = Some(match total {
            None => term,
            Some(t) => (t + term)?,
        });
    }
    total.ok_or_else(|| crate::Error::contract("posterior", "no group for the prior"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn the_last_group_is_known_in_closed_form_given_those_before() {
        let mut rng = Rng::new(5);
        let mut group = |side| {
            let mu = rng.normal_tensor((2, 1, 3), DType::F32, &Device::Cpu).unwrap();
            Group::sample(mu, Tensor::full(-0.5f32, (2, 1, 3), &Device::Cpu).unwrap(), side, &mut rng).unwrap()
        };
        let groups = vec![group(false), group(false), group(true)];
        let flat = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let channel = |t: &Tensor, c: usize| flat(t.narrow(1, c, 1).unwrap());
        let q = Posterior { groups: groups.clone() };
        let LatentNormal { mean, variance } = q.conditional().unwrap();
        let variance = variance.unwrap();
        assert_eq!(channel(&mean, 0), flat(groups[0].z.clone()));
        assert_eq!(channel(&mean, 1), flat(groups[1].mu.clone()));
        assert!(channel(&variance, 0).iter().all(|v| *v == 0.0));
        assert!(channel(&variance, 1).iter().all(|v| (v - (-1f32).exp()).abs() < 1e-6));

        let turned = groups[1].clone().through(|z| Ok(z.neg()?)).unwrap();
        let q = Posterior { groups: vec![groups[0].clone(), turned] };
        let behind_a_flow = q.conditional().unwrap();
        assert!(behind_a_flow.variance.is_none());
        assert_eq!(flat(behind_a_flow.mean), flat(q.latents().unwrap().prior));
    }

    #[test]
    fn closed_forms_agree_with_monte_carlo() {
        let mut rng = Rng::new(5);
        let (n, d) = (20_000, 3);
        let row = |v: &[f32]| {
            Tensor::new(v, &Device::Cpu)
                .unwrap()
                .reshape((1, d))
                .unwrap()
                .broadcast_as((n, d))
                .unwrap()
                .contiguous()
                .unwrap()
        };
        let (mu, log_sigma) = (row(&[0.5, -1.0, 2.0]), row(&[-1.0, 0.3, -0.2]));
        let q = Posterior::normal(mu, log_sigma, &mut rng).unwrap();
        let mean = |t: &Tensor| t.mean_all().unwrap().to_scalar::<f32>().unwrap();
        let g = &q.groups[0];
        let log_p = ((g.z.sqr().unwrap().sum(1).unwrap() * -0.5).unwrap() - 1.5 * (2.0 * PI).ln()).unwrap();
        let log_q = q.log_q().unwrap();
        assert!((mean(&log_q) - mean(&q.neg_entropy().unwrap())).abs() < 0.04);
        let ratio = Posterior { groups: vec![Group { side: true, ..g.clone() }] }.side_log_ratio().unwrap().unwrap();
        assert!(((mean(&log_p) - mean(&log_q)) - mean(&ratio)).abs() < 1e-3);
        assert!(q.side_log_ratio().unwrap().is_none());
        assert!((mean(&(log_q - log_p).unwrap()) - mean(&g.kl_standard_normal().unwrap())).abs() < 0.08);
    }

    #[test]
    fn the_divergence_of_a_group_is_that_of_its_channels() {
        let draw = |seed| Rng::new(seed).normal_tensor((4, 3, 2, 2), DType::F64, &Device::Cpu).unwrap();
        let g = Group::sample(draw(1), draw(2), false, &mut Rng::new(3)).unwrap();
        let channels = g.kl_channels().unwrap();
        assert_eq!((channels.dims(), g.size()), (&[4, 3][..], 12));
        let total = channels.sum(1).unwrap().to_vec1::<f64>().unwrap();
        for (a, b) in total.iter().zip(g.kl_standard_normal().unwrap().to_vec1::<f64>().unwrap()) {
            assert!((a - b).abs() < 1e-9 && b > 0.0, "{a} {b}");
        }
    }

    #[test]
    fn a_flow_keeps_density_and_entropy_and_its_divergence_follows_the_sample() {
        let draw = |seed| Rng::new(seed).normal_tensor((20_000, 1, 2), DType::F64, &Device::Cpu).unwrap();
        let (mu, log_sigma) = ((draw(1) * 0.0).unwrap().affine(1.0, 0.3).unwrap(), draw(1).affine(0.0, -0.7).unwrap());
        let plain = Group::with_noise(mu, log_sigma, false, &draw(2)).unwrap();
        // A shift preserves volume.
        let flowed = plain.clone().through(|z| Ok((z + 0.5)?)).unwrap();
        let mean = |t: Tensor| t.mean_all().unwrap().to_scalar::<f64>().unwrap();
        assert_eq!(mean(plain.log_q().unwrap()), mean(flowed.log_q().unwrap()));
        assert_eq!(mean(plain.neg_entropy().unwrap()), mean(flowed.neg_entropy().unwrap()));
        let shifted = Group { mu: (&plain.mu + 0.5).unwrap(), ..plain };
        let (estimate, exact) = (flowed.kl_standard_normal().unwrap(), shifted.kl_standard_normal().unwrap());
        assert!((mean(estimate) - mean(exact)).abs() < 0.03);
        let q = Posterior { groups: vec![flowed] };
        assert!((mean(q.latents().unwrap().prior) - 0.8).abs() < 0.02);
    }

    #[test]
    fn soft_clamp_is_the_identity_near_zero_and_bounded() {
        let x = Tensor::new(&[0.01f32, -100.0, 100.0], &Device::Cpu).unwrap();
        let y = soft_clamp(&x, 5.0).unwrap().to_vec1::<f32>().unwrap();
        assert!((y[0] - 0.01).abs() < 1e-6 && y[1] == -5.0 && y[2] == 5.0);
    }
}
