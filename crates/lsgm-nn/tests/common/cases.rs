//! Every op, on odd shapes.

use candle_core::{Device, Tensor};
use lsgm_core::Result;
use lsgm_nn::ops::{self, Activation, Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig};

use super::{Case, normal, tensor};

fn case(
    name: impl Into<String>,
    inputs: Vec<Tensor>,
    f: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
) -> Case {
    Case { name: name.into(), inputs, f: Box::new(f) }
}

/// All cases on small shapes: 1×1 images, non-square ones, strides larger than the kernel, a batch of one, channels
/// that fill no vector register.
pub(crate) fn small() -> Vec<Case> {
    let mut all = convolutions();
    all.extend(transposed());
    all.extend(linear());
    all.extend(norms());
    all.extend(functions());
    all.extend(attention(&[(1, 1, 1), (5, 7, 3), (49, 49, 16), (130, 70, 5)]));
    all.extend(resampling());
    all.extend(likelihoods());
    all.extend(layouts());
    all.extend(snakes());
    all.extend(logistic_mixtures());
    all.extend(gaussians());
    all.extend(components());
    all.extend(modulations());
    all
}

/// Inputs that are not contiguous, are broadcast, or are used twice.
fn layouts() -> Vec<Case> {
    let same = Conv2dConfig::same((3, 3));
    let plane = || normal(1, (2, 5, 4, 3));
    vec![
        case("conv2d of transposed tensors", vec![plane(), normal(2, (3, 3, 3, 4))], move |t| {
            ops::conv2d(&t[0].transpose(2, 3)?.transpose(1, 2)?, &t[1].transpose(0, 3)?, None, &same)
        }),
        case("conv2d with one bias for all channels", vec![plane(), normal(2, (3, 5, 3, 3)), normal(3, 1)], move |t| {
            ops::conv2d(&t[0], &t[1], Some(&t[2].broadcast_as(3)?), &same)
        }),
        case("conv2d of a slice", vec![plane(), normal(2, (3, 2, 3, 3))], move |t| {
            ops::conv2d(&t[0].narrow(1, 1, 2)?, &t[1], None, &same)
        }),
        case("conv2d with its own input as weight", vec![normal(1, (3, 3, 3, 3))], move |t| {
            ops::conv2d(&t[0], &t[0], None, &same)
        }),
        case("linear of a transposed tensor", vec![normal(1, (4, 2, 3)), normal(2, (4, 3)), normal(3, 1)], |t| {
            ops::linear(&t[0].transpose(0, 1)?, &t[1], Some(&t[2].broadcast_as(4)?))
        }),
        case("group_norm with one scale for all channels", vec![plane(), normal(2, 1), normal(3, 1)], |t| {
            let x = t[0].transpose(1, 2)?;
            ops::group_norm(&x, &t[1].broadcast_as(4)?, &t[2].broadcast_as(4)?, 2, 1e-5, Activation::Silu)
        }),
        case("softmax of a transposed tensor", vec![normal(1, (3, 4))], |t| ops::softmax(&t[0].t()?)),
        case("attention of transposed heads", vec![normal(1, (2, 6, 3, 4))], |t| {
            let heads = t[0].transpose(1, 2)?;
            ops::attention(&heads, &heads, &heads, 0.5)
        }),
        case("self_attention of a transposed tensor", vec![normal(1, (12, 5, 2))], |t| {
            ops::self_attention(&t[0].transpose(0, 2)?, 2, 0.5, None)
        }),
        case("a product of an activation with itself", vec![plane()], |t| {
            Ok((ops::silu(&t[0])? * ops::gelu(&t[0].transpose(1, 3)?)?.transpose(1, 3)?)?)
        }),
    ]
}

