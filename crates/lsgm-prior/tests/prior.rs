//! The prior as a user of the library meets it.

use candle_core::{DType, Device, Tensor, Var};
use lsgm_core::{LatentNormal, LatentShape, ParamStore, Pass, Result, Rng, Spatial};
use lsgm_prior::networks::{
    Conditioning, MixtureConfig, NcsnppConfig, Progressive, ProgressiveCombine, ProgressiveInput, TimeFeatures,
    TransformerConfig, UnetConfig,
};
use lsgm_prior::solvers::{Rk45Options, probability_flow_rk45};
use lsgm_prior::{
    Guidance, MixedScore, NetworkConfig, OdeOptions, Prediction, Prior, PriorConfig, ScoreNetwork, Sde, SdeConfig,
    Trace, Weighting, ode_log_prob,
};

const LOG_2PI: f64 = 1.8378770664093453;

fn small(attention: Vec<usize>) -> PriorConfig {
    let unet = UnetConfig { channels: 16, embedding: 32, heads: 2, blocks: 1, attention, ..UnetConfig::default() };
    PriorConfig { network: NetworkConfig::Unet(unet), ..PriorConfig::default() }
}

fn store(dtype: DType) -> ParamStore {
    ParamStore::new(dtype, &Device::Cpu, Rng::new(3))
}

fn normal(dims: &[usize], seed: u64) -> Tensor {
    Rng::new(seed).normal_tensor(dims, DType::F64, &Device::Cpu).unwrap()
}

fn mean(t: &Tensor) -> f64 {
    t.to_dtype(DType::F64).unwrap().mean_all().unwrap().to_scalar().unwrap()
}

/// Give every parameter a random value, so that nothing that starts at zero hides a mistake.
fn randomize(store: &ParamStore) {
    let mut rng = Rng::new(9);
    for (_, var) in store.vars() {
        let noise = rng.normal_tensor(var.shape().clone(), var.dtype(), var.device()).unwrap();
        var.set(&(var.as_tensor() + (noise * 0.1).unwrap()).unwrap()).unwrap();
    }
}

/// The exact score of N(0, variance) data.
struct GaussianScore {
    sde: Sde,
    variance: f64,
}

impl ScoreNetwork for GaussianScore {
    fn forward(&self, z_t: &Tensor, t: &Tensor, _: &mut Pass<'_>) -> Result<Tensor> {
        let t: Vec<f64> = t.to_dtype(DType::F64)?.to_vec1()?;
        let coefficient = |t: f64| {
            let v = self.sde.variance(t);
            v.sqrt() / (self.sde.mean_coefficient(t).powi(2) * self.variance + v)
        };
        let values: Vec<f64> = t.iter().map(|&t| coefficient(t)).collect();
        let mut dims = vec![1; z_t.rank()];
        dims[0] = values.len();
        Ok(z_t.broadcast_mul(&Tensor::from_vec(values, dims, z_t.device())?.to_dtype(z_t.dtype())?)?)
    }
}

fn gaussian_prior(config: &SdeConfig, variance: f64, t_eps: f64, shape: LatentShape) -> Prior {
    let sde = Sde::new(config).unwrap();
    Prior::with_network(sde, shape, t_eps, None, Box::new(GaussianScore { sde, variance })).unwrap()
}

#[test]
fn the_config_round_trips_and_refuses_unknown_keys() {
    let config = PriorConfig::default();
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<PriorConfig>(&json).unwrap(), config);
    for bad in [
        r#"{"mixd": true}"#,
        r#"{"sde": {"kind": "vpsde", "beta": 1}}"#,
        r#"{"sde": {"kind": "vp"}}"#,
        r#"{"network": {"kind": "unet", "depth": 2}}"#,
    ] {
        assert!(serde_json::from_str::<PriorConfig>(bad).is_err(), "{bad}");
    }
    let partial: PriorConfig = serde_json::from_str(r#"{"sde": {"kind": "geometric"}, "t_eps": 0.0}"#).unwrap();
    partial.validate(&LatentShape::plane(8, 7, 7)).unwrap();
}

#[test]
fn bad_values_are_refused_by_key() {
    let shape = LatentShape::plane(8, 7, 7);
    let unet = |change: &dyn Fn(&mut UnetConfig)| {
        let mut config = UnetConfig::default();
        change(&mut config);
        PriorConfig { network: NetworkConfig::Unet(config), ..PriorConfig::default() }
    };
    let cases = [
        (PriorConfig { t_eps: 0.0, ..PriorConfig::default() }, "prior.t_eps"),
        (PriorConfig { t_eps: 1.5, ..PriorConfig::default() }, "prior.t_eps"),
        (
            PriorConfig {
                sde: SdeConfig::Vpsde { beta_start: 1.0, beta_end: 0.5, sigma2_0: 0.0 },
                ..PriorConfig::default()
            },
            "prior.sde.beta_end",
        ),
        (unet(&|c| c.channels = 7), "prior.network.channels"),
        (unet(&|c| c.channel_multipliers = vec![1, 1, 1, 1, 1]), "prior.network.channel_multipliers"),
        (unet(&|c| c.attention = vec![2]), "prior.network.attention"),
        (unet(&|c| c.heads = 5), "prior.network.heads"),
        (unet(&|c| c.dropout = 1.0), "prior.network.dropout"),
        (
            PriorConfig {
                network: NetworkConfig::Ncsnpp(NcsnppConfig { attention: vec![1], ..NcsnppConfig::default() }),
                ..PriorConfig::default()
            },
            "prior.network.attention",
        ),
    ];
    for (config, key) in cases {
        let message = config.validate(&shape).unwrap_err().to_string();
        assert!(message.contains(&format!("`{key}`")), "{message}");
    }
}

