//! Modalities that break one contract each: the error says which and where, before anything is trained.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};
use lsgm_core::Init;
use lsgm_core::{
    Autoencoder, Batch, Dataset, Decoder, Encoder, LatentShape, Latents, Likelihood, Params, Pass, Posterior, Result,
    Rng,
};
use lsgm_engine::{Event, Interrupt, ModelSpec, SampleConfig, StageSelection, TrainConfig, Trainer};
use lsgm_nn::{BatchNorm, Linear, ops::Activation};
use lsgm_prior::PriorConfig;

/// The contract that is broken.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Broken {
    Nothing,
    /// Not broken: the decoder's first layer starts with zeros.
    ZeroStart,
    Empty,
    FewItems,
    ItemNan,
    LatentShape,
    LatentNan,
    Detached,
    Stray,
    IgnoredLatent,
    LogProbShape,
    LogProbNan,
    SampleShape,
    DecoderInput,
    ExtentShape,
    ExtentOfNothing,
}

const ITEMS: usize = 16;

struct Points(Broken);

impl Dataset for Points {
    fn len(&self) -> usize {
        if self.0 == Broken::Empty { 0 } else { ITEMS }
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Batch> {
        let count = if self.0 == Broken::FewItems { indices.len() - 1 } else { indices.len() };
        let mut values = rng.normals(3 * count);
        if self.0 == Broken::ItemNan {
            values[4] = f32::NAN;
        }
        Ok(Batch { x: Tensor::from_vec(values, (count, 3), &Device::Cpu)?, labels: None })
    }
}

struct Model {
    broken: Broken,
    encoder: Linear,
    norm: BatchNorm,
    decoder: Linear,
    bias: Tensor,
}

impl Model {
    fn new(broken: Broken, params: &Params) -> Result<Self> {
        let decoder = if broken == Broken::Stray { params.pp("decode") } else { params.pp("decoder") };
        let inputs = if broken == Broken::DecoderInput { 5 } else { 8 };
        let weight = if broken == Broken::ZeroStart { Init::Const(0.0) } else { Init::Normal(0.3) };
        Ok(Self {
            broken,
            encoder: Linear::new(3, 16, true, &params.pp("encoder"))?,
            norm: BatchNorm::new(16, 1e-5, 0.1, Activation::Identity, &params.pp("encoder.norm"))?,
            decoder: Linear::new_with(inputs, 3, Some(Init::Const(0.0)), weight, &decoder)?,
            bias: decoder.pp("free").get("bias", (1, 3), Init::Const(0.0))?,
        })
    }
}

impl Encoder for Model {
    fn latent_shape(&self) -> LatentShape {
        LatentShape::line(2, if self.broken == Broken::LatentShape { 3 } else { 4 })
    }

    fn encode(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Posterior> {
        let h = self.norm.forward(&self.encoder.forward(x)?, pass.training)?;
        let h = match self.broken {
            Broken::Detached => h.detach(),
            Broken::LatentNan => (h * f64::NAN)?,
            _ => h,
        };
        let h = h.reshape(((), 4, 4))?;
        Posterior::normal(h.narrow(1, 0, 2)?.contiguous()?, h.narrow(1, 2, 2)?.contiguous()?, pass.rng)
    }
}

impl Decoder for Model {
    fn decode(&self, z: &Latents, _: &mut Pass<'_>) -> Result<Box<dyn Likelihood>> {
        let z = z.prior.flatten_from(1)?;
        let mean = match self.broken {
            Broken::IgnoredLatent => self.bias.broadcast_as((z.dim(0)?, 3))?.contiguous()?,
            _ => self.decoder.forward(&z)?.broadcast_add(&self.bias)?,
        };
        Ok(Box::new(Normal(mean, self.broken)))
    }
}

impl Autoencoder for Model {
    fn extent(&self, x: &Tensor) -> Result<Option<Tensor>> {
        match self.broken {
            Broken::ExtentShape => Ok(Some(x.clone())),
            Broken::ExtentOfNothing => Ok(Some(Tensor::new(&[1f32, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], &Device::Cpu)?)),
            _ => Ok(None),
        }
    }
}

struct Normal(Tensor, Broken);

impl Likelihood for Normal {
    fn log_prob(&self, x: &Tensor) -> Result<Tensor> {
        let square = ((x - &self.0)?.sqr()? * -0.5)?;
        match self.1 {
            Broken::LogProbShape => Ok(square),
            Broken::LogProbNan => Ok(square.sum(D::Minus1)?.log()?),
            _ => Ok(square.sum(D::Minus1)?),
        }
    }

    fn sample(&self, _: f64, _: &mut Rng) -> Result<Tensor> {
        if self.1 == Broken::SampleShape { Ok(self.0.narrow(1, 0, 2)?) } else { Ok(self.0.clone()) }
    }