/// One case of a convolution with and one without bias.
pub(crate) fn conv2d(x: [usize; 4], w: [usize; 4], config: Conv2dConfig) -> [Case; 2] {
    let (x, b, w) = (normal(1, x.to_vec()), normal(3, w[0]), normal(2, w.to_vec()));
    let name = format!("conv2d {:?} {:?} {config:?}", x.dims(), w.dims());
    [
        case(name.clone(), vec![x.clone(), w.clone(), b], move |t| ops::conv2d(&t[0], &t[1], Some(&t[2]), &config)),
        case(name, vec![x, w], move |t| ops::conv2d(&t[0], &t[1], None, &config)),
    ]
}

fn convolutions() -> Vec<Case> {
    let plain = Conv2dConfig::default();
    let mut all: Vec<Case> = [
        ([1, 1, 1, 1], [1, 1, 1, 1], plain),
        ([1, 3, 1, 1], [2, 3, 3, 3], Conv2dConfig::same((3, 3))),
        ([2, 3, 5, 7], [5, 3, 3, 3], Conv2dConfig::same((3, 3))),
        ([3, 5, 8, 8], [4, 5, 3, 3], Conv2dConfig::same((3, 3))),
        ([2, 17, 6, 7], [9, 17, 3, 3], Conv2dConfig { padding: (0, 1), ..plain }),
        ([2, 2, 7, 9], [3, 2, 3, 3], plain),
        ([1, 2, 6, 5], [3, 2, 2, 2], plain.with_stride((3, 3))),
        ([2, 2, 9, 11], [3, 2, 5, 7], Conv2dConfig { padding: (2, 4), ..plain.with_stride((2, 4)) }),
        ([2, 3, 8, 8], [4, 3, 3, 3], Conv2dConfig::same((3, 3)).with_stride((2, 2))),
        ([2, 3, 8, 6], [4, 3, 4, 4], Conv2dConfig { padding: (1, 1), ..plain.with_stride((2, 2)) }),
        ([2, 3, 5, 6], [4, 3, 1, 1], plain.with_stride((2, 3))),
        ([3, 4, 5, 4], [6, 2, 3, 1], Conv2dConfig { padding: (1, 2), ..plain.with_groups(2) }),
        ([2, 3, 7, 6], [3, 1, 3, 3], Conv2dConfig::same((3, 3)).with_groups(3)),
        ([2, 5, 9, 7], [5, 1, 5, 5], Conv2dConfig::same((5, 5)).with_groups(5)),
        ([2, 3, 7, 6], [6, 1, 3, 3], Conv2dConfig::same((3, 3)).with_groups(3).with_stride((2, 2))),
        ([2, 2, 9, 8], [2, 2, 3, 2], Conv2dConfig { dilation: (2, 3), padding: (3, 1), stride: (2, 1), groups: 1 }),
        ([5, 17, 3, 3], [19, 17, 1, 1], plain),
        ([1, 2, 2, 2], [2, 2, 5, 5], Conv2dConfig::same((5, 5))),
        // Enough channels for tiles: odd sizes, every padding, groups.
        ([3, 20, 9, 10], [18, 20, 3, 3], Conv2dConfig::same((3, 3))),
        ([2, 32, 12, 9], [32, 32, 3, 3], Conv2dConfig { padding: (0, 2), ..plain }),
        ([5, 64, 7, 7], [16, 32, 3, 3], Conv2dConfig::same((3, 3)).with_groups(2)),
    ]
    .into_iter()
    .flat_map(|(x, w, config)| conv2d(x, w, config))
    .collect();
    for (stride, padding, dilation, groups) in [(1, 0, 1, 1), (2, 3, 2, 1), (5, 1, 1, 3), (1, 2, 1, 3)] {
        let config = Conv1dConfig { stride, padding, dilation, groups };
        let inputs = vec![normal(1, (2, 3, 11)), normal(2, (6, 3 / groups, 3)), normal(3, 6)];
        let name = format!("conv1d {config:?}");
        all.push(case(name, inputs, move |t| ops::conv1d(&t[0], &t[1], Some(&t[2]), &config)));
    }
    all
}