#[test]
fn training_starts_from_the_normal_prior() {
    let shape = LatentShape::plane(4, 7, 7);
    let store = store(DType::F32);
    let prior = Prior::new(&small(vec![1]), shape, &store.root()).unwrap();
    let alpha = prior.alpha().unwrap();
    assert!(alpha.iter().all(|a| (a - 1.0 / (1.0 + 6f64.exp())).abs() < 1e-6) && alpha.len() == 4);
    let z = normal(&[2, 4, 7, 7], 1).to_dtype(DType::F32).unwrap();
    let t = Tensor::new(&[0.3f32, 0.8], &Device::Cpu).unwrap();
    let epsilon = prior.epsilon(&z, &t, &mut Pass::eval(&mut Rng::new(0))).unwrap();
    let share = 1.0 - alpha[0];
    for (i, t) in [0.3, 0.8].into_iter().enumerate() {
        let expected = (z.get(i).unwrap() * (share * prior.sde().sigma(t))).unwrap();
        let difference = (epsilon.get(i).unwrap() - expected).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-5);
    }
}

/// Small networks of every kind and with every option.
fn networks() -> Vec<NetworkConfig> {
    let mut found = Vec::new();
    for levels in [vec![1], vec![1, 2], vec![1, 2, 2]] {
        for conditioning in [Conditioning::Additive, Conditioning::ScaleShift] {
            let NetworkConfig::Unet(unet) = small(vec![0]).network else { unreachable!() };
            found.push(NetworkConfig::Unet(UnetConfig { channel_multipliers: levels.clone(), conditioning, ..unet }));
        }
    }
    let ncsnpp = NcsnppConfig {
        channels: 8,
        channel_multipliers: vec![1, 2, 1],
        blocks: 1,
        attention: vec![],
        embedding: 8,
        dropout: 0.0,
        ..NcsnppConfig::default()
    };
    for fir in [false, true] {
        for progressive in [Progressive::None, Progressive::OutputSkip, Progressive::Residual] {
            for progressive_input in [ProgressiveInput::None, ProgressiveInput::InputSkip, ProgressiveInput::Residual] {
                let options = NcsnppConfig { fir, progressive, progressive_input, ..ncsnpp.clone() };
                found.push(NetworkConfig::Ncsnpp(options));
            }
        }
    }
    let progressive_combine = ProgressiveCombine::Cat;
    let progressive_input = ProgressiveInput::InputSkip;
    let cat = NcsnppConfig { progressive_combine, progressive_input, skip_rescale: false, ..ncsnpp };
    found.push(NetworkConfig::Ncsnpp(NcsnppConfig { embedding_kind: TimeFeatures::Fourier, ..cat.clone() }));
    found.push(NetworkConfig::Ncsnpp(cat));
    let transformer =
        TransformerConfig { channels: 16, blocks: 2, heads: 2, embedding: 8, ..TransformerConfig::default() };
    found.push(NetworkConfig::Transformer(TransformerConfig { open_gates: true, ..transformer.clone() }));
    found.push(NetworkConfig::Transformer(transformer));
    found
}

/// With attention at the first two levels of these latents, where levels are named by their widths.
fn attending(network: &NetworkConfig, shape: &LatentShape) -> NetworkConfig {
    match network {
        NetworkConfig::Ncsnpp(config) => {
            let (Spatial::Line(width) | Spatial::Plane(_, width)) = shape.spatial;
            NetworkConfig::Ncsnpp(NcsnppConfig { attention: vec![width, width.div_ceil(2)], ..config.clone() })
        }
        other => other.clone(),
    }
}

