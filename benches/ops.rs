//! Forward and backward passes of every operation, and steps of every optimizer: `cargo bench --bench ops`.

// The macro of criterion makes a public function without documentation.
#![allow(missing_docs)]

use candle_core::{DType, Device, Tensor, Var};
use criterion::{Criterion, criterion_group, criterion_main};
use lsgm::Rng;
use lsgm::nn::ops::{self, Activation, Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig};
use lsgm::nn::optim::{Gradients, Optimizer, OptimizerConfig, OptimizerKind};

fn var(rng: &mut Rng, shape: &[usize]) -> Var {
    let value = rng.normal_tensor(shape, DType::F32, &Device::Cpu).expect("a tensor");
    Var::from_tensor(&value).expect("a variable")
}

fn measure(c: &mut Criterion, name: &str, shapes: &[&[usize]], op: impl Fn(&[Var]) -> lsgm::Result<Tensor>) {
    let mut rng = Rng::new(1);
    let inputs: Vec<Var> = shapes.iter().map(|s| var(&mut rng, s)).collect();
    c.bench_function(name, |b| {
        b.iter(|| op(&inputs).expect("forward").sum_all().expect("a sum").backward().expect("backward"));
    });
}

/// A tensor of normal numbers that no gradient is computed for.
fn constant(shape: &[usize]) -> Tensor {
    Rng::new(7).normal_tensor(shape, DType::F32, &Device::Cpu).expect("a tensor")
}

fn convolutions(c: &mut Criterion) {
    let same = Conv2dConfig::same((3, 3));
    for (channels, size) in [(64, 28), (64, 14), (256, 8)] {
        let shapes: [&[usize]; 2] = [&[32, channels, size, size], &[channels, channels, 3, 3]];
        measure(c, &format!("conv2d 3x3 {channels}@{size}"), &shapes, |v| ops::conv2d(&v[0], &v[1], None, &same));
    }
    measure(c, "conv2d 3x3 stride 2", &[&[32, 64, 28, 28], &[64, 64, 3, 3]], |v| {
        ops::conv2d(&v[0], &v[1], None, &same.with_stride((2, 2)))
    });
    measure(c, "conv2d 1x1", &[&[32, 64, 14, 14], &[384, 64, 1, 1]], |v| {
        ops::conv2d(&v[0], &v[1], None, &Conv2dConfig::default())
    });
    measure(c, "conv2d depthwise 5x5", &[&[32, 384, 14, 14], &[384, 1, 5, 5]], |v| {
        ops::conv2d(&v[0], &v[1], None, &Conv2dConfig::same((5, 5)).with_groups(384))
    });
    measure(c, "conv_transpose2d 4x4 stride 2", &[&[32, 64, 14, 14], &[64, 64, 4, 4]], |v| {
        let config = ConvTranspose2dConfig { stride: (2, 2), padding: (1, 1), ..Default::default() };
        ops::conv_transpose2d(&v[0], &v[1], None, &config)
    });
    measure(c, "conv1d 7", &[&[8, 64, 4096], &[64, 64, 7]], |v| {
        ops::conv1d(&v[0], &v[1], None, &Conv1dConfig::same(7))
    });
    measure(c, "conv1d 256 stride 128", &[&[16, 1, 8192], &[128, 1, 256]], |v| {
        ops::conv1d(&v[0], &v[1], None, &Conv1dConfig { stride: 128, padding: 64, ..Default::default() })
    });
    measure(c, "conv_transpose1d 256 stride 128", &[&[16, 128, 64], &[128, 1, 256]], |v| {
        let config = ConvTranspose1dConfig { stride: 128, padding: 64, ..Default::default() };
        ops::conv_transpose1d(&v[0], &v[1], None, &config)
    });
    measure(c, "conv_transpose1d 4 stride 2", &[&[8, 64, 2048], &[64, 64, 4]], |v| {
        let config = ConvTranspose1dConfig { stride: 2, padding: 1, ..Default::default() };
        ops::conv_transpose1d(&v[0], &v[1], None, &config)
    });
}

fn norms(c: &mut Criterion) {
    for activation in [Activation::Identity, Activation::Silu] {
        measure(c, &format!("group_norm {activation:?} 256@8"), &[&[32, 256, 8, 8], &[256], &[256]], |v| {
            ops::group_norm(&v[0], &v[1], &v[2], 32, 1e-5, activation)
        });
        measure(c, &format!("batch_norm_train {activation:?} 64@28"), &[&[32, 64, 28, 28], &[64], &[64]], |v| {
            ops::batch_norm_train(&v[0], &v[1], &v[2], 1e-5, activation).map(|(y, _, _)| y)
        });
    }
    let (mean, variance) = (constant(&[64]), constant(&[64]).sqr().expect("squares"));
    measure(c, "batch_norm_eval 64@28", &[&[32, 64, 28, 28], &[64], &[64]], |v| {
        ops::batch_norm_eval(&v[0], &v[1], &v[2], &mean, &variance, 1e-5, Activation::Identity)
    });
    measure(c, "layer_norm 2048x256", &[&[2048, 256], &[256], &[256]], |v| ops::layer_norm(&v[0], &v[1], &v[2], 1e-5));
    let conditions: [&[usize]; 3] = [&[32, 64, 256], &[32, 1, 256], &[32, 1, 256]];
    measure(c, "modulated_layer_norm 2048x256", &conditions, |v| ops::modulated_layer_norm(&v[0], &v[1], &v[2], 1e-6));
    let branch: [&[usize]; 3] = [&[32, 64, 256], &[32, 64, 256], &[32, 1, 256]];
    measure(c, "gated_sum 2048x256", &branch, |v| ops::gated_sum(&v[0], &v[1], &v[2]));
    measure(c, "rms_norm 2048x256", &[&[2048, 256], &[256]], |v| ops::rms_norm(&v[0], &v[1], 1e-5));
    measure(c, "weight_norm 384x64x3x3", &[&[384, 64, 3, 3], &[384]], |v| ops::weight_norm(&v[0], &v[1], 1e-5));
}