fn transposed() -> Vec<Case> {
    let mut all = Vec::new();
    for (stride, padding, output_padding, dilation, groups) in
        [(1, 0, 0, 1, 1), (2, 1, 1, 1, 2), (3, 0, 2, 1, 1), (2, 2, 0, 2, 2)]
    {
        let plane = ConvTranspose2dConfig {
            stride: (stride, 2),
            padding: (padding, 0),
            output_padding: (output_padding, 1),
            dilation: (dilation, 1),
            groups,
        };
        let inputs = vec![normal(1, (2, 4, 3, 5)), normal(2, (4, 6 / groups, 3, 2)), normal(3, 6)];
        let name = format!("conv_transpose2d {plane:?}");
        all.push(case(name.clone(), inputs[..2].to_vec(), move |t| ops::conv_transpose2d(&t[0], &t[1], None, &plane)));
        all.push(case(name, inputs, move |t| ops::conv_transpose2d(&t[0], &t[1], Some(&t[2]), &plane)));
        let line = ConvTranspose1dConfig { stride, padding, output_padding, dilation, groups };
        let inputs = vec![normal(1, (3, 4, 5)), normal(2, (4, 6 / groups, 4)), normal(3, 6)];
        let name = format!("conv_transpose1d {line:?}");
        all.push(case(name, inputs, move |t| ops::conv_transpose1d(&t[0], &t[1], Some(&t[2]), &line)));
    }
    all
}

fn linear() -> Vec<Case> {
    let mut all = Vec::new();
    for x in [vec![5], vec![1, 5], vec![7, 5], vec![2, 3, 5], vec![2, 1, 3, 5]] {
        let inputs = vec![normal(1, x.clone()), normal(2, (3, 5)), normal(3, 3)];
        all.push(case(format!("linear {x:?}"), inputs[..2].to_vec(), |t| ops::linear(&t[0], &t[1], None)));
        all.push(case(format!("linear {x:?}"), inputs, |t| ops::linear(&t[0], &t[1], Some(&t[2]))));
    }
    all
}

/// The three normalisations over channels.
pub(crate) fn channel_norms(shape: Vec<usize>, groups: usize, activation: Activation) -> [Case; 3] {
    let c = shape[1];
    let inputs = vec![normal(1, shape.clone()), normal(2, c), normal(3, c)];
    let (mean, var) = (normal(4, c), normal(5, c).sqr().unwrap());
    let name = |op: &str| format!("{op} {shape:?} {activation:?}");
    [
        case(name("group_norm"), inputs.clone(), move |t| {
            ops::group_norm(&t[0], &t[1], &t[2], groups, 1e-5, activation)
        }),
        case(name("batch_norm_train"), inputs.clone(), move |t| {
            Ok(ops::batch_norm_train(&t[0], &t[1], &t[2], 1e-5, activation)?.0)
        }),
        case(name("batch_norm_eval"), inputs, move |t| {
            let (mean, var) = (mean.to_device(t[0].device())?, var.to_device(t[0].device())?);
            ops::batch_norm_eval(&t[0], &t[1], &t[2], &mean, &var, 1e-5, activation)
        }),
    ]
}

/// The two normalisations over rows.
pub(crate) fn row_norms(shape: Vec<usize>) -> [Case; 2] {
    let d = shape[shape.len() - 1];
    let inputs = vec![normal(1, shape.clone()), normal(2, d), normal(3, d)];
    [
        case(format!("rms_norm {shape:?}"), inputs[..2].to_vec(), |t| ops::rms_norm(&t[0], &t[1], 1e-5)),
        case(format!("layer_norm {shape:?}"), inputs, |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-5)),
    ]
}