#[test]
fn networks_keep_odd_sizes_and_both_layouts() {
    for network in networks() {
        for shape in [LatentShape::plane(3, 7, 7), LatentShape::plane(3, 5, 8), LatentShape::line(3, 13)] {
            let config = PriorConfig { network: attending(&network, &shape), ..PriorConfig::default() };
            let store = store(DType::F32);
            let prior = Prior::new(&config, shape, &store.root()).unwrap();
            let z = normal(&shape.dims(2), 1).to_dtype(DType::F32).unwrap();
            let t = Tensor::new(&[0.1f32, 0.9], &Device::Cpu).unwrap();
            let epsilon = |prior: &Prior| prior.epsilon(&z, &t, &mut Pass::eval(&mut Rng::new(0))).unwrap();
            // An untrained network says 0, so that training starts from the scaled normal score.
            let start = (epsilon(&prior) / (1.0 - prior.alpha().unwrap()[0])).unwrap();
            let sigma =
                Tensor::new(&[prior.sde().sigma(0.1) as f32, prior.sde().sigma(0.9) as f32], &Device::Cpu).unwrap();
            let sigma = sigma.reshape([&[2][..], &vec![1; z.rank() - 1]].concat()).unwrap();
            assert!(mean(&(start - z.broadcast_mul(&sigma).unwrap()).unwrap().abs().unwrap()) < 1e-6, "{network:?}");

            randomize(&store);
            let epsilon = epsilon(&prior);
            assert_eq!(epsilon.dims(), z.dims());
            let grads = epsilon.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            // A bias of the keys shifts all logits alike and has no gradient but rounding.
            for (name, var) in store.vars().into_iter().filter(|(name, _)| !name.ends_with("NIN_1.b")) {
                let grad = grads.get(var.as_tensor()).unwrap_or_else(|| panic!("{network:?} {name} has no gradient"));
                assert!(mean(&grad.abs().unwrap()) > 0.0, "{network:?} {name}");
            }
        }
    }
}

/// Central differences of the cross entropy, in `z_0` and in all parameters at once.
#[test]
fn gradients_are_slopes() {
    let turned = TransformerConfig {
        rotary: true,
        channels: 16,
        heads: 2,
        blocks: 1,
        embedding: 8,
        ..TransformerConfig::default()
    };
    let patch =
        TransformerConfig { patch: 2, channels: 16, heads: 2, blocks: 1, embedding: 8, ..TransformerConfig::default() };
    let mut all = networks();
    all.push(NetworkConfig::Mixture(MixtureConfig { components: 7, transformer: patch.clone(), ..Default::default() }));
    all.extend([turned, patch].map(NetworkConfig::Transformer));
    for network in all {
        for shape in [LatentShape::plane(2, 6, 4), LatentShape::line(2, 6)] {
            let network = attending(&network, &shape);
            if network.validate("network", &shape).is_err() {
                continue;
            }
            let config = PriorConfig { network: network.clone(), ..PriorConfig::default() };
            let store = store(DType::F64);
            let prior = Prior::new(&config, shape, &store.root()).unwrap();
            randomize(&store);
            let times = prior.times_at(Weighting::LlIw, &[0.3, 0.7]).unwrap();
            let loss = |z: &Tensor| {
                prior.cross_entropy(z, &times, &mut Pass::eval(&mut Rng::new(5))).unwrap().sum_all().unwrap()
            };
            let value = |z: &Tensor| loss(z).to_scalar::<f64>().unwrap();
            let z = normal(&shape.dims(2), 1);
            let leaf = Var::from_tensor(&z).unwrap();
            let grads = loss(leaf.as_tensor()).backward().unwrap();
            let inner = |var: &Var, direction: &Tensor| {
                let product = (grads.get(var.as_tensor()).unwrap() * direction).unwrap();
                product.sum_all().unwrap().to_scalar::<f64>().unwrap()
            };
            let h = 1e-6;
            let direction = normal(&shape.dims(2), 2);
            let at = |h: f64| value(&(&z + (&direction * h).unwrap()).unwrap());
            let numeric = (at(h) - at(-h)) / (2.0 * h);
            let slope = inner(&leaf, &direction);
            assert!((slope - numeric).abs() < 1e-6 * (1.0 + numeric.abs()), "{network:?} z0: {slope} {numeric}");

            let vars: Vec<(Var, Tensor, Tensor)> = store
                .vars()
                .into_iter()
                .enumerate()
                .map(|(i, (_, var))| (var.clone(), var.as_tensor().copy().unwrap(), normal(var.dims(), 100 + i as u64)))
                .collect();
            let slope: f64 = vars.iter().map(|(var, _, direction)| inner(var, direction)).sum();
            let at = |h: f64| {
                for (var, original, direction) in &vars {
                    var.set(&(original + (direction * h).unwrap()).unwrap()).unwrap();
                }
                value(&z)
            };
            let numeric = (at(h) - at(-h)) / (2.0 * h);
            assert!((slope - numeric).abs() < 1e-6 * (1.0 + numeric.abs()), "{network:?}: {slope} {numeric}");
        }
    }
}

/// Of N(0, I) data and its exact score the cross entropy is the entropy, `D/2 log(2πe)` (up to `σ²(1) ≈ 1`).
#[test]
fn the_cross_entropy_of_a_normal_is_its_entropy() {
    let shape = LatentShape::line(4, 25);
    let n = 400;
    for config in SdeConfig::all_defaults().into_iter().take(3) {
        let sde = Sde::new(&config).unwrap();
        let t_eps = 1e-3;
        let prior = gaussian_prior(&config, 1.0, t_eps, shape);
        let z0 = normal(&shape.dims(n), 7);
        for weighting in [Weighting::LlIw, Weighting::LlUniform, Weighting::LlAngle, Weighting::LlClusters] {
            let mut rng = Rng::new(8);
            let times = prior.stratified_times(weighting, n, &mut rng).unwrap();
            let found = prior.cross_entropy(&z0, &times, &mut Pass::eval(&mut rng)).unwrap();
            let expected = 50.0 * (1.0 + LOG_2PI + sde.variance(1.0).ln());
            let values: Vec<f64> = found.to_vec1().unwrap();
            let average = values.iter().sum::<f64>() / n as f64;
            let spread = values.iter().map(|v| (v - average).powi(2)).sum::<f64>() / (n as f64 * (n - 1) as f64);
            // With sigma2_0 > 0 the data at t = 0 are a little wider than N(0, I).
            let slack = 3.0 * spread.sqrt() + 0.02;
            assert!((average - expected).abs() < slack, "{config:?} {weighting:?}: {average} {expected} {slack}");
        }
    }
}

