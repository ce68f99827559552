//! Every op's gradients against central differences in `f64`.

mod common;

use common::{check_gradients, normal64};
use lsgm_nn::ops::{self, Activation, Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig};

#[test]
fn conv2d() {
    let cases = [
        // (input, weight, config): 1x1 image, non-square, stride > kernel, batch 1, odd channels, groups, dilation.
        ([1, 1, 1, 1], [1, 1, 1, 1], Conv2dConfig::default()),
        ([2, 3, 5, 7], [5, 3, 3, 3], Conv2dConfig::same((3, 3))),
        ([1, 2, 6, 5], [3, 2, 2, 2], Conv2dConfig::default().with_stride((3, 3))),
        ([3, 4, 5, 4], [6, 2, 3, 1], Conv2dConfig { padding: (1, 2), ..Conv2dConfig::default().with_groups(2) }),
        ([2, 3, 7, 6], [3, 1, 3, 3], Conv2dConfig::same((3, 3)).with_groups(3)),
        ([2, 2, 9, 8], [2, 2, 3, 2], Conv2dConfig { dilation: (2, 3), padding: (3, 1), stride: (2, 1), groups: 1 }),
        ([5, 17, 3, 3], [19, 17, 1, 1], Conv2dConfig::default()),
        ([1, 2, 2, 2], [2, 2, 5, 5], Conv2dConfig::same((5, 5))),
    ];
    for (i, (x, w, config)) in cases.into_iter().enumerate() {
        let i = i as u64;
        let (x, w, b) = (normal64(i, x.to_vec()), normal64(i + 50, w.to_vec()), normal64(i + 100, w[0]));
        check_gradients(&[x.clone(), w.clone(), b], |t| ops::conv2d(&t[0], &t[1], Some(&t[2]), &config));
        check_gradients(&[x, w], |t| ops::conv2d(&t[0], &t[1], None, &config));
    }
}

#[test]
fn conv1d() {
    for (stride, padding, dilation, groups) in [(1, 0, 1, 1), (2, 3, 2, 1), (5, 1, 1, 3), (1, 2, 1, 3)] {
        let config = Conv1dConfig { stride, padding, dilation, groups };
        let (x, w, b) = (normal64(1, (2, 3, 11)), normal64(2, (6, 3 / groups, 3)), normal64(3, 6));
        check_gradients(&[x, w, b], |t| ops::conv1d(&t[0], &t[1], Some(&t[2]), &config));
    }
}

#[test]
fn conv_transpose() {
    for (stride, padding, output_padding, dilation, groups) in
        [(1, 0, 0, 1, 1), (2, 1, 1, 1, 2), (3, 0, 2, 1, 1), (2, 2, 0, 2, 2)]
    {
        let (x, w, b) = (normal64(1, (2, 4, 3, 5)), normal64(2, (4, 6 / groups, 3, 2)), normal64(3, 6));
        let config = ConvTranspose2dConfig {
            stride: (stride, 2),
            padding: (padding, 0),
            output_padding: (output_padding, 1),
            dilation: (dilation, 1),
            groups,
        };
        check_gradients(&[x, w, b.clone()], |t| ops::conv_transpose2d(&t[0], &t[1], Some(&t[2]), &config));
        let (x, w) = (normal64(1, (3, 4, 5)), normal64(2, (4, 6 / groups, 4)));
        let config = ConvTranspose1dConfig { stride, padding, output_padding, dilation, groups };
        check_gradients(&[x, w, b], |t| ops::conv_transpose1d(&t[0], &t[1], Some(&t[2]), &config));
    }
}

#[test]
fn linear() {
    for x in [vec![5], vec![1, 5], vec![7, 5], vec![2, 3, 5], vec![2, 1, 3, 5]] {
        let (x, w, b) = (normal64(1, x), normal64(2, (3, 5)), normal64(3, 3));
        check_gradients(&[x, w, b], |t| ops::linear(&t[0], &t[1], Some(&t[2])));
    }
}

