//! Every op's values against references written as plain loops, over random shapes.

mod common;

use candle_core::{DType, Tensor};
use common::{assert_close, normal, plain, tensor, values};
use lsgm_nn::ops::{self, Activation, Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig};
use proptest::prelude::*;

/// The same numbers in another layout: the last two dimensions lie transposed in memory.
fn scattered(x: &Tensor) -> Tensor {
    let n = x.rank();
    x.transpose(n - 2, n - 1).unwrap().contiguous().unwrap().transpose(n - 2, n - 1).unwrap()
}

fn single(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F32).unwrap()
}

/// `f` in both precisions, contiguous and not, against `expected`.
fn check(expected: &Tensor, inputs: &[&Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    let owned: Vec<Tensor> = inputs.iter().map(|t| (*t).clone()).collect();
    assert_close("f64", &f(&owned), expected, 1e-12);
    let floats: Vec<Tensor> = owned.iter().map(single).collect();
    assert_close("f32", &f(&floats), expected, 2e-6 * 16.0);
    let odd: Vec<Tensor> = owned.iter().map(|t| if t.rank() > 1 { scattered(t) } else { t.clone() }).collect();
    assert_close("not contiguous", &f(&odd), expected, 1e-12);
}

/// Kernel size, stride, padding, dilation along one axis, with an input length that they fit.
fn axis() -> impl Strategy<Value = [usize; 5]> {
    (1..6usize, 1..4usize, 0..3usize, 1..3usize).prop_flat_map(|(kernel, stride, padding, dilation)| {
        let least = (dilation * (kernel - 1) + 1).saturating_sub(2 * padding).max(1);
        (least..least + 9).prop_map(move |length| [length, kernel, stride, padding, dilation])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn convolution(
        (batch, groups, cin, cout) in (1..5usize, 1..4usize, 1..6usize, 1..6usize), rows in axis(), columns in axis(),
    ) {
        let [h, kh, sh, ph, dh] = rows;
        let [w, kw, sw, pw, dw] = columns;
        let config = Conv2dConfig { stride: (sh, sw), padding: (ph, pw), dilation: (dh, dw), groups };
        let x = normal(1, (batch, groups * cin, h, w));
        let weight = normal(2, (groups * cout, cin, kh, kw));
        let bias = normal(3, groups * cout);
        let expected = plain::conv2d(&x, &weight, Some(&bias), &config);
        check(&expected, &[&x, &weight, &bias], |t| ops::conv2d(&t[0], &t[1], Some(&t[2]), &config).unwrap());
        let expected = plain::conv2d(&x, &weight, None, &config);
        check(&expected, &[&x, &weight], |t| ops::conv2d(&t[0], &t[1], None, &config).unwrap());
    }

    #[test]
    fn convolution_3x3(
        (batch, cin, cout) in (1..6usize, 1..20usize, 1..20usize), h in 1..18usize, w in 1..18usize,
    ) {
        let config = Conv2dConfig::same((3, 3));
        let (x, weight) = (normal(1, (batch, cin, h, w)), normal(2, (cout, cin, 3, 3)));
        let expected = plain::conv2d(&x, &weight, None, &config);
        check(&expected, &[&x, &weight], |t| ops::conv2d(&t[0], &t[1], None, &config).unwrap());
    }

    #[test]
    fn convolution_with_windows_far_apart(
        (batch, cin, cout) in (1..4usize, 1..4usize, 1..6usize), (sh, sw) in (1..6usize, 4..20usize),
        (kh, kw) in (1..6usize, 1..30usize), (ph, pw) in (0..4usize, 0..12usize), (h, w) in (6..9usize, 30..50usize),
    ) {
        let config = Conv2dConfig { stride: (sh, sw), padding: (ph, pw), ..Default::default() };
        let (x, weight, bias) = (normal(1, (batch, cin, h, w)), normal(2, (cout, cin, kh, kw)), normal(3, cout));
        let expected = plain::conv2d(&x, &weight, Some(&bias), &config);
        check(&expected, &[&x, &weight, &bias], |t| ops::conv2d(&t[0], &t[1], Some(&t[2]), &config).unwrap());
        // The other way round, with rows and columns that no window has seen.
        let (y, bias) = (normal(4, expected.shape().clone()), normal(5, cin));
        let extra = |size: usize, kernel: usize, stride: usize, padding: usize| (size + 2 * padding - kernel) % stride;
        let output_padding = (extra(h, kh, sh, ph), extra(w, kw, sw, pw));
        let config = ConvTranspose2dConfig { stride: (sh, sw), padding: (ph, pw), output_padding, ..Default::default() };
        let expected = plain::conv_transpose2d(&y, &weight, Some(&bias), &config);
        check(&expected, &[&y, &weight, &bias], |t| {
            ops::conv_transpose2d(&t[0], &t[1], Some(&t[2]), &config).unwrap()
        });
    }

    #[test]
    fn transposed_convolution(
        (batch, groups, cin, cout) in (1..4usize, 1..3usize, 1..4usize, 1..4usize),
        (h, w) in (1..6usize, 1..6usize), (kh, kw) in (1..5usize, 1..5usize), stride in (1..4usize, 1..4usize),
        dilation in (1..3usize, 1..3usize), padding in (0..2usize, 0..2usize), extra in (0..3usize, 0..3usize),
    ) {
        let output_padding = (extra.0 % stride.0.max(dilation.0), extra.1 % stride.1.max(dilation.1));
        let config = ConvTranspose2dConfig { stride, padding, output_padding, dilation, groups };
        let size = |n: usize, k: usize, s: usize, d: usize, e: usize| (n - 1) * s + d * (k - 1) + e + 1;
        prop_assume!(size(h, kh, stride.0, dilation.0, output_padding.0) > 2 * padding.0);
        prop_assume!(size(w, kw, stride.1, dilation.1, output_padding.1) > 2 * padding.1);
        let x = normal(1, (batch, groups * cin, h, w));
        let weight = normal(2, (groups * cin, cout, kh, kw));
        let bias = normal(3, groups * cout);
        let expected = plain::conv_transpose2d(&x, &weight, Some(&bias), &config);
        check(&expected, &[&x, &weight, &bias], |t| {
            ops::conv_transpose2d(&t[0], &t[1], Some(&t[2]), &config).unwrap()
        });
    }

    #[test]
    fn one_dimension_is_a_plane_of_height_one(
        (batch, groups, cin, cout) in (1..4usize, 1..3usize, 1..5usize, 1..5usize), axis in axis(),
    ) {
        let [length, kernel, stride, padding, dilation] = axis;
        let x = normal(1, (batch, groups * cin, length));
        let weight = normal(2, (groups * cout, cin, kernel));
        let flat = |t: &Tensor| t.unsqueeze(2).unwrap();
        let plane = Conv2dConfig { stride: (1, stride), padding: (0, padding), dilation: (1, dilation), groups };
        let expected = plain::conv2d(&flat(&x), &flat(&weight), None, &plane).squeeze(2).unwrap();
        let line = Conv1dConfig { stride, padding, dilation, groups };
        check(&expected, &[&x, &weight], |t| ops::conv1d(&t[0], &t[1], None, &line).unwrap());

        let x = normal(1, (batch, groups * cout, length));
        let plane = ConvTranspose2dConfig { stride: (1, stride), dilation: (1, dilation), groups, ..Default::default() };
        let expected = plain::conv_transpose2d(&flat(&x), &flat(&weight), None, &plane).squeeze(2).unwrap();
        let line = ConvTranspose1dConfig { stride, dilation, groups, ..Default::default() };
        check(&expected, &[&x, &weight], |t| ops::conv_transpose1d(&t[0], &t[1], None, &line).unwrap());
    }

    #[test]
    fn linear((rows, inputs, outputs) in (1..40usize, 1..70usize, 1..40usize)) {
        let (x, w, b) = (normal(1, (rows, inputs)), normal(2, (outputs, inputs)), normal(3, outputs));
        let expected = x.matmul(&w.t().unwrap()).unwrap().broadcast_add(&b).unwrap();
        check(&expected, &[&x, &w, &b], |t| ops::linear(&t[0], &t[1], Some(&t[2])).unwrap());
        let deep = x.reshape((1, rows, 1, inputs)).unwrap();
        let expected = expected.reshape((1, rows, 1, outputs)).unwrap();
        check(&expected, &[&deep, &w, &b], |t| ops::linear(&t[0], &t[1], Some(&t[2])).unwrap());
    }

    #[test]
    fn normalisation((batch, groups, per_group, p) in (1..4usize, 1..4usize, 1..5usize, 1..60usize)) {
        let channels = groups * per_group;
        let x = (normal(1, (batch, channels, p)) * 2.0).unwrap().affine(1.0, 0.7).unwrap();
        let (gamma, beta) = (normal(2, channels), normal(3, channels));
        let (eps, gammas, betas) = (1e-3, values(&gamma), values(&beta));
        let normal_row = |row: &[f64]| {
            let (mean, variance) = plain::mean_and_variance(row);
            row.iter().map(|v| (v - mean) / (variance + eps).sqrt()).collect::<Vec<_>>()
        };
        let affine = |normalised: &Tensor| {
            let z = values(normalised).into_iter().enumerate().map(|(i, v)| v * gammas[i / p % channels] + betas[i / p % channels]);
            tensor(z.collect(), normalised.shape())
        };
        let silu = |z: &Tensor| plain::map(z, |z| z * plain::sigmoid(z));
        let z = affine(&plain::rows(&x, per_group * p, normal_row));
        let run = |a: Activation| move |t: &[Tensor]| ops::group_norm(&t[0], &t[1], &t[2], groups, eps, a).unwrap();
        check(&z, &[&x, &gamma, &beta], run(Activation::Identity));
        check(&silu(&z), &[&x, &gamma, &beta], run(Activation::Silu));

        // Batch normalisation is the normalisation of each channel over the batch and the positions.
        let by_channel = x.transpose(0, 1).unwrap().contiguous().unwrap();
        let z = plain::rows(&by_channel, batch * p, normal_row).transpose(0, 1).unwrap().contiguous().unwrap();
        let z = affine(&z);
        let run = |a: Activation| move |t: &[Tensor]| ops::batch_norm_train(&t[0], &t[1], &t[2], eps, a).unwrap().0;
        check(&z, &[&x, &gamma, &beta], run(Activation::Identity));
        check(&silu(&z), &[&x, &gamma, &beta], run(Activation::Silu));
        let (_, mean, variance) = ops::batch_norm_train(&x, &gamma, &beta, eps, Activation::Identity).unwrap();
        let same = ops::batch_norm_eval(&x, &gamma, &beta, &mean, &variance, eps, Activation::Identity).unwrap();
        assert_close("evaluation with the batch's moments", &same, &z, 1e-12);
    }

    #[test]
    fn rows((rows, d) in (1..20usize, 1..100usize)) {
        let (x, gamma, beta) = (normal(1, (rows, d)), normal(2, d), normal(3, d));
        let (g, b) = (values(&gamma), values(&beta));
        let layer = plain::rows(&x, d, |row| {
            let (mean, variance) = plain::mean_and_variance(row);
            row.iter().enumerate().map(|(i, v)| (v - mean) / (variance + 1e-3).sqrt() * g[i] + b[i]).collect()
        });
        check(&layer, &[&x, &gamma, &beta], |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-3).unwrap());
        let rms = plain::rows(&x, d, |row| {
            let mean_square = row.iter().map(|v| v * v).sum::<f64>() / d as f64;
            row.iter().enumerate().map(|(i, v)| v / (mean_square + 1e-3).sqrt() * g[i]).collect()
        });
        check(&rms, &[&x, &gamma], |t| ops::rms_norm(&t[0], &t[1], 1e-3).unwrap());
        check(&plain::rows(&x, d, plain::softmax), &[&x], |t| ops::softmax(&t[0]).unwrap());
        let logs = plain::rows(&x, d, |row| plain::softmax(row).into_iter().map(f64::ln).collect());
        check(&logs, &[&x], |t| ops::log_softmax(&t[0]).unwrap());
    }

    #[test]
    fn attention((b, h, l, m, d) in (1..3usize, 1..4usize, 1..140usize, 1..80usize, 1..20usize)) {
        let (q, k, v) = (normal(1, (b, h, l, d)), normal(2, (b, h, m, d)), normal(3, (b, h, m, d)));
        let expected = plain::attention(&q, &k, &v, 0.3);
        check(&expected, &[&q, &k, &v], |t| ops::attention(&t[0], &t[1], &t[2], 0.3).unwrap());
    }

    #[test]
    fn self_attention((b, h, l, half) in (1..3usize, 1..4usize, 1..80usize, 1..9usize)) {
        let (d, heads) = (2 * half, normal(1, (3, b, h, l, 2 * half)));
        // [3, B, H, L, D] -> [B, L, 3, H, D]
        let qkv = heads.permute((1, 3, 0, 2, 4)).unwrap().reshape((b, l, 3 * h * d)).unwrap();
        let part = |i: usize, turned: bool| {
            let x = heads.get(i).unwrap();
            if turned { ops::rotary(&x, 50.0).unwrap() } else { x }
        };
        for turned in [false, true] {
            let expected = plain::attention(&part(0, turned), &part(1, turned), &part(2, false), 0.3);
            let expected = expected.transpose(1, 2).unwrap().reshape((b, l, h * d)).unwrap();
            check(&expected, &[&qkv], |t| ops::self_attention(&t[0], h, 0.3, turned.then_some(50.0)).unwrap());
        }
    }

    #[test]
    fn resolution((b, c, h, w, f) in (1..3usize, 1..4usize, 1..6usize, 1..6usize, 1..4usize)) {
        let small = normal(1, (b, c, h, w));
        let repeated: Vec<f64> = (0..b * c * h * f * w * f)
            .map(|i| {
                let (plane, row, column) = (i / (h * f * w * f), i / (w * f) % (h * f), i % (w * f));
                values(&small)[(plane * h + row / f) * w + column / f]
            })
            .collect();
        let large = tensor(repeated, (b, c, h * f, w * f));
        check(&large, &[&small], |t| ops::upsample_nearest2d(&t[0], f).unwrap());
        check(&small, &[&large], |t| ops::avg_pool2d(&t[0], f).unwrap());
        let noise = normal(2, (b, c, h * f, w * f));
        let windows = noise.reshape((b * c, h, f, w, f)).unwrap();
        let means = windows.mean(4).unwrap().mean(2).unwrap().reshape((b, c, h, w)).unwrap();
        check(&means, &[&noise], |t| ops::avg_pool2d(&t[0], f).unwrap());
        let all = noise.flatten_from(2).unwrap().mean(2).unwrap();
        check(&all, &[&noise], |t| ops::global_avg_pool(&t[0]).unwrap());
    }
}

#[test]
fn functions() {
    let x = tensor((-4000..4000).map(|i| i as f64 * 0.01).collect(), 8000);
    let check = |f: fn(&Tensor) -> lsgm_core::Result<Tensor>, plain: fn(f64) -> f64| {
        let expected = values(&plain::map(&x, plain));
        for (dtype, relative, absolute) in [(DType::F64, 1e-13, 1e-16), (DType::F32, 2e-6, 1e-12)] {
            let y = values(&f(&x.to_dtype(dtype).unwrap()).unwrap());
            // The input is rounded too, so the reference takes the rounded one.
            let at = values(&x.to_dtype(dtype).unwrap());
            for ((y, e), x) in y.iter().zip(&expected).zip(&at) {
                let e = if dtype == DType::F32 { plain(*x) } else { *e };
                assert!((y - e).abs() <= relative * e.abs() + absolute, "{x}: {y} against {e}");
            }
        }
    };
    check(ops::relu, |x| x.max(0.0));
    check(ops::silu, |x| x * plain::sigmoid(x));
    check(ops::sigmoid, plain::sigmoid);
    check(ops::elu, |x| if x > 0.0 { x } else { x.exp_m1() });
    check(ops::softplus, |x| x.max(0.0) + (-x.abs()).exp().ln_1p());
    let gelu = ops::gelu(&tensor(vec![-3.0, -1.0, 0.0, 0.5, 2.0], 5)).unwrap();
    // x · Φ(x) from tables of the Normal distribution function.
    let expected = [-0.0040496940948, -0.1586552539314, 0.0, 0.3457312306369, 1.9544997361037];
    assert_close("gelu", &gelu, &tensor(expected.to_vec(), 5), 1e-12);
}

#[test]
fn likelihoods() {
    let (logits, p) = (normal(1, (4, 3, 5)), normal(2, (4, 3, 5)));
    let x = plain::map(&p, |v| f64::from(v > 0.0));
    let terms = values(&logits).into_iter().zip(values(&x));
    let terms: Vec<f64> =
        terms.map(|(l, x)| (if x > 0.5 { plain::sigmoid(l) } else { plain::sigmoid(-l) }).ln()).collect();
    let expected = tensor(terms.chunks(15).map(|c| c.iter().sum()).collect(), 4);
    assert_close("bernoulli", &ops::bernoulli_log_prob(&logits, &x).unwrap(), &expected, 1e-13);
    assert_close("f32", &ops::bernoulli_log_prob(&single(&logits), &single(&x)).unwrap(), &expected, 1e-6);

    let (ids, table) = (common::cases::ids(), normal(3, (4, 5)));
    let rows = ops::embedding(&table, &ids).unwrap();
    assert_eq!(rows.dims(), [2, 3, 5]);
    assert_eq!(values(&rows.get(1).unwrap().get(0).unwrap()), values(&table.get(2).unwrap()));

    let logits = normal(4, (2, 3, 4));
    let picked = ops::categorical_log_prob(&logits, &ids).unwrap();
    let probability = plain::softmax(&values(&logits.get(0).unwrap().get(1).unwrap()))[3];
    assert!((values(&picked)[1] - probability.ln()).abs() < 1e-13);
}

#[test]
fn a_logit_of_any_finite_size_gives_a_finite_likelihood() {
    let device = candle_core::Device::Cpu;
    let logits = Tensor::new(&[[1e4f32, -1e4, 1e4, -1e4, 3e38, -3e38]], &device).unwrap();
    let x = Tensor::new(&[[1f32, 0.0, 0.0, 1.0, 1.0, 0.0]], &device).unwrap();
    assert_eq!(ops::bernoulli_log_prob(&logits, &x).unwrap().to_vec1::<f32>().unwrap(), [-2e4]);
}

#[test]
fn long_sums_keep_their_digits() {
    // 4 million terms of 0.1: adding them one after another in f32 is off by percents.
    let x = Tensor::full(0.1f32, (1, 1, 2000, 2000), &candle_core::Device::Cpu).unwrap();
    let mean = ops::global_avg_pool(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
    assert!((mean - 0.1).abs() < 1e-7, "{mean}");
    let (one, zero) =
        (Tensor::ones(1, DType::F32, x.device()).unwrap(), Tensor::zeros(1, DType::F32, x.device()).unwrap());
    let (_, mean, variance) = ops::batch_norm_train(&x, &one, &zero, 1e-5, Activation::Identity).unwrap();
    assert!((mean.to_vec1::<f32>().unwrap()[0] - 0.1).abs() < 1e-7);
    assert!(variance.to_vec1::<f32>().unwrap()[0] < 1e-10);
}

#[test]
fn snake_is_its_formula_far_from_zero_too() {
    let (x, alpha) = ((normal(1, (2, 3, 50)) * 40.0).unwrap(), tensor(vec![0.2, 1.0, 9.0], 3));
    let alphas = values(&alpha);
    let terms = values(&x).into_iter().enumerate().map(|(i, x)| {
        let alpha = alphas[i / 50 % 3];
        x + (alpha * x).sin().powi(2) / alpha
    });
    check(&tensor(terms.collect(), (2, 3, 50)), &[&x, &alpha], |t| ops::snake(&t[0], &t[1]).unwrap());
    assert!(ops::snake(&x, &tensor(vec![1.0; 2], 2)).is_err());
}

#[test]
fn conditions_of_an_item_shift_and_scale_its_rows() {
    for (batch, rows, width) in [(1, 1, 3), (3, 5, 7), (2, 9, 40)] {
        let (x, branch) = (normal(1, (batch, rows, width)), normal(2, (batch, rows, width)));
        let (scale, shift) = (normal(3, (batch, 1, width)), normal(4, (batch, 1, width)));
        let of_item = |t: &Tensor, row: usize, d: usize| values(t)[row / rows * width + d];
        let (mut normed, mut summed) = (Vec::new(), Vec::new());
        for row in 0..batch * rows {
            let line = &values(&x)[row * width..][..width];
            let (mean, variance) = plain::mean_and_variance(line);
            for (d, v) in line.iter().enumerate() {
                let normal = (v - mean) / (variance + 1e-3).sqrt();
                normed.push(normal * (1.0 + of_item(&scale, row, d)) + of_item(&shift, row, d));
                summed.push(v + values(&branch)[row * width + d] * of_item(&scale, row, d));
            }
        }
        check(&tensor(normed, x.shape()), &[&x, &scale, &shift], |t| {
            ops::modulated_layer_norm(&t[0], &t[1], &t[2], 1e-3).unwrap()
        });
        check(&tensor(summed, x.shape()), &[&x, &branch, &scale], |t| ops::gated_sum(&t[0], &t[1], &t[2]).unwrap());
    }
}

#[test]
fn components_are_weighted_by_the_softmax_of_their_products() {
    for (batch, rows, components, width) in [(1, 1, 1, 1), (2, 5, 3, 7), (2, 35, 6, 4)] {
        let (features, factors) = (normal(1, (batch, rows, width)), normal(2, (batch, components, width)));
        let context = normal(3, (batch, rows, components));
        let (others, shared) = (normal(4, (batch, rows, width)), normal(5, (components, width)));
        let product = |a: &Tensor, i: usize, b: &Tensor, k: usize| -> f64 {
            (0..width).map(|d| values(a)[i * width + d] * values(b)[k * width + d]).sum()
        };
        let (mut shares, mut expected, mut entropies) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..batch * rows {
            let first = row / rows * components;
            let guess: Vec<f64> = (0..components).map(|k| product(&features, row, &factors, first + k)).collect();
            let told: Vec<f64> = guess.iter().zip(&values(&context)[row * components..]).map(|(g, c)| g + c).collect();
            let target =
                plain::softmax(&(0..components).map(|k| product(&others, row, &shared, k)).collect::<Vec<_>>());
            let p = plain::softmax(&told);
            let mean =
                |d: usize| p.iter().enumerate().map(|(k, p)| p * values(&factors)[(first + k) * width + d]).sum();
            expected.extend((0..width).map(mean).collect::<Vec<f64>>());
            entropies.push(-target.iter().zip(&p).map(|(r, p)| r * p.ln()).sum::<f64>());
            shares.extend(plain::softmax(&guess));
        }
        let (expected, entropies) = (tensor(expected, features.shape()), tensor(entropies, (batch, rows, 1)));
        check(&tensor(shares, context.shape()), &[&features, &factors], |t| {
            ops::component_shares(&t[0], &t[1]).unwrap()
        });
        check(&expected, &[&features, &factors, &context], |t| {
            ops::expected_factors(&t[0], &t[1], &t[2], None).unwrap().0
        });
        let inputs = [&features, &factors, &context, &others, &shared];
        check(&Tensor::cat(&[expected.clone(), entropies], 2).unwrap(), &inputs, |t| {
            let (y, loss) = ops::expected_factors(&t[0], &t[1], &t[2], Some([&t[3], &t[4]])).unwrap();
            Tensor::cat(&[&y, &loss.unwrap().unsqueeze(2).unwrap()], 2).unwrap()
        });
    }
}

#[test]
fn diffused_gaussians_are_the_factors_of_their_logarithms() {
    let (means, logs, shares) = (normal(1, (5, 9)), normal(2, (5, 9)), normal(3, 5));
    let moments = [(1.0, 0.0), (0.6, 0.64)];
    let y = values(&normal(4, 9));
    let rows = moments.iter().flat_map(|(m, noise)| {
        let gaussians = values(&means).into_iter().zip(values(&logs)).collect::<Vec<_>>();
        let of = |k: usize| {
            let terms = gaussians[9 * k..9 * (k + 1)].iter().zip(&y).map(|((c, log), y)| {
                let v = m * m * log.exp() + noise;
                -0.5 * ((y - m * c).powi(2) / v + v.ln())
            });
            values(&shares)[k] + terms.sum::<f64>()
        };
        (0..5).map(of).collect::<Vec<f64>>()
    });
    let features: Vec<f64> =
        y.iter().copied().chain(y.iter().map(|y| -0.5 * y * y)).chain(std::iter::once(1.0)).collect();
    let features = tensor(features, (19, 1));
    check(&tensor(rows.collect(), (2, 5, 1)), &[&means, &logs, &shares], |t| {
        let factors = ops::diffused_gaussians(&t[0], &t[1], &t[2], &moments).unwrap();
        let products = factors.flatten(0, 1).unwrap().matmul(&features.to_dtype(factors.dtype()).unwrap()).unwrap();
        products.reshape((2, 5, 1)).unwrap()
    });
    assert!(ops::diffused_gaussians(&means, &logs, &normal(3, 4), &moments).is_err());
    assert!(ops::diffused_gaussians(&means, &logs, &shares, &[]).is_err());
}

/// `[levels, 3·K, 1]`: the same mixture for every level.
fn mixture(parts: &[(f64, f64, f64)], levels: usize) -> Tensor {
    let row: Vec<f64> =
        parts.iter().map(|p| p.0).chain(parts.iter().map(|p| p.1)).chain(parts.iter().map(|p| p.2)).collect();
    let width = row.len();
    tensor(row, (1, width, 1)).broadcast_as((levels, width, 1)).unwrap().contiguous().unwrap()
}

fn levels_of(levels: usize) -> Tensor {
    tensor((0..levels).map(|i| -1.0 + 2.0 * i as f64 / levels as f64).collect(), (levels, 1))
}

/// Narrow, wide, outside the range and near its ends.
const MIXTURES: [&[(f64, f64, f64)]; 4] = [
    &[(0.0, 0.1, -3.0)],
    &[(0.3, -0.2, -9.0), (-1.0, 0.7, -12.0), (2.0, 0.0, -1.0)],
    &[(0.0, 1.4, -1.0), (0.0, -1.4, -2.0)],
    &[(0.0, -1.0, -11.0), (0.5, 1.0 - 2.0 / 65_536.0, -11.0)],
];

#[test]
fn the_probabilities_of_all_65536_levels_sum_to_one() {
    let n = 65_536;
    for parts in MIXTURES {
        for (dtype, tolerance) in [(DType::F64, 1e-8), (DType::F32, 2e-3)] {
            let (params, x) = (mixture(parts, n).to_dtype(dtype).unwrap(), levels_of(n));
            let log_p = values(&ops::logistic_mixture_log_prob(&params, &x, n).unwrap());
            let total: f64 = log_p.iter().map(|v| v.exp()).sum();
            assert!((total - 1.0).abs() < tolerance, "{parts:?} {dtype:?}: {total}");
        }
    }
}

#[test]
fn a_logistic_mixture_is_its_difference_of_distribution_functions() {
    let n = 256;
    for parts in [MIXTURES[0], MIXTURES[2], &[(0.3, -0.2, -5.0), (-1.0, 0.7, -4.0)]] {
        let weights = plain::softmax(&parts.iter().map(|p| p.0).collect::<Vec<_>>());
        let below = |edge: f64| {
            parts.iter().zip(&weights).map(|(p, w)| w * plain::sigmoid((edge - p.1) / p.2.exp())).sum::<f64>()
        };
        let expected = (0..n).map(|i| {
            let centre = -1.0 + 2.0 * i as f64 / n as f64;
            let low = if i == 0 { 0.0 } else { below(centre - 1.0 / n as f64) };
            let high = if i == n - 1 { 1.0 } else { below(centre + 1.0 / n as f64) };
            (high - low).ln()
        });
        let found = values(&ops::logistic_mixture_log_prob(&mixture(parts, n), &levels_of(n), n).unwrap());
        for (found, expected) in found.into_iter().zip(expected).filter(|(_, e)| *e > -20.0) {
            assert!((found - expected).abs() < 1e-6, "{parts:?}: {found} {expected}");
        }
    }
}

/// Far in the tail, and with scales far below a bin, where differences of distribution functions are 0 or not a number.
#[test]
fn a_logistic_mixture_stays_finite() {
    let params = mixture(&[(0.0, -0.999, -12.0), (-30.0, 0.5, -14.0)], 2).to_dtype(DType::F32).unwrap();
    let x = tensor(vec![0.999_969_482_421_875, -1.0], (2, 1));
    let log_p = values(&ops::logistic_mixture_log_prob(&params, &x, 65_536).unwrap());
    assert!(log_p.iter().all(|v| v.is_finite() && *v < 0.0), "{log_p:?}");
    assert!(ops::logistic_mixture_log_prob(&params, &x, 1).is_err());
    assert!(ops::logistic_mixture_log_prob(&params.narrow(1, 0, 4).unwrap(), &x, 256).is_err());
}

/// Output positions that no tap of any input reaches hold the bias alone.
#[test]
fn output_padding_may_reach_the_dilation() {
    for (image, kernel, stride, dilation, output_padding) in [
        ((1, 1), (1, 1), (1, 1), (1, 2), (0, 1)),
        ((1, 1), (1, 1), (1, 1), (2, 1), (1, 0)),
        ((3, 2), (1, 2), (1, 2), (2, 3), (1, 2)),
        ((2, 3), (2, 1), (3, 1), (1, 2), (2, 1)),
    ] {
        let config = ConvTranspose2dConfig { stride, padding: (0, 0), output_padding, dilation, groups: 1 };
        let (x, weight) = (normal(1, (2, 1, image.0, image.1)), normal(2, (1, 2, kernel.0, kernel.1)));
        let bias = normal(3, 2);
        let expected = plain::conv_transpose2d(&x, &weight, Some(&bias), &config);
        check(&expected, &[&x, &weight, &bias], |t| ops::conv_transpose2d(&t[0], &t[1], Some(&t[2]), &config).unwrap());
    }
}