/// Of N(0, v I) data and their exact score, with `V(t) = m² v + σ²`, the bound is
/// `D/2 [log(2πe) + log V(t_eps) + log σ²(1) - log V(1)]`, whichever proposal the times come from.
#[test]
fn the_cross_entropy_of_another_gaussian_is_unbiased_for_every_weighting() {
    let (shape, v, t_eps, n) = (LatentShape::line(4, 25), 0.3, 1e-3, 2000);
    for config in SdeConfig::all_defaults() {
        let prior = gaussian_prior(&config, v, t_eps, shape);
        let sde = *prior.sde();
        let spread = |t: f64| sde.mean_coefficient(t).powi(2) * v + sde.variance(t);
        let ends = spread(t_eps).ln() + sde.variance(1.0).ln() - spread(1.0).ln();
        let expected = 50.0 * (1.0 + LOG_2PI + ends);
        let z0 = (normal(&shape.dims(n), 7) * v.sqrt()).unwrap();
        for weighting in [
            Weighting::LlIw,
            Weighting::LlUniform,
            Weighting::LlAngle,
            Weighting::LlClusters,
            Weighting::UnIw,
            Weighting::UnUniform,
        ] {
            if !weighting.is_defined_for(&sde) {
                continue;
            }
            let mut rng = Rng::new(8);
            let times = prior.stratified_times(weighting, n, &mut rng).unwrap();
            let found = prior.cross_entropy(&z0, &times, &mut Pass::eval(&mut rng)).unwrap();
            let values: Vec<f64> = found.to_vec1().unwrap();
            let average = values.iter().sum::<f64>() / n as f64;
            let error = values.iter().map(|v| (v - average).powi(2)).sum::<f64>() / (n as f64 * (n - 1) as f64);
            let off = (average - expected) / error.sqrt();
            eprintln!(
                "{} {weighting:?}: {average:.3} instead of {expected:.3}, error {:.3}",
                config.name(),
                error.sqrt()
            );
            assert!(off.abs() < 3.0 && error.sqrt() < 0.1 * expected.abs(), "{config:?} {weighting:?} {off}");
        }
    }
}

/// Independent Normals around `mean`, some of them wide.
fn wide(mean: &Tensor) -> LatentNormal {
    let variance = normal(mean.dims(), 6).affine(0.8, -1.0).unwrap().exp().unwrap();
    LatentNormal { mean: mean.clone(), variance: Some(variance) }
}

/// The bound of latents that are drawn anew each time, and that of what they are drawn from: the same mean of value and
/// gradients, less variance.
#[test]
fn averaging_over_the_posterior_lowers_the_variance_and_keeps_the_mean() {
    let (shape, n) = (LatentShape::line(2, 3), 4000);
    let prior = gaussian_prior(&SdeConfig::default(), 0.5, 1e-3, shape);
    let LatentNormal { mean: mu, variance } = wide(&normal(&shape.dims(1), 1));
    let (mu, variance) = (Var::from_tensor(&mu).unwrap(), Var::from_tensor(&variance.unwrap()).unwrap());
    let times = prior.stratified_times(Weighting::LlAngle, n, &mut Rng::new(2)).unwrap();
    // A draw of its own for each item: `[n, ..]` values, and gradients with respect to copies of mean and variance.
    let statistics = |analytic: bool| {
        let copies = |x: &Var| Var::from_tensor(&x.repeat((n, 1, 1)).unwrap()).unwrap();
        let (mean, variance) = (copies(&mu), copies(&variance));
        let latents = if analytic {
            LatentNormal { mean: mean.as_tensor().clone(), variance: Some(variance.as_tensor().clone()) }
        } else {
            let noise = variance.sqrt().unwrap() * normal(&shape.dims(n), 8);
            (mean.as_tensor() + noise.unwrap()).unwrap().into()
        };
        let bound = prior.cross_entropy(latents, &times, &mut Pass::eval(&mut Rng::new(4))).unwrap();
        let grads = bound.sum_all().unwrap().backward().unwrap();
        let grad = |x: &Var| grads.get(x.as_tensor()).unwrap().flatten_from(1).unwrap().to_vec2::<f64>().unwrap();
        let values: Vec<Vec<f64>> = bound.to_vec1::<f64>().unwrap().into_iter().map(|v| vec![v]).collect();
        [values, grad(&mean), grad(&variance)].map(|rows| {
            let columns = rows[0].len();
            (0..columns)
                .map(|c| {
                    let mean = rows.iter().map(|r| r[c]).sum::<f64>() / n as f64;
                    (mean, rows.iter().map(|r| (r[c] - mean).powi(2)).sum::<f64>() / (n - 1) as f64)
                })
                .collect::<Vec<_>>()
        })
    };
    for (drawn, averaged) in statistics(false).iter().zip(&statistics(true)) {
        for ((drawn, spread), (averaged, smaller)) in drawn.iter().zip(averaged) {
            let error = ((spread + smaller) / n as f64).sqrt();
            assert!((drawn - averaged).abs() < 4.0 * error, "{drawn} {averaged} {error}");
        }
        let total = |of: &[(f64, f64)]| of.iter().map(|(_, variance)| variance).sum::<f64>();
        assert!(total(averaged) < 0.7 * total(drawn), "{} {}", total(averaged), total(drawn));
    }
}