#[test]
fn norms() {
    for activation in [Activation::Identity, Activation::Silu] {
        for (shape, groups) in [(vec![2, 6, 3, 5], 3), (vec![1, 4, 1, 2], 1), (vec![3, 4, 5], 2), (vec![4, 6], 2)] {
            let c = shape[1];
            let inputs = [normal64(1, shape), normal64(2, c), normal64(3, c)];
            check_gradients(&inputs, |t| ops::group_norm(&t[0], &t[1], &t[2], groups, 1e-5, activation));
            check_gradients(&inputs, |t| Ok(ops::batch_norm_train(&t[0], &t[1], &t[2], 1e-5, activation)?.0));
            let (mean, var) = (normal64(4, c), normal64(5, c).sqr().unwrap());
            check_gradients(&inputs, |t| ops::batch_norm_eval(&t[0], &t[1], &t[2], &mean, &var, 1e-5, activation));
        }
    }
    for shape in [vec![7], vec![2, 33], vec![2, 3, 5]] {
        let d = shape[shape.len() - 1];
        let inputs = [normal64(1, shape), normal64(2, d), normal64(3, d)];
        check_gradients(&inputs, |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-5));
        check_gradients(&inputs[..2], |t| ops::rms_norm(&t[0], &t[1], 1e-5));
    }
}

#[test]
fn pointwise() {
    let x = (normal64(1, (3, 37)) * 3.0).unwrap();
    for f in [ops::relu, ops::silu, ops::gelu, ops::elu, ops::softplus, ops::sigmoid] {
        check_gradients(std::slice::from_ref(&x), |t| f(&t[0]));
    }
    for f in [ops::softmax, ops::log_softmax] {
        check_gradients(std::slice::from_ref(&x), |t| f(&t[0]));
    }
}

#[test]
fn attention() {
    for (queries, keys, dim) in [(1, 1, 1), (5, 7, 3), (49, 49, 16), (130, 70, 5)] {
        let shape = |l: usize| vec![2, 3, l, dim];
        let inputs = [normal64(1, shape(queries)), normal64(2, shape(keys)), normal64(3, shape(keys))];
        check_gradients(&inputs, |t| ops::attention(&t[0], &t[1], &t[2], 0.4));
    }
    let x = normal64(4, (1, 2, 6, 4));
    check_gradients(&[x], |t| ops::attention(&t[0], &t[0], &t[0], 0.5));
}

#[test]
fn resampling_and_gates() {
    let x = normal64(1, (2, 3, 4, 6));
    check_gradients(std::slice::from_ref(&x), |t| ops::upsample_nearest2d(&t[0], 3));
    check_gradients(std::slice::from_ref(&x), |t| ops::avg_pool2d(&t[0], 2));
    check_gradients(std::slice::from_ref(&x), |t| ops::global_avg_pool(&t[0]));
    // An input used twice: both paths must add up.
    check_gradients(std::slice::from_ref(&x), |t| {
        Ok((ops::upsample_nearest2d(&ops::avg_pool2d(&t[0], 2)?, 2)? + ops::silu(&t[0])?)?)
    });
    let line = normal64(2, (2, 3, 8));
    check_gradients(std::slice::from_ref(&line), |t| ops::upsample_nearest1d(&t[0], 2));
    check_gradients(std::slice::from_ref(&line), |t| ops::avg_pool1d(&t[0], 4));
    check_gradients(&[x, normal64(3, (2, 3))], |t| ops::squeeze_excite(&t[0], &t[1]));
}

#[test]
fn likelihoods_and_tables() {
    check_gradients(&[normal64(1, (3, 2, 7)), normal64(2, (3, 2, 7))], |t| ops::bernoulli_log_prob(&t[0], &t[1]));
    let ids = candle_core::Tensor::new(&[[0u32, 3, 3], [2, 3, 0]], &candle_core::Device::Cpu).unwrap();
    check_gradients(&[normal64(3, (4, 5))], |t| ops::embedding(&t[0], &ids));
    check_gradients(&[normal64(4, (2, 3, 4))], |t| ops::categorical_log_prob(&t[0], &ids));
    check_gradients(&[normal64(5, (3, 2, 3, 3)), normal64(6, 3)], |t| ops::weight_norm(&t[0], &t[1], 1e-5));
    check_gradients(&[normal64(7, (2, 3))], |t| ops::mask(&t[0], vec![0.0, 2.0, 2.0, 0.0, 1.0, 0.5]));
}
