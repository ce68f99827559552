//! What the choice of diffusion times and the average over the posterior are worth: the variance of the likelihood loss's
//! gradient with respect to the score network, on the latents of a trained run on binary images.
//!
//! ```sh
//! cargo run --release --example gradient_variance -- runs/mnist DIR_WITH_MNIST
//! ```
//!
//! One batch of posteriors stays the same; samples of them, times and noise are drawn anew, and the scatter of the
//! gradients is summed over all parameters. `stratified` times share one uniform number within a batch.

use std::error::Error;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lsgm::binary::{Binary, ModelConfig};
use lsgm::data::BinaryConfig;
use lsgm::engine::{ModelSpec, RunDir};
use lsgm::nn::optim::Gradients;
use lsgm::prior::{PriorConfig, Times, Weighting};
use lsgm::{Assets, Modality, ParamStore, Params, Pass, Rng, Split};

const ITEMS: usize = 64;
const DRAWS: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "give a run on binary images, and the folder of its data";
    let (run, data) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    let (run, device) = (RunDir::read(Path::new(&run))?, Device::Cpu);
    let sections: toml::Table = run.config()?.parse()?;
    let section = |name: &str| sections.get(name).cloned().ok_or_else(|| format!("config.toml has no [{name}]"));
    let (data_config, model): (BinaryConfig, ModelConfig) =
        (section("data")?.try_into()?, section("autoencoder")?.try_into()?);
    let prior: PriorConfig = section("prior")?.try_into()?;
    let modality = std::sync::Arc::new(Binary::new(&data_config, &model, &Assets::new())?);
    let builder = modality.clone();
    let spec = ModelSpec { autoencoder: std::sync::Arc::new(move |p: &Params| builder.build(p)), prior };
    let store = ParamStore::new(DType::F32, &device, Rng::new(0));
    let model = spec.build(&store.root())?;
    store.load(&run.load_ema(&device)?.0)?;

    let mut rng = Rng::new(1);
    let test = modality.dataset(Split::Test, Some(Path::new(&data)))?;
    let x = test.batch(&(0..ITEMS).collect::<Vec<_>>(), &mut rng)?.x;
    let vars: Vec<_> = store.vars().into_iter().filter(|(name, _)| name.starts_with("prior.")).collect();
    println!("{:<12}{:>12}{:>12}{:>16}{:>16}", "weighting", "times", "posterior", "variance", "norm of mean");
    for weighting in [Weighting::LlUniform, Weighting::LlIw, Weighting::LlAngle] {
        for (stratified, averaged) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut rng = Rng::new(2);
            let mut scatter = Scatter::default();
            for _ in 0..DRAWS {
                let times: Times = match stratified {
                    true => model.prior.stratified_times(weighting, ITEMS, &mut rng)?,
                    false => model.prior.sample_times(weighting, ITEMS, &mut rng)?,
                };
                let posterior = model.autoencoder.encode(&x, &mut Pass::eval(&mut rng))?;
                let latents = match averaged {
                    true => posterior.conditional()?,
                    false => posterior.latents()?.prior.into(),
                };
                let loss =
                    model.prior.cross_entropy(latents.detach(), &times, &mut Pass::eval(&mut rng))?.mean_all()?;
                scatter.add(&Gradients::collect(&loss.backward()?, &vars))?;
            }
            let times = if stratified { "stratified" } else { "independent" };
            let posterior = if averaged { "averaged" } else { "sampled" };
            let (variance, norm) = (scatter.variance(), scatter.mean_norm());
            println!("{:<12}{times:>12}{posterior:>12}{variance:>16.4e}{norm:>16.4e}", weighting.name());
        }
    }
    Ok(())
}

/// Sums over draws of a gradient.
#[derive(Default)]
struct Scatter {
    draws: f64,
    sum: Vec<f64>,
    squares: f64,
}

impl Scatter {
    fn add(&mut self, gradients: &Gradients) -> Result<(), Box<dyn Error>> {
        let parts: Vec<Tensor> =
            gradients.iter().filter_map(|(_, g)| g).map(Tensor::flatten_all).collect::<Result<_, _>>()?;
        let gradient: Vec<f64> = Tensor::cat(&parts, 0)?.to_dtype(DType::F64)?.to_vec1()?;
        self.sum.resize(gradient.len(), 0.0);
        self.sum.iter_mut().zip(&gradient).for_each(|(s, g)| *s += g);
        self.squares += gradient.iter().map(|g| g * g).sum::<f64>();
        self.draws += 1.0;
        Ok(())
    }

    fn mean_norm(&self) -> f64 {
        self.sum.iter().map(|s| (s / self.draws).powi(2)).sum::<f64>().sqrt()
    }

    /// The trace of the covariance of one draw.
    fn variance(&self) -> f64 {
        (self.squares - self.draws * self.mean_norm().powi(2)) / (self.draws - 1.0)
    }
}