/// Clumps of latents, and the fitted mixture that has not been trained further.
#[test]
fn a_mixture_starts_from_the_clumps_of_the_latents() {
    let (shape, n) = (LatentShape::line(2, 3), 600);
    let transformer = TransformerConfig { channels: 8, heads: 2, blocks: 1, embedding: 8, ..Default::default() };
    let config = PriorConfig {
        mixed: false,
        network: NetworkConfig::Mixture(MixtureConfig { components: 4, transformer, ..Default::default() }),
        ..PriorConfig::default()
    };
    let store = store(DType::F64);
    let prior = Prior::new(&config, shape, &store.root()).unwrap();
    assert!(prior.fits());
    let centres = [[-2.0, 0.5], [0.0, -1.5], [1.5, 1.0], [0.3, 2.5]];
    let mut rng = Rng::new(1);
    let rows: Vec<f64> = (0..n)
        .flat_map(|_| {
            let [a, b, c] = [0; 3].map(|_| centres[rng.below(4)]);
            [a[0], b[0], c[0], a[1], b[1], c[1]]
        })
        .collect();
    let mean = Tensor::from_vec(rows, shape.dims(n), &Device::Cpu).unwrap();
    let variance = mean.ones_like().unwrap().affine(0.04, 0.0).unwrap();
    prior.fit(&mean, &variance, &mut rng).unwrap();

    let latents = LatentNormal { mean, variance: Some(variance.clone()) };
    let times = prior.stratified_times(Weighting::LlAngle, n, &mut rng).unwrap();
    let bound = prior.cross_entropy(&latents, &times, &mut Pass::eval(&mut rng)).unwrap();
    // For each token one of four clumps, and the entropy of two Normals.
    let entropy = 3.0 * (4f64.ln() + LOG_2PI + 1.0 + 0.04f64.ln());
    assert!((self::mean(&bound) - entropy).abs() < 0.15, "{} {entropy}", self::mean(&bound));

    // The network is told which clump each token is in, and nothing that is known already.
    let objective = prior.objective(latents.detach(), &times, &mut Pass::train(&mut rng)).unwrap();
    let grads = objective.mean_all().unwrap().backward().unwrap();
    for (name, var) in store.vars().into_iter().filter(|(name, _)| name.contains("final_layer.linear")) {
        assert!(self::mean(&grads.get(var.as_tensor()).unwrap().abs().unwrap()) > 0.0, "{name}");
    }
    let frozen = Prior::new(&config, shape, &store.frozen_root()).unwrap();
    assert!(frozen.fit(&latents.mean, &variance, &mut rng).unwrap_err().to_string().contains("frozen"));

    let wrong = PriorConfig { prediction: Prediction::Correction, ..config };
    assert!(wrong.validate(&shape).unwrap_err().to_string().contains("`prior.prediction`"));
}

#[test]
fn algorithm_2_gives_each_side_its_own_gradient() {
    let shape = LatentShape::line(2, 6);
    let store = store(DType::F64);
    let prior = Prior::new(&small(vec![]), shape, &store.root()).unwrap();
    randomize(&store);
    let z0 = Var::from_tensor(&normal(&shape.dims(5), 1)).unwrap();
    for weighting in [Weighting::UnIw, Weighting::UnUniform, Weighting::ReIw] {
        let times = prior.sample_times(weighting, 5, &mut Rng::new(2)).unwrap();
        let pass = || Rng::new(4);
        let share = 0.4;
        let latents = wide(z0.as_tensor());
        let variance = Var::from_tensor(latents.variance.as_ref().unwrap()).unwrap();
        let latents = LatentNormal { variance: Some(variance.as_tensor().clone()), ..latents };
        let shared = prior.shared_time_losses(&latents, &times, 0.7, share, &mut Pass::eval(&mut pass())).unwrap();
        let objective = prior.objective(&latents, &times, &mut Pass::eval(&mut pass())).unwrap();
        let entropy = prior.encoder_cross_entropy(&latents, &times, share, &mut Pass::eval(&mut pass())).unwrap();
        let close = |a: &Tensor, b: &Tensor, what: &str| {
            let size = mean(&b.abs().unwrap());
            let difference = mean(&(a - b).unwrap().abs().unwrap());
            assert!(difference <= 1e-10 * size.max(1e-12), "{what}: {difference} of {size}");
        };
        close(&shared.objective, &objective, "objective");
        close(&shared.cross_entropy, &entropy, "cross entropy");
        let grads = shared.objective.sum_all().unwrap().backward().unwrap();
        let prior_grads = objective.sum_all().unwrap().backward().unwrap();
        let encoder_grads = (entropy.sum_all().unwrap() * 0.7).unwrap().backward().unwrap();
        for (name, var) in store.vars() {
            close(grads.get(var.as_tensor()).unwrap(), prior_grads.get(var.as_tensor()).unwrap(), &name);
        }
        close(grads.get(z0.as_tensor()).unwrap(), encoder_grads.get(z0.as_tensor()).unwrap(), "z0");
        let variance = latents.variance.as_ref().unwrap();
        close(grads.get(variance).unwrap(), encoder_grads.get(variance).unwrap(), "variance");
        // The report carries no graph.
        assert!(shared.cross_entropy.sum_all().unwrap().backward().unwrap().get(z0.as_tensor()).is_none());
    }
}

