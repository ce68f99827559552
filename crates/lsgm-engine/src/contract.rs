//! What a modality promises, tried on the first batch of a training: a broken contract is told by name before anything
//! is trained on it.

use candle_core::{DType, Tensor, Var};
use lsgm_core::{Batch, Error, LatentShape, Latents, Likelihood, ParamStore, Pass, Posterior, Result, Rng};

use crate::losses::scalar;
use crate::model::{Model, ModelSpec};

/// A model about to be trained on `store`.
pub(crate) struct Candidate<'a> {
    pub(crate) spec: &'a ModelSpec,
    pub(crate) store: &'a ParamStore,
    pub(crate) model: &'a Model,
}

impl Candidate<'_> {
    /// Try every contract on a batch of `items` items. Weights and buffers stay as they are.
    pub(crate) fn check(&self, batch: &Batch, items: usize, rng: &mut Rng) -> Result<()> {
        check_batch(batch, items)?;
        check_names(self.store)?;
        let buffers = self.store.deep_copy()?;
        let checked = self.check_model(&batch.x, rng);
        for ((_, buffer), (_, before)) in self.store.buffers().iter().zip(buffers.buffers()) {
            buffer.set(before.as_tensor())?;
        }
        checked
    }

    fn check_model(&self, x: &Tensor, rng: &mut Rng) -> Result<()> {
        let posterior = check_encoder(self.model, x, rng)?;
        self.check_trainable(&posterior)?;
        let latents = posterior.latents()?;
        let likelihood = check_decoder(self.model, x, &latents, rng)?;
        check_draws(likelihood.as_ref(), x, rng)?;
        check_extent(self.model, x)?;
        if !uses_latent(self.model, x, &latents, rng)? {
            self.check_elsewhere(x, &latents, rng)?;
        }
        Ok(())
    }

    /// The encoder learns through its sample.
    fn check_trainable(&self, posterior: &Posterior) -> Result<()> {
        let gradients = posterior.latents()?.prior.sqr()?.sum_all()?.backward()?;
        if self.store.vars().iter().any(|(_, var)| gradients.get(var).is_some()) {
            return Ok(());
        }
        Err(Error::contract(
            "encoder",
            "no gradient reaches a parameter from the latents of `Encoder::encode`: do not `detach` them, and use \
             operations that have a gradient",
        ))
    }

    /// A decoder may begin with a layer of zeros, which hides the latent at the very start: look again with every weight
    /// moved.
    fn check_elsewhere(&self, x: &Tensor, latents: &Latents, rng: &mut Rng) -> Result<()> {
        let moved = self.store.deep_copy()?;
        for (_, var) in moved.vars() {
            let noise = rng.normal_tensor(var.shape().clone(), var.dtype(), var.device())?;
            var.set(&(var.as_tensor() + (noise * 0.1)?)?)?;
        }
        if uses_latent(&self.spec.build(&moved.root())?, x, latents, rng)? {
            return Ok(());
        }
        Err(Error::contract(
            "decoder",
            "the latent has no influence: the gradient of `Likelihood::log_prob` with respect to the latent that \
             `Decoder::decode` was given is zero everywhere, with other weights too. Use `z.prior` in `decode`, without \
             `detach` and without operations that have no gradient",
        ))
    }
}

/// The data set: as many items as were asked for, every number finite.
fn check_batch(batch: &Batch, items: usize) -> Result<()> {
    let wrong = |message: String| Err(Error::contract("data set", message));
    if batch.size() != items {
        return wrong(format!("`Dataset::batch` gave items {:?} for {items} indices", batch.x.dims()));
    }
    if let Some(labels) = &batch.labels
        && labels.dims() != [items]
    {
        return wrong(format!("`Dataset::batch` gave labels {:?} for {items} indices", labels.dims()));
    }
    match first_not_finite(&batch.x)? {
        Some(item) => wrong(format!("`Dataset::batch` gave a value that is not finite, in item {item} of the batch")),
        None => Ok(()),
    }
}

/// Parameters lie where the optimizers look for them.
fn check_names(store: &ParamStore) -> Result<()> {
    let stray = |name: &String| !["encoder.", "decoder.", "prior."].iter().any(|part| name.starts_with(part));
    match store.vars().into_iter().map(|(name, _)| name).find(stray) {
        Some(name) => Err(Error::contract(
            "autoencoder",
            format!(
                "the parameter `{name}` lies neither below `encoder.` nor below \
                 `decoder.`: build the parts on `params.pp(\"encoder\")` and `params.pp(\"decoder\")`"
            ),
        )),
        None => Ok(()),
    }
}

fn check_encoder(model: &Model, x: &Tensor, rng: &mut Rng) -> Result<Posterior> {
    let wrong = |message: String| Error::contract("encoder", message);
    let posterior = model
        .autoencoder
        .encode(x, &mut Pass::train(rng))
        .map_err(|e| named(e, "encoder", &format!("`Encoder::encode` failed on items {:?}", x.dims())))?;
    for (g, group) in posterior.groups.iter().enumerate() {
        if group.log_sigma.dims() != group.mu.dims() || group.z.dims() != group.mu.dims() {
            let (mu, log_sigma, z) = (group.mu.dims(), group.log_sigma.dims(), group.z.dims());
            return Err(wrong(format!(
                "group {g}: `mu` {mu:?}, `log_sigma` {log_sigma:?} and `z` {z:?} differ in shape"
            )));
        }
        if let Some(item) = first_not_finite(&group.z)? {
            return Err(wrong(format!("`Encoder::encode` gave a latent that is not finite, group {g}, item {item}")));
        }
    }
    check_shape(model.latent_shape(), &posterior.latents()?.prior, x.dim(0)?)?;
    Ok(posterior)
}

