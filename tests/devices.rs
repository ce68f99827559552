//! Training steps of every modality where there are no kernels, composed of tensor operations on the CPU and on a GPU,
//! beside those of the CPU's kernels: the same losses and the same norms of gradients. So are those of trainings that keep
//! less and compute it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use lsgm::engine::{Event, Interrupt, ModelSpec, SampleConfig, StageSelection, TrainConfig, Trainer};
use lsgm::nn::{gpu, ops::without_kernels};
use lsgm::{Device, Modality, Params, Split};
use serde::de::DeserializeOwned;

/// A tiny model of a modality, as its config would say.
struct Tiny {
    data: &'static str,
    autoencoder: &'static str,
    prior: &'static str,
}

const NVAE: &str = "kind = 'nvae'\nencoder_channels = 4\ndecoder_channels = 4\nchannel_multipliers = [1, 1, 1]\n\
                    preprocess_cells = 1\npostprocess_cells = 1\nlatent_channels = 2";
const UNET: &str = "network = { kind = 'unet', channels = 8, blocks = 1, attention = [0], embedding = 16 }";

fn parse<T: DeserializeOwned>(text: &str) -> T {
    toml::from_str(text).unwrap()
}

/// What two steps of each stage report.
fn figures<M: Modality>(tiny: &Tiny, device: &Device, recompute: bool) -> Vec<BTreeMap<String, f64>> {
    let (data, model): (M::Data, M::Model) = (parse(tiny.data), parse(tiny.autoencoder));
    let modality = Arc::new(M::new(&data, &model, &M::prepare(&data, None).unwrap()).unwrap());
    let items = modality.dataset(Split::Train, None).unwrap();
    let spec =
        ModelSpec { autoencoder: Arc::new(move |params: &Params| modality.build(params)), prior: parse(tiny.prior) };
    let mut config = TrainConfig { batch_size: 8, log_every: 1, sample_count: 0, recompute, ..TrainConfig::default() };
    (config.vae.steps, config.lsgm.steps) = (Some(2), Some(2));
    let mut trainer = Trainer::new(spec, config, SampleConfig::default(), items.into(), device, None).unwrap();
    let mut figures = Vec::new();
    let mut observer = |event: &Event<'_>| {
        if let Event::Metrics(metrics) = event {
            figures.push(metrics.values.clone());
        }
        Ok(())
    };
    trainer.run(StageSelection::All, &Interrupt::default(), &mut observer).unwrap();
    figures
}

/// Rounding grows from step to step: an optimizer turns the sign of a vanishing gradient into a whole step.
fn assert_agree(what: &str, kernels: &[BTreeMap<String, f64>], others: &[BTreeMap<String, f64>]) {
    assert_eq!(kernels.len(), 4, "{what}");
    assert_eq!(others.len(), 4, "{what}");
    for (step, (a, b)) in kernels.iter().zip(others).enumerate() {
        let tolerance = if step == 0 { 1e-4 } else { 1e-2 };
        assert!(a.keys().eq(b.keys()), "{what}");
        for (name, value) in a {
            let difference = (value - b[name]).abs();
            assert!(
                difference <= tolerance * value.abs().max(0.1),
                "{what}, step {step}, {name}: {value} and {}",
                b[name]
            );
        }
    }
}

fn check<M: Modality>(tiny: &Tiny) {
    let kernels = figures::<M>(tiny, &Device::Cpu, false);
    assert_agree(M::NAME, &kernels, &without_kernels(|| figures::<M>(tiny, &Device::Cpu, false)));
    assert_agree(&format!("{}, recomputed", M::NAME), &kernels, &figures::<M>(tiny, &Device::Cpu, true));
    match gpu::gpus() {
        Ok(gpus) if !gpus.is_empty() => {
            let device = Device::new_cuda(0).unwrap();
            assert_agree(&format!("{} on a GPU", M::NAME), &kernels, &figures::<M>(tiny, &device, false));
        }
        Ok(_) => eprintln!("skipped on a GPU: {} finds none", if gpu::is_built_in() { "CUDA" } else { "a CPU build" }),
        Err(why) => eprintln!("skipped on a GPU: {why}"),
    }
}

#[test]
fn binary_images() {
    check::<lsgm::binary::Binary>(&Tiny {
        data: "set = 'glyphs'\nlimit = 64",
        autoencoder: "kind = 'plain'\nchannels = [4, 8]\noutput_channels = 4\nlatent_channels = 2",
        prior: UNET,
    });
}

#[test]
fn binary_images_in_the_published_architecture() {
    check::<lsgm::binary::Binary>(&Tiny {
        data: "set = 'glyphs'\nlimit = 64",
        autoencoder: NVAE,
        prior: "network = { kind = 'ncsnpp', channels = 8, blocks = 1 }",
    });
}

#[test]
fn grey_images() {
    check::<lsgm::image::Image>(&Tiny {
        data: "set = 'glyphs'\nlimit = 64\nchannels = 1\nheight = 28\nwidth = 28",
        autoencoder: NVAE,
        prior: UNET,
    });
}

#[test]
fn sound() {
    check::<lsgm::audio::Audio>(&Tiny {
        data: "sample_rate = 2000\nsamples = 256\nlimit = 60",
        autoencoder: "kind = 'wave'\nstrides = [16]\nchannels = [8]\nblocks = 1\nlatent_channels = 2\n\
                      likelihood = { kind = 'logistic-mixture', components = 2 }\n\
                      stft = { weight = 1.0, sizes = [32, 64] }",
        prior: "network = { kind = 'unet', channels = 8, blocks = 1, channel_multipliers = [1], attention = [], embedding = 16 }",
    });
}

#[test]
fn text() {
    check::<lsgm::text::Text>(&Tiny {
        data: "set = 'grammar'\nlength = 16\nlimit = 300\ntokenizer = { kind = 'bpe', vocabulary = 400 }",
        autoencoder: "kind = 'transformer'\nchannels = 16\nheads = 2\nencoder_blocks = 1\ndecoder_blocks = 1\n\
                      latent_channels = 4",
        prior: "network = { kind = 'transformer', channels = 16, blocks = 1, heads = 2, embedding = 8 }",
    });
}