#[test]
fn algorithm_3_keeps_the_two_sides_apart() {
    let shape = LatentShape::line(2, 6);
    let store = store(DType::F64);
    let config = small(vec![]);
    let prior = Prior::new(&config, shape, &store.root()).unwrap();
    let frozen = Prior::new(&config, shape, &store.frozen_root()).unwrap();
    randomize(&store);
    let z0 = Var::from_tensor(&normal(&shape.dims(5), 1)).unwrap();
    let mut rng = Rng::new(2);
    let times = prior.sample_times(Weighting::UnIw, 5, &mut rng).unwrap();
    let objective = prior.objective(z0.detach(), &times, &mut Pass::train(&mut rng)).unwrap();
    let grads = objective.sum_all().unwrap().backward().unwrap();
    assert!(grads.get(z0.as_tensor()).is_none());
    assert!(store.vars().iter().all(|(_, v)| grads.get(v.as_tensor()).is_some()));
    let times = frozen.sample_times(Weighting::LlIw, 5, &mut rng).unwrap();
    let entropy = frozen.encoder_cross_entropy(z0.as_tensor(), &times, 1.0, &mut Pass::train(&mut rng)).unwrap();
    let grads = entropy.sum_all().unwrap().backward().unwrap();
    assert!(grads.get(z0.as_tensor()).is_some());
    assert!(store.vars().iter().all(|(_, v)| grads.get(v.as_tensor()).is_none()));
}

/// The encoder's gradient goes from that of the N(0, I) prior, `-∇ log N(z0)`, to that of the prior itself; the prior's
/// own gradient and the value do not depend on how far it is.
#[test]
fn an_encoder_is_led_over_from_the_normal_prior() {
    let shape = LatentShape::line(2, 6);
    let store = store(DType::F64);
    let prior = Prior::new(&PriorConfig { t_eps: 1e-5, ..small(vec![]) }, shape, &store.root()).unwrap();
    randomize(&store);
    let z0 = Var::from_tensor(&normal(&shape.dims(5), 1)).unwrap();
    let times = prior.sample_times(Weighting::LlIw, 5, &mut Rng::new(2)).unwrap();
    let at = |share: f64| {
        let mut rng = Rng::new(4);
        let entropy = prior.encoder_cross_entropy(z0.as_tensor(), &times, share, &mut Pass::eval(&mut rng)).unwrap();
        let grads = entropy.sum_all().unwrap().backward().unwrap();
        let own: Vec<Tensor> = store.vars().iter().map(|(_, v)| grads.get(v.as_tensor()).unwrap().clone()).collect();
        (entropy, grads.get(z0.as_tensor()).unwrap().clone(), own)
    };
    let off = |a: &Tensor, b: &Tensor| mean(&(a - b).unwrap().abs().unwrap());
    let (start, half, end) = (at(0.0), at(0.5), at(1.0));
    assert!(off(&start.1, z0.as_tensor()) < 1e-3 && off(&end.1, &start.1) > 0.01);
    assert!(off(&half.1, &((&start.1 + &end.1).unwrap() * 0.5).unwrap()) < 1e-12);
    for (value, _, own) in [&start, &half] {
        assert!(off(value, &end.0) < 1e-12);
        assert!(own.iter().zip(&end.2).all(|(a, b)| off(a, b) < 1e-12));
    }
}

