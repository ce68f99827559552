//! Layers: names and shapes of parameters, initial values, and what they compute beyond their op.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{assert_close, loss, normal, plain, values};
use lsgm_core::{ParamStore, Pass, Rng};
use lsgm_nn::ops::{self, Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig};
use lsgm_nn::{
    Activation, BatchNorm, Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d, Dropout, Embedding, GroupNorm, LayerNorm,
    Linear, MultiHeadAttention, RmsNorm, SelfAttention2d, SqueezeExcite, TimeEmbedding, groups_for, init, sinusoidal,
};

fn store() -> ParamStore {
    ParamStore::new(DType::F64, &Device::Cpu, Rng::new(7))
}

fn shapes(store: &ParamStore) -> Vec<String> {
    store.vars().iter().map(|(name, var)| format!("{name} {:?}", var.dims())).collect()
}

#[test]
fn parameters_have_the_published_names_and_shapes() {
    let s = store();
    let p = s.root();
    Linear::new(3, 4, true, &p.pp("linear")).unwrap();
    Conv2d::new(4, 6, (3, 1), Conv2dConfig::default().with_groups(2), true, &p.pp("conv2d")).unwrap();
    Conv1d::new(4, 6, 5, Conv1dConfig::default(), false, &p.pp("conv1d")).unwrap();
    let grouped = ConvTranspose2dConfig { groups: 2, ..Default::default() };
    ConvTranspose2d::new(4, 6, (2, 3), grouped, true, &p.pp("up2d")).unwrap();
    ConvTranspose1d::new(4, 6, 2, ConvTranspose1dConfig::default(), false, &p.pp("up1d")).unwrap();
    BatchNorm::new(3, 1e-5, 0.1, Activation::Silu, &p.pp("bn")).unwrap();
    Embedding::new(10, 3, &p.pp("table")).unwrap();
    SqueezeExcite::new(8, 4, &p.pp("se")).unwrap();
    assert_eq!(
        shapes(&s),
        [
            "bn.bias [3]",
            "bn.weight [3]",
            "conv1d.weight [6, 4, 5]",
            "conv2d.bias [6]",
            "conv2d.weight [6, 2, 3, 1]",
            "linear.bias [4]",
            "linear.weight [4, 3]",
            "se.expand.bias [8]",
            "se.expand.weight [8, 4]",
            "se.reduce.bias [4]",
            "se.reduce.weight [4, 8]",
            "table.weight [10, 3]",
            "up1d.weight [4, 6, 2]",
            "up2d.bias [6]",
            "up2d.weight [4, 3, 2, 3]",
        ]
    );
    let buffers: Vec<String> = s.buffers().into_iter().map(|(name, _)| name).collect();
    assert_eq!(buffers, ["bn.running_mean", "bn.running_var"]);
    let wrong = Conv2d::new(4, 5, (1, 1), Conv2dConfig::default().with_groups(2), true, &p).unwrap_err().to_string();
    assert!(wrong.contains("2 groups do not divide 5"), "{wrong}");
}

#[test]
fn default_initial_values_are_uniform_in_one_over_root_fan_in() {
    let s = store();
    Conv2d::new(16, 64, (3, 3), Conv2dConfig::same((3, 3)), true, &s.root()).unwrap();
    let bound = 1.0 / (16.0 * 9.0_f64).sqrt();
    for (name, var) in s.vars() {
        let v = values(&var);
        assert!(v.iter().all(|x| x.abs() <= bound), "{name}");
        let (mean, variance) = plain::mean_and_variance(&v);
        let (n, expected) = (v.len() as f64, bound * bound / 3.0);
        assert!(
            mean.abs() < 4.0 * (expected / n).sqrt() && (variance / expected - 1.0).abs() < 5.0 / n.sqrt(),
            "{name}"
        );
    }
    assert_eq!(init::he_normal(8), lsgm_core::Init::Normal(0.5));
    assert_eq!(init::variance_scaling(1.0, 4, 8), lsgm_core::Init::Uniform((3.0_f64 / 6.0).sqrt()));
    assert_eq!(init::glorot_uniform(4, 8), lsgm_core::Init::Uniform(0.5_f64.sqrt()));
}

#[test]
fn batch_norm_keeps_running_statistics_as_pytorch_does() {
    let s = store();
    let norm = BatchNorm::new(2, 1e-5, 0.1, Activation::Identity, &s.root()).unwrap();
    let x = (normal(1, (5, 2, 3)) + 2.0).unwrap();
    norm.forward(&x, true).unwrap();
    let rows = values(&x.transpose(0, 1).unwrap().contiguous().unwrap());
    for (c, row) in rows.chunks(15).enumerate() {
        let (mean, variance) = plain::mean_and_variance(row);
        assert!((values(&s.buffers()[0].1)[c] - 0.1 * mean).abs() < 1e-14);
        assert!((values(&s.buffers()[1].1)[c] - (0.9 + 0.1 * variance * 15.0 / 14.0)).abs() < 1e-14);
    }
    let before = values(&s.buffers()[0].1);
    let y = norm.forward(&x, false).unwrap();
    assert_eq!(values(&s.buffers()[0].1), before);
    let first = (values(&x)[0] - before[0]) / (values(&s.buffers()[1].1)[0] + 1e-5).sqrt();
    assert!((values(&y)[0] - first).abs() < 1e-14);
}