fn norms() -> Vec<Case> {
    let mut all = Vec::new();
    for activation in [Activation::Identity, Activation::Silu] {
        for (shape, groups) in [(vec![2, 6, 3, 5], 3), (vec![2, 4, 1, 3], 1), (vec![3, 4, 5], 2), (vec![4, 6], 2)] {
            all.extend(channel_norms(shape, groups, activation));
        }
    }
    for shape in [vec![7], vec![2, 33], vec![2, 3, 5]] {
        all.extend(row_norms(shape));
    }
    all
}

type Function = fn(&Tensor) -> Result<Tensor>;

/// The elementwise functions.
const ELEMENTWISE: [(&str, Function); 6] = [
    ("relu", ops::relu),
    ("silu", ops::silu),
    ("gelu", ops::gelu),
    ("elu", ops::elu),
    ("softplus", ops::softplus),
    ("sigmoid", ops::sigmoid),
];

/// The elementwise functions and the softmax, on numbers up to about ±10.
pub(crate) fn functions_of(shape: Vec<usize>) -> Vec<Case> {
    let x = (normal(1, shape) * 3.0).unwrap();
    let softmaxes: [(&str, Function); 2] = [("softmax", ops::softmax), ("log_softmax", ops::log_softmax)];
    let functions = ELEMENTWISE.into_iter().chain(softmaxes);
    functions.map(|(name, f)| case(name, vec![x.clone()], move |t| f(&t[0]))).collect()
}

fn functions() -> Vec<Case> {
    [vec![3, 37], vec![1, 1], vec![2, 3, 16], vec![5]].into_iter().flat_map(functions_of).collect()
}

/// Attention of 2 × 3 heads; `(queries, keys, dim)`.
pub(crate) fn attention(sizes: &[(usize, usize, usize)]) -> Vec<Case> {
    let mut all: Vec<Case> = sizes
        .iter()
        .map(|&(queries, keys, dim)| {
            let shape = |l: usize| vec![2, 3, l, dim];
            let inputs = vec![normal(1, shape(queries)), normal(2, shape(keys)), normal(3, shape(keys))];
            let name = format!("attention {queries} {keys} {dim}");
            case(name, inputs, |t| ops::attention(&t[0], &t[1], &t[2], 0.4))
        })
        .collect();
    let same = vec![normal(4, (1, 2, 6, 4))];
    all.push(case("attention of one tensor", same, |t| ops::attention(&t[0], &t[0], &t[0], 0.5)));
    for (batch, length, dim) in [(1, 1, 2), (2, 7, 4), (1, 70, 6)] {
        let qkv = || vec![normal(5, (batch, length, 3 * 3 * dim))];
        all.push(case(format!("self_attention {length} {dim}"), qkv(), |t| ops::self_attention(&t[0], 3, 0.4, None)));
        let name = format!("self_attention {length} {dim}, turned");
        all.push(case(name, qkv(), |t| ops::self_attention(&t[0], 3, 0.4, Some(100.0))));
    }
    all
}

fn resampling() -> Vec<Case> {
    let (plane, line) = (vec![normal(1, (2, 3, 4, 6))], vec![normal(2, (2, 3, 8))]);
    vec![
        case("upsample_nearest2d", plane.clone(), |t| ops::upsample_nearest2d(&t[0], 3)),
        case("avg_pool2d", plane.clone(), |t| ops::avg_pool2d(&t[0], 2)),
        case("global_avg_pool", plane.clone(), |t| ops::global_avg_pool(&t[0])),
        // An input used twice: both paths must add up.
        case("skip connection", plane.clone(), |t| {
            Ok((ops::upsample_nearest2d(&ops::avg_pool2d(&t[0], 2)?, 2)? + ops::silu(&t[0])?)?)
        }),
        case("upsample_nearest1d", line.clone(), |t| ops::upsample_nearest1d(&t[0], 2)),
        case("avg_pool1d", line, |t| ops::avg_pool1d(&t[0], 4)),
        case("squeeze_excite", vec![plane[0].clone(), normal(3, (2, 3))], |t| ops::squeeze_excite(&t[0], &t[1])),
        case("gated_residual", vec![normal(4, (2, 3, 4, 5)), normal(5, (2, 3, 4, 5)), normal(3, (2, 3))], |t| {
            ops::gated_residual(&t[0], &t[1], &t[2], 0.1)
        }),
        case("squeeze_excite of points", vec![normal(1, (2, 3)), normal(3, (2, 3))], |t| {
            ops::squeeze_excite(&t[0], &t[1])
        }),
        case("mask", vec![normal(7, (2, 3))], |t| ops::mask(&t[0], vec![0.0, 2.0, 2.0, 0.0, 1.0, 0.5])),
    ]
}

