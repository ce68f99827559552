//! Train and sample from Rust code, without the command line: procedural digits, half a minute.
//!
//! ```sh
//! cargo run --release --example library -- samples.png
//! ```

use std::error::Error;
use std::sync::Arc;

use candle_core::Device;
use lsgm::binary::{Binary, ModelConfig};
use lsgm::data::BinaryConfig;
use lsgm::engine::{
    EvaluateConfig, Event, Interrupt, ModelSpec, SampleConfig, StageSelection, TrainConfig, Trainer, evaluate, sample,
};
use lsgm::prior::PriorConfig;
use lsgm::{Arrangement, Assets, Modality, Params, Rng, Split};

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).unwrap_or_else(|| "samples.png".into());
    let device = Device::Cpu;

    // What is modelled, and with what.
    let modality = Arc::new(Binary::new(&BinaryConfig::default(), &ModelConfig::default(), &Assets::new())?);
    let builder = modality.clone();
    let spec = ModelSpec { autoencoder: Arc::new(move |p: &Params| builder.build(p)), prior: PriorConfig::default() };

    // How it is trained: both stages, in memory.
    let mut config = TrainConfig { sample_count: 0, ..TrainConfig::default() };
    config.vae.time_budget = Some("15s".into());
    config.lsgm.time_budget = Some("15s".into());
    let train = modality.dataset(Split::Train, None)?;
    let mut trainer = Trainer::new(spec, config, SampleConfig::default(), train.into(), &device, None)?;

    // Stop after the current step from anywhere: a clone of `interrupt` may live on another thread.
    let interrupt = Interrupt::default();
    let mut log = |event: &Event<'_>| {
        if let Event::Metrics(m) = event {
            println!("{} step {}: loss {:.1} nats", m.stage.name(), m.step, m.values["loss"]);
        }
        Ok(())
    };
    trainer.run(StageSelection::All, &interrupt, &mut log)?;

    // What came of it.
    let model = trainer.averaged_model()?;
    let test = modality.dataset(Split::Test, None)?;
    let config = EvaluateConfig { ode_items: 0, ..EvaluateConfig::default() };
    let found = evaluate(&model, test.as_ref(), modality.data_dim(), Some(500), &config, &device, &mut |_| {})?;
    println!("NELBO {:.1} ± {:.1} nats", found.nelbo.mean, found.nelbo.stderr);

    let config = SampleConfig { tolerance: 1e-3, ..SampleConfig::default() };
    let drawn = sample(&model, 64, &config, &device, &mut Rng::new(1), &mut |_| {})?;
    for sheet in modality.render(&drawn.items, Arrangement::Samples)? {
        std::fs::write(&out, sheet.bytes)?;
    }
    println!("64 samples in {out}: {:.0} evaluations of the score network, {:.1} s", drawn.nfe, drawn.seconds);
    Ok(())
}