#[test]
fn a_frozen_layer_passes_the_gradient_to_its_input_only() {
    let s = store();
    let x = candle_core::Var::from_tensor(&normal(1, (2, 8, 3, 3))).unwrap();
    let forward = |params: &lsgm_core::Params| {
        let y = GroupNorm::new(2, 8, 1e-5, Activation::Silu, &params.pp("norm")).unwrap().forward(&x).unwrap();
        let conv = Conv2d::new(8, 4, (3, 3), Conv2dConfig::same((3, 3)), true, &params.pp("conv")).unwrap();
        loss(&conv.forward(&y).unwrap()).backward().unwrap()
    };
    let (trained, frozen) = (forward(&s.root()), forward(&s.frozen_root()));
    assert_close("dx", frozen.get(&x).unwrap(), trained.get(&x).unwrap(), 0.0);
    for (name, var) in s.vars() {
        assert!(trained.get(&var).is_some() && frozen.get(&var).is_none(), "{name}");
    }
}

#[test]
fn self_attention_starts_as_the_identity_and_agrees_with_the_formula() {
    let s = store();
    let block = SelfAttention2d::new(8, 2, &s.root()).unwrap();
    let x = normal(1, (2, 8, 3, 4));
    assert_close("identity", &block.forward(&x).unwrap(), &x, 0.0);

    let vars: std::collections::BTreeMap<_, _> = s.vars().into_iter().collect();
    vars["out.weight"].set(&normal(2, (8, 8, 1, 1))).unwrap();
    let normed = ops::group_norm(&x, &vars["norm.weight"], &vars["norm.bias"], 2, 1e-6, Activation::Identity).unwrap();
    let mix = |x: &Tensor, w: &Tensor, b: &Tensor| plain::conv2d(x, w, Some(b), &Conv2dConfig::default());
    let qkv = mix(&normed, &vars["qkv.weight"], &vars["qkv.bias"]);
    let part = |i: usize| {
        let heads = qkv.narrow(1, 8 * i, 8).unwrap().reshape((2, 2, 4, 12)).unwrap();
        heads.transpose(2, 3).unwrap().contiguous().unwrap()
    };
    let y = plain::attention(&part(0), &part(1), &part(2), 0.5);
    let y = y.transpose(2, 3).unwrap().contiguous().unwrap().reshape((2, 8, 3, 4)).unwrap();
    let expected = (&x + mix(&y, &vars["out.weight"], &vars["out.bias"])).unwrap();
    assert_close("formula", &block.forward(&x).unwrap(), &expected, 1e-13);
    assert!(SelfAttention2d::new(8, 3, &s.root()).unwrap_err().to_string().contains("3 heads do not divide 8"));
}

#[test]
fn attention_over_a_sequence_does_not_see_its_order() {
    let s = store();
    let layer = MultiHeadAttention::new(6, 3, &s.root()).unwrap();
    let x = normal(1, (2, 5, 6));
    let turned = |t: &Tensor| t.flip(&[1]).unwrap();
    let y = layer.forward(&x).unwrap();
    assert_eq!(y.dims(), x.dims());
    assert_close("reversed", &layer.forward(&turned(&x)).unwrap(), &turned(&y), 1e-13);
}

#[test]
fn dropout_keeps_the_mean_and_is_off_in_evaluation() {
    let x = Tensor::ones((100, 100), DType::F32, &Device::Cpu).unwrap();
    let mut rng = Rng::new(3);
    let layer = Dropout { p: 0.25 };
    let y = values(&layer.forward(&x, &mut Pass::train(&mut rng)).unwrap());
    let zeros = y.iter().filter(|v| **v == 0.0).count() as f64;
    assert!((zeros / 1e4 - 0.25).abs() < 4.0 * (0.25_f64 * 0.75 / 1e4).sqrt());
    assert!(y.iter().all(|v| *v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-6));
    assert_close("evaluation", &layer.forward(&x, &mut Pass::eval(&mut rng)).unwrap(), &x, 0.0);
    assert!(Dropout { p: 1.0 }.forward(&x, &mut Pass::train(&mut rng)).is_err());
}

#[test]
fn time_features_are_ddpms() {
    let t = Tensor::new(&[0.0f64, 0.5], &Device::Cpu).unwrap();
    let rows = TimeEmbedding::new(6).forward(&t).unwrap().to_vec2::<f64>().unwrap();
    assert_eq!(rows[0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    for (i, frequency) in [1.0_f64, 1e-2, 1e-4].into_iter().enumerate() {
        assert!((rows[1][i] - (500.0 * frequency).sin()).abs() < 1e-12);
        assert!((rows[1][i + 3] - (500.0 * frequency).cos()).abs() < 1e-12);
    }
    assert_eq!(sinusoidal(&t, 3, 1.0, 1e4).unwrap().to_vec2::<f64>().unwrap()[1], [0.5_f64.sin(), 0.5_f64.cos(), 0.0]);
}

#[test]
fn rows_and_groups() {
    let s = store();
    let x = normal(1, (3, 6));
    let y = LayerNorm::new(6, 1e-5, &s.root().pp("a")).unwrap().forward(&x).unwrap();
    assert!(values(&y.sum(1).unwrap()).iter().all(|v| v.abs() < 1e-12));
    let y = RmsNorm::new(6, 0.0, &s.root().pp("b")).unwrap().forward(&x).unwrap();
    assert!(values(&y.sqr().unwrap().mean(1).unwrap()).iter().all(|v| (v - 1.0).abs() < 1e-12));
    let groups: Vec<usize> = [1, 3, 8, 20, 48, 128, 512].into_iter().map(groups_for).collect();
    assert_eq!(groups, [1, 1, 2, 5, 12, 32, 32]);
}