#[test]
fn inactive_channels_keep_the_normal_prior_and_stay_hidden() {
    let shape = LatentShape::line(3, 8);
    let store = store(DType::F64);
    let config = PriorConfig { mask_inactive: true, ..small(vec![]) };
    let prior = Prior::new(&config, shape, &store.root()).unwrap();
    randomize(&store);
    prior.set_active_channels(&[true, false, true]).unwrap();
    assert_eq!(prior.alpha().unwrap()[1], 0.0);
    let z = normal(&shape.dims(2), 1);
    let t = Tensor::new(&[0.4f64, 0.6], &Device::Cpu).unwrap();
    let epsilon = |z: &Tensor| prior.epsilon(z, &t, &mut Pass::eval(&mut Rng::new(0))).unwrap();
    let first = epsilon(&z);
    let expected = (z.get(0).unwrap().get(1).unwrap() * prior.sde().sigma(0.4)).unwrap();
    assert!(mean(&(first.get(0).unwrap().get(1).unwrap() - expected).unwrap().abs().unwrap()) < 1e-12);
    let mask = Tensor::new(&[0f64, 1.0, 0.0], &Device::Cpu).unwrap().reshape((1, 3, 1)).unwrap();
    let changed = epsilon(&(&z + mask.broadcast_as(z.shape()).unwrap()).unwrap());
    let difference = (changed - first).unwrap().abs().unwrap().mean((0, 2)).unwrap().to_vec1::<f64>().unwrap();
    assert!(difference[0] == 0.0 && difference[1] > 0.1 && difference[2] == 0.0);
    assert!(Prior::new(&small(vec![]), shape, &store.root()).unwrap().set_active_channels(&[true; 3]).is_err());
}