/// The ids that the cases of tables use: some twice, one never.
pub(crate) fn ids() -> Tensor {
    Tensor::new(&[[0u32, 3, 3], [2, 3, 0]], &Device::Cpu).unwrap()
}

fn likelihoods() -> Vec<Case> {
    vec![
        case("bernoulli_log_prob", vec![normal(1, (3, 2, 7)), normal(2, (3, 2, 7))], |t| {
            ops::bernoulli_log_prob(&t[0], &t[1])
        }),
        case("rotary", vec![normal(3, (2, 3, 5, 6))], |t| ops::rotary(&t[0], 100.0)),
        case("embedding", vec![normal(3, (4, 5))], |t| ops::embedding(&t[0], &ids().to_device(t[0].device())?)),
        case("categorical_log_prob", vec![normal(4, (2, 3, 4))], |t| {
            ops::categorical_log_prob(&t[0], &ids().to_device(t[0].device())?)
        }),
        case("weight_norm", vec![normal(5, (3, 2, 3, 3)), normal(6, 3)], |t| ops::weight_norm(&t[0], &t[1], 1e-5)),
    ]
}

/// Shapes of real networks, large enough for every block and every partition.
pub(crate) fn large() -> Vec<Case> {
    let mut all: Vec<Case> = [
        ([9, 16, 28, 28], [24, 16, 3, 3], Conv2dConfig::same((3, 3))),
        ([33, 32, 14, 14], [32, 32, 3, 3], Conv2dConfig::same((3, 3))),
        ([40, 48, 7, 7], [40, 48, 3, 3], Conv2dConfig::same((3, 3))),
        ([17, 20, 7, 7], [33, 20, 1, 1], Conv2dConfig::default()),
        ([7, 24, 14, 14], [24, 1, 5, 5], Conv2dConfig::same((5, 5)).with_groups(24)),
        (
            [5, 12, 16, 16],
            [20, 12, 4, 4],
            Conv2dConfig { padding: (1, 1), ..Conv2dConfig::default().with_stride((2, 2)) },
        ),
        // Windows far apart, which overlap.
        (
            [9, 12, 32, 31],
            [20, 12, 7, 6],
            Conv2dConfig { padding: (2, 3), ..Conv2dConfig::default().with_stride((4, 4)) },
        ),
        ([1, 8, 28, 28], [16, 8, 3, 3], Conv2dConfig::same((3, 3))),
        ([3, 1, 28, 28], [32, 1, 3, 3], Conv2dConfig::same((3, 3))),
        ([3, 32, 28, 28], [1, 32, 3, 3], Conv2dConfig::same((3, 3))),
    ]
    .into_iter()
    .flat_map(|(x, w, config)| conv2d(x, w, config))
    .collect();
    all.extend(channel_norms(vec![33, 16, 14, 14], 4, Activation::Silu));
    all.extend(channel_norms(vec![65, 24, 7, 7], 8, Activation::Identity));
    all.extend(row_norms(vec![300, 190]));
    all.extend(components_of((3, 70, 90, 9)));
    all.extend(modulations_of((5, 90, 190)));
    all.extend(functions_of(vec![700, 70]));
    all.extend(attention(&[(300, 300, 20)]));
    let inputs = vec![normal(1, (333, 130)), normal(2, (70, 130)), normal(3, 70)];
    all.push(case("linear", inputs, |t| ops::linear(&t[0], &t[1], Some(&t[2]))));
    let transposed = ConvTranspose2dConfig { stride: (2, 2), padding: (1, 1), ..Default::default() };
    let inputs = vec![normal(1, (9, 16, 14, 14)), normal(2, (16, 12, 4, 4)), normal(3, 12)];
    all.push(case("conv_transpose2d", inputs, move |t| ops::conv_transpose2d(&t[0], &t[1], Some(&t[2]), &transposed)));
    let bits = vec![(normal(1, (50, 1, 28, 28)) * 5.0).unwrap(), normal(2, (50, 1, 28, 28)).ge(0.0).unwrap()];
    let bits = vec![bits[0].clone(), bits[1].to_dtype(candle_core::DType::F64).unwrap()];
    all.push(case("bernoulli_log_prob", bits, |t| ops::bernoulli_log_prob(&t[0], &t[1])));
    let maps = vec![normal(1, (20, 30, 14, 14)), normal(3, (20, 30))];
    all.push(case("squeeze_excite", maps.clone(), |t| ops::squeeze_excite(&t[0], &t[1])));
    all.push(case("avg_pool2d", maps[..1].to_vec(), |t| ops::avg_pool2d(&t[0], 2)));
    all.push(case("upsample_nearest2d", maps[..1].to_vec(), |t| ops::upsample_nearest2d(&t[0], 2)));
    all
}

