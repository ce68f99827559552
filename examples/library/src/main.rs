//! Train and sample from Rust code, without the command line: procedural digits, less than a minute.
//!
//! ```sh
//! cargo run --release -p library -- samples.png
//! ```
//!
//! A second argument is the number of seconds to train.

mod prior_alone;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lsgm::binary::{Binary, ModelConfig};
use lsgm::data::BinaryConfig;
use lsgm::engine::{
    EvaluateConfig, Event, Interrupt, Model, ModelSpec, Outcome, SampleConfig, StageSelection, TrainConfig, Trainer,
    evaluate, sample,
};
use lsgm::prior::PriorConfig;
use lsgm::{Arrangement, Assets, Device, Latents, Modality, Params, Pass, Rng, Split, Tensor};

/// Training frees and takes large buffers at every step; this allocator keeps them.
#[global_allocator]
static ALLOCATOR: lsgm::Allocator = lsgm::Allocator;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    lsgm::cli::prepare(None);
    let mut args = std::env::args().skip(1);
    let out = PathBuf::from(args.next().unwrap_or_else(|| "samples.png".into()));
    let seconds = args.next().map_or(Ok(30.0), |s| s.parse::<f64>())?;
    let modality = Arc::new(Binary::new(&BinaryConfig::default(), &ModelConfig::default(), &Assets::new())?);

    let mut trainer = trainer(&modality, seconds)?;
    train(&mut trainer, seconds)?;
    let model = trainer.averaged_model()?;
    report(&model, &modality)?;
    draw(&model, &modality, &out)?;
    there_and_back(&model, &modality)?;

    let found = prior_alone::run(800)?;
    println!("prior alone: standard deviations {:.2} and {:.2} of 0.50 and 1.50", found[0], found[1]);
    Ok(())
}

/// What is modelled, with what, and how it is trained: both stages, in memory.
fn trainer(modality: &Arc<Binary>, seconds: f64) -> Result<Trainer> {
    let builder = modality.clone();
    let spec = ModelSpec { autoencoder: Arc::new(move |p: &Params| builder.build(p)), prior: PriorConfig::default() };
    let mut config = TrainConfig { sample_count: 0, log_every: 10, ..TrainConfig::default() };
    for budget in [&mut config.vae.time_budget, &mut config.lsgm.time_budget] {
        *budget = Some(format!("{}ms", 500.0 * seconds));
    }
    let train = modality.dataset(Split::Train, None)?;
    Ok(Trainer::new(spec, config, SampleConfig::default(), train.into(), &Device::Cpu, None)?)
}

/// Training that another thread stops half-way, and that goes on afterwards.
fn train(trainer: &mut Trainer, seconds: f64) -> Result<()> {
    let mut log = |event: &Event<'_>| {
        if let Event::Metrics(m) = event {
            println!("{} step {}: loss {:.1} nats", m.stage.name(), m.step, m.values["loss"]);
        }
        Ok(())
    };
    let interrupt = Interrupt::default();
    let button = interrupt.clone();
    let presses = thread::spawn(move || {
        thread::sleep(Duration::from_secs_f64(0.25 * seconds));
        button.stop();
    });
    if trainer.run(StageSelection::All, &interrupt, &mut log)? == Outcome::Interrupted {
        println!("stopped from another thread after {} steps", trainer.state().step);
        trainer.run(StageSelection::All, &Interrupt::default(), &mut log)?;
    }
    presses.join().map_err(|_| "the thread that stops the training failed".into())
}

/// The bound on the likelihood of test items.
fn report(model: &Model, modality: &Binary) -> Result<()> {
    let test = modality.dataset(Split::Test, None)?;
    let config = EvaluateConfig { ode_items: 0, time_samples: 2, ..EvaluateConfig::default() };
    let found = evaluate(model, test.as_ref(), modality.data_dim(), Some(200), &config, &Device::Cpu, &mut |_| {})?;
    println!("NELBO {:.1} ± {:.1} nats", found.nelbo.mean, found.nelbo.stderr);
    Ok(())
}

/// New items: noise, the reverse diffusion, the decoder.
fn draw(model: &Model, modality: &Binary, out: &std::path::Path) -> Result<()> {
    let config = SampleConfig { tolerance: 1e-2, ..SampleConfig::default() };
    let drawn = sample(model, 16, &config, &Device::Cpu, &mut Rng::new(1), &mut |_| {})?;
    for sheet in modality.render(&drawn.items, Arrangement::Samples)? {
        std::fs::write(out, sheet.bytes)?;
    }
    println!("16 samples in {}: {:.0} evaluations of the score network", out.display(), drawn.nfe);
    Ok(())
}

/// Latents out of the model, latents into it.
fn there_and_back(model: &Model, modality: &Binary) -> Result<()> {
    let mut rng = Rng::new(2);
    let x = modality.dataset(Split::Test, None)?.batch(&[0, 1, 2, 3], &mut rng)?.x;
    let z0: Tensor = model.autoencoder.encode(&x, &mut Pass::eval(&mut rng))?.latents()?.prior;
    println!("items {:?} are latents {:?}", x.dims(), z0.dims());
    let likelihood = model.autoencoder.decode(&Latents::from(z0), &mut Pass::eval(&mut rng))?;
    let nats = likelihood.log_prob(&x)?.mean_all()?.to_scalar::<f32>()?;
    println!("log p(x | z0) = {nats:.1} nats; items again: {:?}", likelihood.mean()?.dims());
    Ok(())
}