/// With Gaussian data everything is known: the flow maps `z_1` by the ratio of standard deviations, and the density is
/// the Gaussian's.
#[test]
fn the_flow_and_its_likelihood_are_exact_for_a_gaussian() {
    let shape = LatentShape::line(2, 3);
    let variance = 0.3;
    for config in [SdeConfig::default(), SdeConfig::all_defaults()[2]] {
        let prior = gaussian_prior(&config, variance, 1e-5, shape);
        let sde = *prior.sde();
        let z1 = normal(&shape.dims(4), 1);
        let mut seen = Vec::new();
        let (z0, nfe) =
            probability_flow_rk45(&prior, &z1, 1.0, 1e-5, &Rk45Options::with_tolerance(1e-7), &mut |step| {
                seen.push((step.t, step.nfe));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen.last().unwrap(), &(1e-5, nfe));
        let deviation = |t: f64| (sde.mean_coefficient(t).powi(2) * variance + sde.variance(t)).sqrt();
        let expected = (&z1 * (deviation(1e-5) / deviation(1.0))).unwrap();
        assert!(mean(&(&z0 - expected).unwrap().abs().unwrap()) < 1e-5);

        let exact = (z0.sqr().unwrap().sum((1, 2)).unwrap() * (-0.5 / variance)).unwrap();
        let exact = (exact - 3.0 * (LOG_2PI + variance.ln())).unwrap();
        for (trace, probes, slack) in
            [(Trace::Exact, 1, 1e-3), (Trace::Rademacher, 1, 1e-3), (Trace::Gaussian, 50, 1.0)]
        {
            let options = OdeOptions { tolerance: 1e-6, trace, probes, ..OdeOptions::default() };
            let found = ode_log_prob(&prior, &z0, &options, &mut Rng::new(3)).unwrap();
            let error: Vec<f64> = (&found.log_p - &exact).unwrap().to_vec1().unwrap();
            let slack = match &found.standard_error {
                Some(standard_error) => 4.0 * standard_error.max_all().unwrap().to_scalar::<f64>().unwrap(),
                None => slack,
            };
            assert!(error.iter().all(|e| e.abs() < slack), "{config:?} {trace:?} {error:?} {slack}");
            assert!(mean(&(&found.z1 - &z1).unwrap().abs().unwrap()) < 1e-3);
        }
    }
}

#[test]
fn hutchinson_agrees_with_the_exact_trace_on_a_network() {
    let shape = LatentShape::line(2, 4);
    let store = store(DType::F64);
    let prior = Prior::new(&PriorConfig { alpha_init: 0.0, ..small(vec![]) }, shape, &store.frozen_root()).unwrap();
    randomize(&store);
    let z0 = normal(&shape.dims(2), 1);
    let solve = |trace, probes| {
        let options = OdeOptions { tolerance: 1e-4, t_eps: 1e-3, trace, probes };
        ode_log_prob(&prior, &z0, &options, &mut Rng::new(5)).unwrap()
    };
    let exact: Vec<f64> = solve(Trace::Exact, 1).log_p.to_vec1().unwrap();
    let estimate = solve(Trace::Rademacher, 12);
    let errors: Vec<f64> = estimate.standard_error.unwrap().to_vec1().unwrap();
    let values: Vec<f64> = estimate.log_p.to_vec1().unwrap();
    for ((value, exact), error) in values.iter().zip(&exact).zip(&errors) {
        assert!((value - exact).abs() < 5.0 * error + 1e-3, "{value} {exact} {error}");
    }
}

#[test]
fn solver_options_out_of_range_are_refused() {
    let prior = gaussian_prior(&SdeConfig::default(), 1.0, 1e-3, LatentShape::line(1, 2));
    let z = normal(&[1, 1, 2], 1);
    let flow = |from, to, tolerance| {
        probability_flow_rk45(&prior, &z, from, to, &Rk45Options::with_tolerance(tolerance), &mut |_| Ok(())).is_err()
    };
    assert!(flow(1.0, 1e-3, 0.0) && flow(1.0, 0.0, 1e-5) && flow(2.0, 1e-3, 1e-5) && !flow(1.0, 1e-3, 1e-3));
    let bad = |options: OdeOptions| ode_log_prob(&prior, &z, &options, &mut Rng::new(1)).is_err();
    assert!(bad(OdeOptions { tolerance: -1.0, ..OdeOptions::default() }));
    assert!(bad(OdeOptions { probes: 0, ..OdeOptions::default() }));
    assert!(bad(OdeOptions { t_eps: 1.0, ..OdeOptions::default() }));
}

#[test]
fn the_mixture_is_linear_in_alpha() {
    let shape = LatentShape::line(1, 2);
    let sde = Sde::new(&SdeConfig::default()).unwrap();
    let logit = Tensor::new(&[0.4f64], &Device::Cpu).unwrap().reshape((1, 1, 1)).unwrap();
    let mixed = Some(MixedScore::with_logit(logit));
    let network = Box::new(GaussianScore { sde, variance: 0.2 });
    let prior = Prior::with_network(sde, shape, 1e-3, mixed, network).unwrap();
    let z = normal(&[1, 1, 2], 1);
    let found = prior.epsilon_at(&z, &[0.2], &mut Pass::eval(&mut Rng::new(0))).unwrap();
    let alpha = 1.0 / (1.0 + (-0.4f64).exp());
    let (m, v) = (sde.mean_coefficient(0.2), sde.variance(0.2));
    let expected = (1.0 - alpha) * v.sqrt() + alpha * v.sqrt() / (m * m * 0.2 + v);
    assert!(mean(&(found - (z * expected).unwrap()).unwrap().abs().unwrap()) < 1e-12);
}

#[test]
fn a_correction_is_added_to_the_normal_part_and_starts_as_nothing() {
    let shape = LatentShape::plane(2, 3, 3);
    let mut config = PriorConfig { alpha_init: 0.25, ..small(vec![]) };
    let store = ParamStore::new(DType::F64, &Device::Cpu, Rng::new(2));
    let noise = Prior::new(&config, shape, &store.root()).unwrap();
    config.prediction = Prediction::Correction;
    let correction = Prior::new(&config, shape, &store.root()).unwrap();
    let z = Rng::new(4).normal_tensor(shape.dims(1), DType::F64, &Device::Cpu).unwrap();
    let (t, alpha) = (0.2, 1.0 / (1.0 + (-0.25f64).exp()));
    let sigma = noise.sde().sigma(t);
    let normal = (&z * noise.sde().mixing_coefficient(t)).unwrap();
    // What a prior says beyond a share of the N(0, I) part.
    let beyond = |prior: &Prior, share: f64| {
        let epsilon = prior.epsilon_at(&z, &[t], &mut Pass::eval(&mut Rng::new(0))).unwrap();
        (epsilon - (&normal * share).unwrap()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
    };
    assert!(beyond(&correction, 1.0).iter().all(|v| v.abs() < 1e-12));
    // Layers that start at zero hide the network.
    for (name, var) in store.vars().into_iter().filter(|(name, _)| name.starts_with("network.")) {
        let value = Rng::new(3).fork(&name).normal_tensor(var.shape().clone(), DType::F64, &Device::Cpu).unwrap();
        var.set(&(value * 0.2).unwrap()).unwrap();
    }
    for (a, b) in beyond(&noise, 1.0 - alpha).iter().zip(beyond(&correction, 1.0)) {
        assert!((a * sigma - b).abs() < 1e-9 && a.abs() > 1e-6, "{a} {b}");
    }
}

/// Says how strongly it is guided.
struct Strength;

impl ScoreNetwork for Strength {
    fn forward(&self, z_t: &Tensor, _: &Tensor, _: &mut Pass<'_>) -> Result<Tensor> {
        Ok(z_t.ones_like()?)
    }

    fn guided(&self, z_t: &Tensor, _: &Tensor, strength: f64, _: &mut Pass<'_>) -> Result<Tensor> {
        Ok((z_t.ones_like()? * strength)?)
    }
}

#[test]
fn guidance_sets_in_below_its_time() {
    let sde = Sde::new(&SdeConfig::default()).unwrap();
    let prior = Prior::with_network(sde, LatentShape::line(1, 1), 1e-3, None, Box::new(Strength)).unwrap();
    let z = normal(&[2, 1, 1], 1);
    let at = |prior: &Prior, t: f64| mean(&prior.epsilon_all(&z, t, &mut Pass::eval(&mut Rng::new(0))).unwrap());
    let guided = prior.guided(Guidance { strength: 3.0, below: 0.4 });
    assert_eq!([0.9, 0.41, 0.4, 0.01].map(|t| at(&guided, t)), [1.0, 1.0, 3.0, 3.0]);
    assert_eq!(at(&prior.guided(Guidance { strength: 3.0, below: 1.0 }), 1.0), 3.0);
    assert_eq!(at(&prior, 0.01), 1.0);
}