fn snakes() -> Vec<Case> {
    [vec![2, 3, 37], vec![1, 1, 1], vec![3, 4, 2, 5]]
        .into_iter()
        .map(|shape| {
            let alpha = (normal(8, shape[1]).abs().unwrap() + 0.3).unwrap();
            case(format!("snake {shape:?}"), vec![(normal(7, shape) * 3.0).unwrap(), alpha], |t| {
                ops::snake(&t[0], &t[1])
            })
        })
        .collect()
}

/// Gaussians at the start of a diffusion, on its way and at its end.
fn gaussians() -> Vec<Case> {
    [(1, 1), (7, 3), (300, 19)]
        .into_iter()
        .map(|shape| {
            let inputs = vec![normal(1, shape), (normal(2, shape) - 1.0).unwrap(), normal(3, shape.0)];
            case(format!("diffused_gaussians {shape:?}"), inputs, |t| {
                ops::diffused_gaussians(&t[0], &t[1], &t[2], &[(1.0, 0.0), (0.8, 0.36), (0.01, 1.0)])
            })
        })
        .collect()
}

/// Conditions of items with one row and several, in rows that fill no register and several.
fn modulations() -> Vec<Case> {
    [(1, 1, 3), (3, 5, 7), (2, 33, 100)].into_iter().flat_map(modulations_of).collect()
}

fn modulations_of((batch, rows, width): (usize, usize, usize)) -> [Case; 2] {
    let (x, other) = (normal(1, (batch, rows, width)), normal(2, (batch, rows, width)));
    let (scale, shift) = (normal(3, (batch, 1, width)), normal(4, (batch, 1, width)));
    let norm = vec![x.clone(), scale.clone(), shift];
    [
        case(format!("modulated_layer_norm {:?}", x.dims()), norm, |t| {
            ops::modulated_layer_norm(&t[0], &t[1], &t[2], 1e-3)
        }),
        case(format!("gated_sum {:?}", x.dims()), vec![x, other, scale], |t| ops::gated_sum(&t[0], &t[1], &t[2])),
    ]
}

/// Components fewer and more than features, rows that fill no block and several.
fn components() -> Vec<Case> {
    [(1, 1, 1, 1), (2, 5, 3, 7), (3, 40, 17, 5)].into_iter().flat_map(components_of).collect()
}

