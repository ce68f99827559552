//! Training steps of every modality without the CPU's kernels beside those with them: composed of tensor operations, and on a
//! GPU or, where there is none, by a GPU's kernels run on the CPU. All have the same losses and the same norms of gradients, in
//! bf16 up to its rounding. So have trainings that keep less and compute it again.

#[path = "../crates/lsgm-nn/tests/common/host.rs"]
mod host;

use std::collections::BTreeMap;
use std::sync::Arc;

use host::with_gpu_kernels;
use lsgm::engine::{Event, Interrupt, ModelSpec, SampleConfig, StageSelection, TrainConfig, Trainer};
use lsgm::nn::{Precision, gpu, ops::without_kernels};
use lsgm::{DType, Device, Modality, Params, Rng, Split, Tensor};
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

/// What steps report.
type Figures = Vec<BTreeMap<String, f64>>;

/// Two steps of each stage.
fn figures<M: Modality>(tiny: &Tiny, device: &Device, precision: Precision, recompute: bool) -> Figures {
    let (data, model): (M::Data, M::Model) = (parse(tiny.data), parse(tiny.autoencoder));
    let modality = Arc::new(M::new(&data, &model, &M::prepare(&data, None).unwrap()).unwrap());
    let items = modality.dataset(Split::Train, None).unwrap();
    let spec =
        ModelSpec { autoencoder: Arc::new(move |params: &Params| modality.build(params)), prior: parse(tiny.prior) };
    let mut config =
        TrainConfig { batch_size: 8, log_every: 1, sample_count: 0, recompute, precision, ..TrainConfig::default() };
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
fn assert_agree(what: &str, kernels: &Figures, others: &Figures, [first, later]: [f64; 2]) {
    assert_eq!(kernels.len(), 4, "{what}");
    assert_eq!(others.len(), 4, "{what}");
    for (step, (a, b)) in kernels.iter().zip(others).enumerate() {
        let tolerance = if step == 0 { first } else { later };
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

/// The first GPU, or a word on why there is none: its kernels run on the CPU then.
fn gpu_or_word() -> Option<Device> {
    match gpu::count() {
        Ok(1..) => return Some(gpu::open(0).unwrap()),
        Ok(_) => eprintln!("skipped on a GPU: {} finds none", if gpu::is_built_in() { "CUDA" } else { "a CPU build" }),
        Err(why) => eprintln!("skipped on a GPU: {why}"),
    }
    None
}

/// In the memory of a device a set has the batches that it has itself.
fn lives_on_a_device<M: Modality>(tiny: &Tiny) {
    let (data, model): (M::Data, M::Model) = (parse(tiny.data), parse(tiny.autoencoder));
    let set = M::new(&data, &model, &M::prepare(&data, None).unwrap()).unwrap().dataset(Split::Train, None).unwrap();
    let resident = set.resident(&Device::Cpu, usize::MAX).unwrap().expect("nothing moves in it");
    let (mut a, mut b) = (Rng::new(3), Rng::new(3));
    for indices in [[5, 0, 17], [17, 18, 5]] {
        let (x, y) = (set.batch(&indices, &mut a).unwrap().x, resident.batch(&indices, &mut b).unwrap().x);
        assert_eq!((x.dims(), x.dtype()), (y.dims(), y.dtype()), "{}", M::NAME);
        let values = |x: Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(values(x) == values(y), "{}", M::NAME);
    }
    assert_eq!(a.bits(), b.bits(), "{}: both go on alike", M::NAME);
}

/// Tolerances of the first step and of later ones, in single precision.
const SINGLE: [f64; 2] = [1e-4, 1e-2];
/// The same in bf16.
const ROUNDED: [f64; 2] = [5e-2, 1e-1];

fn check<M: Modality>(tiny: &Tiny) {
    let cpu = |precision, recompute| figures::<M>(tiny, &Device::Cpu, precision, recompute);
    let kernels = cpu(Precision::F32, false);
    let agree = |how: &str, found: &Figures, tolerances| {
        assert_agree(&format!("{} {how}", M::NAME), &kernels, found, tolerances);
    };
    agree("recomputed", &cpu(Precision::F32, true), SINGLE);
    agree("composed", &without_kernels(|| cpu(Precision::F32, false)), SINGLE);
    agree("composed in bf16", &without_kernels(|| cpu(Precision::Bf16, false)), ROUNDED);
    lives_on_a_device::<M>(tiny);
    let device = gpu_or_word();
    for (precision, tolerances) in [(Precision::F32, SINGLE), (Precision::Bf16, ROUNDED)] {
        let found = match &device {
            Some(device) => Some(figures::<M>(tiny, device, precision, false)),
            None => with_gpu_kernels(|| cpu(precision, false)),
        };
        if let Some(found) = found {
            let place = if device.is_some() { "on a GPU" } else { "by a GPU's kernels on the CPU" };
            agree(&format!("{place} in {precision:?}"), &found, tolerances);
        }
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
fn binary_images_in_cells_of_depthwise_convolutions() {
    check::<lsgm::binary::Binary>(&Tiny {
        data: "set = 'glyphs'\nlimit = 64",
        autoencoder: "kind = 'nvae'\nencoder_channels = 4\ndecoder_channels = 4\nchannel_multipliers = [1, 1, 1]\n\
                      preprocess_cells = 1\npostprocess_cells = 1\nlatent_channels = 2\ncells = 'res-mbconv'\nflows = 1",
        prior: "network = { kind = 'ncsnpp', channels = 8, blocks = 1, fir = true }",
    });
}

#[test]
fn sound_by_values() {
    check::<lsgm::audio::Audio>(&Tiny {
        data: "sample_rate = 2000\nsamples = 256\nlimit = 60",
        autoencoder: "kind = 'wave'\nstrides = [16]\nchannels = [8]\nblocks = 1\nlatent_channels = 2\n\
                      activation = 'snake'\nlikelihood = { kind = 'mu-law', width = 8 }",
        prior: "network = { kind = 'unet', channels = 8, blocks = 1, channel_multipliers = [1], attention = [], embedding = 16, \
                dropout = 0.2 }",
    });
}

#[test]
fn text_token_by_token() {
    check::<lsgm::text::Text>(&Tiny {
        data: "set = 'grammar'\nlength = 16\nlimit = 300\ntokenizer = { kind = 'bpe', vocabulary = 400 }",
        autoencoder: "kind = 'transformer'\nchannels = 16\nheads = 2\nencoder_blocks = 1\ndecoder_blocks = 1\n\
                      latent_channels = 4\ndecoder = 'autoregressive'",
        prior: "network = { kind = 'mixture', components = 8, transformer = { channels = 16, blocks = 1, heads = 2, embedding = 8 } }",
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
