//! Forward and backward passes of single operations: `cargo bench --bench ops`.

// The macro of criterion makes a public function without documentation.
#![allow(missing_docs)]

use candle_core::{DType, Device, Tensor, Var};
use criterion::{Criterion, criterion_group, criterion_main};
use lsgm::Rng;
use lsgm::nn::ops::{self, Activation, Conv2dConfig};

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

fn all(c: &mut Criterion) {
    let same = Conv2dConfig::same((3, 3));
    for (channels, size) in [(64, 28), (64, 14), (256, 8)] {
        measure(
            c,
            &format!("conv3x3 {channels}@{size}"),
            &[&[32, channels, size, size], &[channels, channels, 3, 3]],
            |v| ops::conv2d(&v[0], &v[1], None, &same),
        );
    }
    measure(c, "group_norm+silu 256@8", &[&[32, 256, 8, 8], &[256], &[256]], |v| {
        ops::group_norm(&v[0], &v[1], &v[2], 32, 1e-5, Activation::Silu)
    });
    measure(c, "linear 512 to 2048", &[&[2048, 512], &[2048, 512]], |v| ops::linear(&v[0], &v[1], None));
    measure(c, "softmax 16384x64", &[&[16384, 64]], |v| ops::softmax(&v[0]));
    measure(c, "silu 1M", &[&[1 << 20]], |v| ops::silu(&v[0]));
    measure(c, "attention 8 heads", &[&[32, 8, 64, 32], &[32, 8, 64, 32], &[32, 8, 64, 32]], |v| {
        ops::attention(&v[0], &v[1], &v[2], 0.176_776_7)
    });
}

criterion_group!(benches, all);
criterion_main!(benches);