fn components_of((batch, rows, components, width): (usize, usize, usize, usize)) -> [Case; 4] {
    let (features, factors) = (normal(1, (batch, rows, width)), normal(2, (batch, components, width)));
    let context = normal(3, (batch, rows, components));
    let (others, shared) = (normal(4, (batch, rows, width)), normal(5, (components, width)));
    let name = |op: &str| format!("{op} {:?}", (batch, rows, components, width));
    let both = vec![features.clone(), factors.clone()];
    let all = vec![features.clone(), factors.clone(), context.clone()];
    let targets = move |t: &Tensor| -> Result<[Tensor; 2]> { Ok([like(&others, t)?, like(&shared, t)?]) };
    let told = targets.clone();
    [
        case(name("component_shares"), both, |t| ops::component_shares(&t[0], &t[1])),
        case(name("expected_factors"), all.clone(), |t| Ok(ops::expected_factors(&t[0], &t[1], &t[2], None)?.0)),
        case(name("expected_factors beside targets"), all, move |t| {
            let [others, shared] = targets(&t[0])?;
            Ok(ops::expected_factors(&t[0], &t[1], &t[2], Some([&others, &shared]))?.0)
        }),
        // The cross entropy has a gradient for the context alone.
        case(name("expected_factors with a cross entropy"), vec![context], move |t| {
            let [others, shared] = told(&t[0])?;
            let (features, factors) = (like(&features, &t[0])?, like(&factors, &t[0])?);
            let (y, loss) = ops::expected_factors(&features, &factors, &t[0], Some([&others, &shared]))?;
            Ok(Tensor::cat(&[&y, &loss.expect("there are targets").unsqueeze(2)?], 2)?)
        }),
    ]
}

/// `x` in the type and on the device of `t`.
fn like(x: &Tensor, t: &Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(t.dtype())?.to_device(t.device())?)
}

/// Scales far wider than a bin and narrower than one; data in both outer bins and between.
fn logistic_mixtures() -> Vec<Case> {
    [(2, 1, 5, 16usize), (3, 3, 70, 256), (1, 4, 9, 65_536)]
        .into_iter()
        .map(|(batch, components, length, levels)| {
            let level = |i: usize| -1.0 + 2.0 * ((i * 7919) % levels) as f64 / levels as f64;
            let mut x: Vec<f64> = (0..batch * length).map(level).collect();
            x[0] = -1.0;
            x[length - 1] = 1.0 - 2.0 / levels as f64;
            let x = Tensor::from_vec(x, (batch, length), &Device::Cpu).unwrap();
            let logits = normal(1, (batch, components, length));
            let means = normal(2, (batch, components, length));
            let scales = (normal(3, (batch, components, length)) * 1.5).unwrap();
            let scales = (scales - 2.5).unwrap();
            let params = Tensor::cat(&[logits, means, scales], 1).unwrap();
            case(format!("logistic_mixture_log_prob {components} {levels}"), vec![params], move |t| {
                ops::logistic_mixture_log_prob(&t[0], &x.to_device(t[0].device())?, levels)
            })
        })
        .collect()
}

/// Functions where formulas change: at zero, beyond the range of `exp`, and the norm of a row of zeros.
pub(crate) fn kinks() -> Vec<Case> {
    let points = tensor(vec![-300.0, -90.0, -20.0, -1e-9, 0.0, 1e-9, 20.0, 90.0, 300.0], 9);
    let functions = ELEMENTWISE.into_iter();
    let mut all: Vec<Case> = functions.map(|(name, f)| case(name, vec![points.clone()], move |t| f(&t[0]))).collect();
    let zeros = Tensor::cat(&[normal(1, (2, 5)), normal(2, (1, 5)).zeros_like().unwrap()], 0).unwrap();
    all.push(case("weight_norm", vec![zeros, normal(3, 3)], |t| ops::weight_norm(&t[0], &t[1], 1e-2)));
    all
}