    fn mean(&self) -> Result<Tensor> {
        Ok(self.0.clone())
    }
}

/// Train two steps; the message of the error, and the number of steps that were taken.
fn train(broken: Broken) -> (Option<String>, u64) {
    let build = move |p: &Params| Ok(Box::new(Model::new(broken, p)?) as Box<dyn Autoencoder>);
    let prior: PriorConfig =
        toml::from_str("network = { kind = \"transformer\", channels = 8, heads = 1, blocks = 1 }").unwrap();
    let spec = ModelSpec { autoencoder: Arc::new(build), prior };
    let mut config = TrainConfig { batch_size: 8, sample_count: 0, ..TrainConfig::default() };
    (config.vae.steps, config.lsgm.steps) = (Some(2), Some(0));
    let data = Arc::new(Points(broken));
    let mut steps = 0;
    let mut observer = |event: &Event<'_>| {
        steps += u64::from(matches!(event, Event::Step(..)));
        Ok(())
    };
    let outcome = Trainer::new(spec, config, SampleConfig::default(), data, &Device::Cpu, None)
        .and_then(|mut t| t.run(StageSelection::Vae, &Interrupt::default(), &mut observer));
    (outcome.err().map(|e| e.to_string()), steps)
}

#[test]
fn a_broken_contract_is_told_by_part_and_method_before_the_first_step() {
    for (broken, parts) in [
        (Broken::Empty, &["`data`", "no items", "`Dataset::len`"][..]),
        (Broken::FewItems, &["`data set`", "`Dataset::batch`", "[7, 3]", "8 indices"]),
        (Broken::ItemNan, &["`data set`", "not finite", "item 1"]),
        (Broken::LatentShape, &["`encoder`", "`Encoder::encode`", "[8, 2, 4]", "`Encoder::latent_shape`", "[8, 2, 3]"]),
        (Broken::LatentNan, &["`encoder`", "not finite", "group 0, item 0"]),
        (Broken::Detached, &["`encoder`", "no gradient", "`detach`"]),
        (Broken::Stray, &["`autoencoder`", "`decode.bias`", "`decoder.`"]),
        (Broken::IgnoredLatent, &["`decoder`", "no influence", "`Decoder::decode`", "z.prior"]),
        (Broken::LogProbShape, &["`likelihood`", "`Likelihood::log_prob`", "[8, 3]", "[8]"]),
        (Broken::LogProbNan, &["`likelihood`", "`Likelihood::log_prob`", "NaN nats"]),
        (Broken::SampleShape, &["`likelihood`", "`Likelihood::sample`", "[8, 2]", "[8, 3]"]),
        (Broken::ExtentShape, &["`autoencoder`", "`Autoencoder::extent` gave [8, 3] for 8 items"]),
        (Broken::ExtentOfNothing, &["`autoencoder`", "`Autoencoder::extent` gave 0 for item 1"]),
        (Broken::DecoderInput, &["`decoder`", "`Decoder::decode` failed on latents [8, 2, 4]"]),
    ] {
        let (message, steps) = train(broken);
        let message = message.unwrap_or_else(|| panic!("{broken:?} was not noticed"));
        assert_eq!(steps, 0, "{broken:?}");
        for part in parts {
            assert!(message.contains(part), "{broken:?}: `{part}` is missing in: {message}");
        }
    }
}

#[test]
fn a_decoder_that_starts_with_zeros_keeps_its_contract() {
    assert_eq!(train(Broken::Nothing), (None, 2));
    assert_eq!(train(Broken::ZeroStart), (None, 2));
}

#[test]
fn buffers_are_left_as_they_were() {
    let build = |p: &Params| Ok(Box::new(Model::new(Broken::Nothing, p)?) as Box<dyn Autoencoder>);
    let prior: PriorConfig =
        toml::from_str("network = { kind = \"transformer\", channels = 8, heads = 1, blocks = 1 }").unwrap();
    let spec = ModelSpec { autoencoder: Arc::new(build), prior };
    let mut config = TrainConfig { batch_size: 8, sample_count: 0, ..TrainConfig::default() };
    (config.vae.steps, config.lsgm.steps) = (Some(0), Some(0));
    let data = Arc::new(Points(Broken::Nothing));
    let mut t = Trainer::new(spec, config, SampleConfig::default(), data, &Device::Cpu, None).unwrap();
    t.run(StageSelection::All, &Interrupt::default(), &mut ()).unwrap();
    let mean = &t.parameters().tensors()["encoder.norm.running_mean"];
    assert_eq!(mean.to_dtype(DType::F64).unwrap().abs().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap(), 0.0);
}