fn check_shape(shape: LatentShape, z0: &Tensor, items: usize) -> Result<()> {
    if z0.dims() == shape.dims(items) {
        return Ok(());
    }
    let (found, promised) = (z0.dims(), shape.dims(items));
    Err(Error::contract(
        "encoder",
        format!(
            "`Encoder::encode` gave latents {found:?}, but `Encoder::latent_shape` promises {promised:?} for {items} items"
        ),
    ))
}

fn check_decoder(model: &Model, x: &Tensor, latents: &Latents, rng: &mut Rng) -> Result<Box<dyn Likelihood>> {
    let likelihood = model
        .autoencoder
        .decode(latents, &mut Pass::train(rng))
        .map_err(|e| named(e, "decoder", &format!("`Decoder::decode` failed on latents {:?}", latents.prior.dims())))?;
    let log_prob = likelihood
        .log_prob(x)
        .map_err(|e| named(e, "likelihood", &format!("`Likelihood::log_prob` failed on items {:?}", x.dims())))?;
    let items = x.dim(0)?;
    let wrong = |message: String| Err(Error::contract("likelihood", message));
    if log_prob.dims() != [items] {
        let found = log_prob.dims();
        return wrong(format!(
            "`Likelihood::log_prob` gave {found:?} instead of [{items}]: one number for each item, summed over its dimensions"
        ));
    }
    match first_not_finite(&log_prob)? {
        Some(item) => {
            let value = scalar(&log_prob.get(item)?)?;
            wrong(format!("`Likelihood::log_prob` gave {value} nats for item {item} of the first batch"))
        }
        None => Ok(likelihood),
    }
}

/// What an item costs can be held against its extent.
fn check_extent(model: &Model, x: &Tensor) -> Result<()> {
    let wrong = |message: String| Err(Error::contract("autoencoder", message));
    let Some(extent) = model.autoencoder.extent(x)? else { return Ok(()) };
    if extent.dims() != [x.dim(0)?] {
        return wrong(format!("`Autoencoder::extent` gave {:?} for {} items", extent.dims(), x.dim(0)?));
    }
    let values = extent.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    match values.iter().position(|v| !(v.is_finite() && *v > 0.0)) {
        Some(item) => wrong(format!("`Autoencoder::extent` gave {} for item {item}: it must be above 0", values[item])),
        None => Ok(()),
    }
}

/// What is drawn has the layout of the data, so that samples can be shown.
fn check_draws(likelihood: &dyn Likelihood, x: &Tensor, rng: &mut Rng) -> Result<()> {
    let (sample, mean) = (likelihood.sample(1.0, rng)?, likelihood.mean()?);
    if sample.dims() != x.dims() {
        let message = format!("`Likelihood::sample` gave {:?}, but items are {:?}", sample.dims(), x.dims());
        return Err(Error::contract("likelihood", message));
    }
    if mean.dims().first() != x.dims().first() {
        let message = format!("`Likelihood::mean` gave {:?} for {} items", mean.dims(), x.dim(0)?);
        return Err(Error::contract("likelihood", message));
    }
    Ok(())
}

/// Whether the likelihood of the items has a gradient with respect to the latents.
fn uses_latent(model: &Model, x: &Tensor, latents: &Latents, rng: &mut Rng) -> Result<bool> {
    let z0 = Var::from_tensor(&latents.prior.detach())?;
    let side = latents.side.iter().map(Tensor::detach).collect();
    let latents = Latents { prior: z0.as_tensor().clone(), side };
    let likelihood = model.autoencoder.decode(&latents, &mut Pass::train(rng))?;
    let gradients = likelihood.log_prob(x)?.sum_all()?.backward()?;
    match gradients.get(&z0) {
        Some(gradient) => Ok(scalar(&gradient.abs()?.max_all()?)? > 0.0),
        None => Ok(false),
    }
}

/// The first item with a value that is not finite.
fn first_not_finite(x: &Tensor) -> Result<Option<usize>> {
    if !x.dtype().is_float() || x.elem_count() == 0 {
        return Ok(None);
    }
    // A sum over an item is finite if every value is: in f64 finite f32 values do not overflow.
    let sums = x.to_dtype(DType::F64)?.reshape((x.dim(0)?, ()))?.sum(1)?.to_vec1::<f64>()?;
    Ok(sums.iter().position(|s| !s.is_finite()))
}

/// An operation of candle that fails inside a method is that method's fault: say which.
fn named(error: Error, part: &str, what: &str) -> Error {
    match error {
        Error::Tensor(e) => Error::contract(part, format!("{what}: {e}")),
        other => other,
    }
}