fn products(c: &mut Criterion) {
    measure(c, "linear 512 to 2048", &[&[2048, 512], &[2048, 512]], |v| ops::linear(&v[0], &v[1], None));
    let heads: &[usize] = &[32, 8, 64, 32];
    measure(c, "attention 64 positions", &[heads; 3], |v| ops::attention(&v[0], &v[1], &v[2], 0.176_776_7));
    let long: &[usize] = &[2, 8, 1024, 32];
    measure(c, "attention 1024 positions", &[long; 3], |v| ops::attention(&v[0], &v[1], &v[2], 0.176_776_7));
    let ids =
        Tensor::from_vec((0..2048).map(|i| i * 37 % 1000).collect::<Vec<u32>>(), 2048, &Device::Cpu).expect("ids");
    let mixture: [&[usize]; 3] = [&[32, 32, 25], &[32, 2000, 25], &[32, 32, 2000]];
    measure(c, "component_shares 1024x2000", &mixture[..2], |v| ops::component_shares(&v[0], &v[1]));
    measure(c, "expected_factors 1024x2000", &mixture, |v| Ok(ops::expected_factors(&v[0], &v[1], &v[2], None)?.0));
    measure(c, "embedding 1000x256", &[&[1000, 256]], |v| ops::embedding(&v[0], &ids));
    measure(c, "categorical_log_prob 2048x1000", &[&[2048, 1000]], |v| ops::categorical_log_prob(&v[0], &ids));
}

fn elementwise(c: &mut Criterion) {
    type Function = fn(&Tensor) -> lsgm::Result<Tensor>;
    let functions: [(&str, Function); 6] = [
        ("relu", ops::relu),
        ("silu", ops::silu),
        ("gelu", ops::gelu),
        ("elu", ops::elu),
        ("softplus", ops::softplus),
        ("sigmoid", ops::sigmoid),
    ];
    for (name, f) in functions {
        measure(c, &format!("{name} 1M"), &[&[1 << 20]], |v| f(&v[0]));
    }
    measure(c, "softmax 16384x64", &[&[16384, 64]], |v| ops::softmax(&v[0]));
    measure(c, "log_softmax 16384x64", &[&[16384, 64]], |v| ops::log_softmax(&v[0]));
    let x = constant(&[128, 784]).ge(0.0).and_then(|x| x.to_dtype(DType::F32)).expect("zeros and ones");
    measure(c, "bernoulli_log_prob 128x784", &[&[128, 784]], |v| ops::bernoulli_log_prob(&v[0], &x));
    let factors = vec![1.5; 1 << 20];
    measure(c, "mask 1M", &[&[1 << 20]], |v| ops::mask(&v[0], factors.clone()));
}

fn resolution(c: &mut Criterion) {
    let image: &[usize] = &[32, 64, 14, 14];
    measure(c, "upsample_nearest2d", &[image], |v| ops::upsample_nearest2d(&v[0], 2));
    measure(c, "upsample_nearest1d", &[&[8, 64, 2048]], |v| ops::upsample_nearest1d(&v[0], 2));
    measure(c, "avg_pool2d", &[image], |v| ops::avg_pool2d(&v[0], 2));
    measure(c, "avg_pool1d", &[&[8, 64, 2048]], |v| ops::avg_pool1d(&v[0], 2));
    measure(c, "global_avg_pool", &[image], |v| ops::global_avg_pool(&v[0]));
    measure(c, "squeeze_excite", &[image, &[32, 64]], |v| ops::squeeze_excite(&v[0], &v[1]));
}

fn optimizers(c: &mut Criterion) {
    for kind in [OptimizerKind::Adam, OptimizerKind::AdamW, OptimizerKind::Adamax] {
        let mut rng = Rng::new(2);
        let vars: Vec<(String, Var)> = (0..20).map(|i| (format!("p{i:02}"), var(&mut rng, &[50_000]))).collect();
        let mut loss = Tensor::new(0f32, &Device::Cpu).expect("zero");
        for (_, v) in &vars {
            loss = (loss + v.sqr().and_then(|s| s.sum_all()).expect("a sum")).expect("a sum");
        }
        let gradients = Gradients::collect(&loss.backward().expect("backward"), &vars);
        let mut optimizer = Optimizer::new(OptimizerConfig { kind, ..Default::default() }, vars).expect("an optimizer");
        c.bench_function(&format!("{kind:?} 1M parameters in 20 tensors"), |b| {
            b.iter(|| optimizer.step(&gradients, 1e-6, 1.0, None).expect("a step"));
        });
    }
}

criterion_group!(benches, convolutions, norms, products, elementwise, resolution, optimizers);
criterion_main!(benches);
