//! What holds for every op: the same bits for any number of threads, NaN and infinity pass through, and bad input is an
//! error that names the op and the shapes.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{Case, cases, normal, tensor, values};
use lsgm_nn::ops::{self, Activation, Conv1dConfig, Conv2dConfig, ConvTranspose2dConfig};

fn bits(case: &Case, threads: usize) -> Vec<Vec<u32>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let (y, gradients) = common::run(case, DType::F32);
        let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits);
        std::iter::once(&y).chain(&gradients).map(|t| bits(t).collect()).collect()
    })
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for case in cases::large() {
        let one = bits(&case, 1);
        for threads in [2, 3, 7] {
            assert!(bits(&case, threads) == one, "{} with {threads} threads", case.name);
        }
    }
}

#[test]
fn nan_and_infinity_pass_through() {
    for case in cases::small() {
        for dtype in [DType::F32, DType::F64] {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                for k in 0..case.inputs.len() {
                    check_passage(&case, dtype, value, k);
                }
            }
        }
    }
}

/// Functions that have a finite value at an infinite argument.
const BOUNDED: [&str; 12] = [
    "relu",
    "silu",
    "elu",
    "softplus",
    "sigmoid",
    "squeeze_excite",
    "gated_residual",
    "softmax",
    "categorical_log_prob",
    "logistic_mixture_log_prob",
    "component_shares",
    "expected_factors",
];

fn check_passage(case: &Case, dtype: DType, value: f64, k: usize) {
    if value.is_infinite() && BOUNDED.iter().any(|name| case.name.starts_with(name)) {
        return;
    }
    let mut inputs: Vec<Tensor> = case.inputs.iter().map(|t| t.to_dtype(dtype).unwrap()).collect();
    let mut numbers = values(&case.inputs[k]);
    // An element in the middle reaches an output of every op (the mask of the list keeps it).
    let at = numbers.len() / 2;
    let at = if case.name == "mask" { 1 } else { at };
    numbers[at] = value;
    inputs[k] = tensor(numbers, case.inputs[k].shape()).to_dtype(dtype).unwrap();
    let y = values(&(case.f)(&inputs).unwrap());
    let reached = reaches(case, k, at);
    assert!(!reached || y.iter().any(|v| !v.is_finite()), "{} {dtype:?}: {value} in input {k} is lost", case.name);
}

/// Whether the output depends on element `at` of input `k`: a stride may step over it.
fn reaches(case: &Case, k: usize, at: usize) -> bool {
    let mut numbers = values(&case.inputs[k]);
    numbers[at] += 1.0;
    let mut inputs = case.inputs.clone();
    inputs[k] = tensor(numbers, case.inputs[k].shape());
    values(&(case.f)(&inputs).unwrap()) != values(&(case.f)(&case.inputs).unwrap())
}

/// A NaN in the gradient of the output reaches the gradient of every input.
#[test]
fn nan_passes_backwards() {
    for case in cases::small() {
        let vars: Vec<Var> = case.inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let y = (case.f)(&tensors).unwrap();
        let weights = Tensor::full(f64::NAN, y.shape(), &Device::Cpu).unwrap();
        let store = lsgm_nn::backward(&(y * weights).unwrap().sum_all().unwrap()).unwrap();
        for (k, var) in vars.iter().enumerate() {
            let gradient = values(store.get(var).unwrap());
            assert!(gradient.iter().any(|g| g.is_nan()), "{}: NaN is lost on the way to input {k}", case.name);
        }
    }
}

/// [`lsgm_nn::backward`] gives what the tensor's own method gives.
#[test]
fn both_backward_passes_agree() {
    for case in cases::small() {
        let vars: Vec<Var> = case.inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        // The variables lead to the loss past the op too.
        let mut loss = common::loss(&(case.f)(&tensors).unwrap());
        for t in &tensors {
            loss = (loss + common::loss(&t.sqr().unwrap())).unwrap();
        }
        let (ours, theirs) = (lsgm_nn::backward(&loss).unwrap(), loss.backward().unwrap());
        for var in &vars {
            common::assert_close(&case.name, ours.get(var).unwrap(), theirs.get(var).unwrap(), 1e-13);
        }
    }
}

#[test]
fn nan_reaches_every_output_of_its_receptive_field() {
    // A NaN at the centre of a 9×9 image: with a 3×3 kernel at least the 3×3 outputs around it are NaN.
    let mut x = values(&normal(1, (1, 2, 9, 9)));
    x[4 * 9 + 4] = f64::NAN;
    let w = normal(2, (3, 2, 3, 3));
    for dtype in [DType::F32, DType::F64] {
        let x = tensor(x.clone(), (1, 2, 9, 9)).to_dtype(dtype).unwrap();
        let y = values(&ops::conv2d(&x, &w.to_dtype(dtype).unwrap(), None, &Conv2dConfig::same((3, 3))).unwrap());
        for (o, i, j) in (0..3).flat_map(|o| (3..6).flat_map(move |i| (3..6).map(move |j| (o, i, j)))) {
            assert!(y[(o * 9 + i) * 9 + j].is_nan());
        }
        assert!(y[0].is_finite() && y[80].is_finite());
    }
}

/// Assert that the error names each of `parts`.
#[track_caller]
fn refuses<T: std::fmt::Debug>(result: lsgm_core::Result<T>, parts: &[&str]) {
    let message = result.expect_err("bad input was accepted").to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn bad_input_is_an_error_that_names_op_and_shapes() {
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let (x, w) = (zeros(&[2, 3, 5, 5]), zeros(&[4, 3, 3, 3]));
    let plain = Conv2dConfig::default();
    refuses(ops::conv2d(&x, &zeros(&[4, 2, 3, 3]), None, &plain), &["conv2d", "[2, 3, 5, 5]", "[4, 2, 3, 3]"]);
    refuses(ops::conv2d(&x, &zeros(&[4, 3, 7, 7]), None, &plain), &["conv2d", "larger", "[4, 3, 7, 7]"]);
    refuses(ops::conv2d(&x, &w, Some(&zeros(&[3])), &plain), &["conv2d", "bias [3]", "[4]"]);
    refuses(ops::conv2d(&x, &w, None, &plain.with_stride((0, 1))), &["conv2d", "stride"]);
    refuses(ops::conv2d(&x, &w, None, &plain.with_groups(0)), &["conv2d", "groups"]);
    refuses(ops::conv2d(&zeros(&[0, 3, 5, 5]), &w, None, &plain), &["conv2d", "empty", "[0, 3, 5, 5]"]);
    refuses(ops::conv2d(&zeros(&[3, 5, 5]), &w, None, &plain), &["conv2d", "[3, 5, 5]", "4 dimensions"]);
    refuses(ops::conv2d(&x.to_dtype(DType::F64).unwrap(), &w, None, &plain), &["conv2d", "F64", "F32"]);
    refuses(ops::conv2d(&x.to_dtype(DType::U8).unwrap(), &w, None, &plain), &["conv2d", "U8"]);
    refuses(ops::conv2d(&x, &zeros(&[4, 3, 0, 3]), None, &plain), &["conv2d", "[4, 3, 0, 3]"]);
    let huge = Conv2dConfig { padding: (usize::MAX / 2, 0), ..plain };
    refuses(ops::conv2d(&x, &w, None, &huge), &["conv2d", "[2, 3, 5, 5]"]);
    let huge = Conv2dConfig { padding: (usize::MAX / 64, usize::MAX / 64), ..plain };
    refuses(ops::conv2d(&x, &w, None, &huge), &["conv2d", "too large"]);
    let huge = Conv2dConfig { dilation: (usize::MAX, 1), ..plain };
    refuses(ops::conv2d(&x, &w, None, &huge), &["conv2d", "[4, 3, 3, 3]"]);
    refuses(ops::conv1d(&x, &w, None, &Conv1dConfig::default()), &["conv1d", "3 dimensions"]);
    let transposed = ConvTranspose2dConfig { output_padding: (1, 0), ..Default::default() };
    refuses(
        ops::conv_transpose2d(&x, &zeros(&[3, 4, 3, 3]), None, &transposed),
        &["conv_transpose2d", "output_padding"],
    );
    let transposed = ConvTranspose2dConfig { padding: (4, 4), ..Default::default() };
    refuses(ops::conv_transpose2d(&x, &zeros(&[3, 4, 3, 3]), None, &transposed), &["conv_transpose2d", "empty"]);
    refuses(ops::linear(&x, &zeros(&[2, 4]), None), &["linear", "[2, 3, 5, 5]", "[2, 4]"]);
    refuses(ops::linear(&x, &zeros(&[2, 5]), Some(&zeros(&[1]))), &["linear", "bias [1]", "[2]"]);
    let (three, four) = (zeros(&[3]), zeros(&[4]));
    let identity = Activation::Identity;
    refuses(ops::group_norm(&x, &three, &three, 2, 1e-5, identity), &["group_norm", "2 groups", "3 channels"]);
    refuses(ops::group_norm(&x, &three, &three, 0, 1e-5, identity), &["group_norm", "0 groups"]);
    refuses(ops::group_norm(&x, &four, &three, 1, 1e-5, identity), &["group_norm", "[4]"]);
    refuses(ops::layer_norm(&x, &four, &four, 1e-5), &["layer_norm", "[2, 3, 5, 5]", "[4]"]);
    refuses(ops::rms_norm(&x, &four, 1e-5), &["rms_norm", "[4]"]);
    refuses(ops::batch_norm_eval(&x, &three, &three, &four, &three, 1e-5, identity), &["batch_norm", "[4]"]);
    let (rows, condition) = (zeros(&[2, 3, 4]), zeros(&[2, 1, 4]));
    refuses(ops::modulated_layer_norm(&rows, &condition, &four, 1e-5), &["modulated_layer_norm", "[2, 3, 4]", "[4]"]);
    refuses(ops::gated_sum(&rows, &x, &condition), &["gated_sum", "[2, 3, 5, 5]", "[2, 3, 4]"]);
    refuses(ops::gated_sum(&rows, &rows, &rows), &["gated_sum", "[2, 3, 4]"]);
    let factors = zeros(&[2, 7, 4]);
    refuses(ops::component_shares(&rows, &zeros(&[1, 7, 4])), &["component_shares", "[2, 3, 4]", "[1, 7, 4]"]);
    refuses(ops::expected_factors(&rows, &factors, &rows, None), &["expected_factors", "[2, 3, 4]", "[2, 7, 4]"]);
    let targets = Some([&rows, &factors]);
    let context = zeros(&[2, 3, 7]);
    refuses(ops::expected_factors(&rows, &factors, &context, targets), &["expected_factors", "[2, 7, 4]"]);
    refuses(ops::softmax(&zeros(&[])), &["softmax", "scalar"]);
    refuses(ops::softmax(&zeros(&[2, 0])), &["softmax", "empty"]);
    refuses(ops::log_softmax(&zeros(&[2, 0])), &["log_softmax", "empty"]);
    refuses(ops::silu(&zeros(&[0])), &["silu", "empty", "[0]"]);
    refuses(ops::gelu(&three.to_dtype(DType::I64).unwrap()), &["gelu", "I64"]);
    refuses(ops::linear(&zeros(&[0, 5]), &zeros(&[2, 5]), None), &["linear", "empty", "[0, 5]"]);
    refuses(ops::linear(&zeros(&[]), &zeros(&[2, 5]), None), &["linear", "[]"]);
    refuses(ops::group_norm(&zeros(&[2, 3, 0]), &three, &three, 1, 1e-5, identity), &["group_norm", "[2, 3, 0]"]);
    refuses(ops::batch_norm_train(&three, &three, &three, 1e-5, identity).map(|r| r.0), &["batch_norm", "[3]"]);
    refuses(ops::layer_norm(&zeros(&[]), &three, &three, 1e-5), &["layer_norm", "[]"]);
    refuses(ops::global_avg_pool(&zeros(&[2, 3, 0])), &["global_avg_pool", "[2, 3, 0]"]);
    refuses(ops::avg_pool1d(&zeros(&[2, 3, 4]), 0), &["avg_pool1d", "factor 0"]);
    refuses(ops::squeeze_excite(&x, &zeros(&[2, 3]).to_dtype(DType::F64).unwrap()), &["squeeze_excite", "F64"]);
    refuses(ops::bernoulli_log_prob(&zeros(&[]), &zeros(&[])), &["bernoulli_log_prob", "[]"]);
    refuses(ops::attention(&x, &x, &zeros(&[2, 3, 5, 4]), 1.0), &["attention", "[2, 3, 5, 4]"]);
    refuses(ops::self_attention(&zeros(&[2, 3, 10]), 2, 1.0, None), &["self_attention", "[2, 3, 10]", "2 heads"]);
    refuses(ops::self_attention(&zeros(&[2, 3, 6]), 0, 1.0, None), &["self_attention", "0 heads"]);
    refuses(ops::self_attention(&zeros(&[2, 3, 6]), 2, 1.0, Some(9.0)), &["self_attention", "1 channels"]);
    refuses(ops::upsample_nearest2d(&x, 0), &["upsample_nearest2d", "factor 0"]);
    refuses(ops::upsample_nearest2d(&x, usize::MAX), &["upsample_nearest2d", "too large"]);
    refuses(ops::avg_pool2d(&x, 2), &["avg_pool2d", "[2, 3, 5, 5]"]);
    refuses(ops::global_avg_pool(&three), &["global_avg_pool", "[3]"]);
    refuses(ops::squeeze_excite(&x, &three), &["squeeze_excite", "[3]"]);
    refuses(ops::bernoulli_log_prob(&x, &w), &["bernoulli_log_prob", "[4, 3, 3, 3]"]);
    let ids = Tensor::new(&[0u32, 4], &Device::Cpu).unwrap();
    refuses(ops::embedding(&zeros(&[4, 2]), &ids), &["embedding", "id 4", "4"]);
    refuses(ops::embedding(&zeros(&[4, 2]), &three), &["embedding", "u32"]);
    refuses(ops::categorical_log_prob(&zeros(&[2, 4]), &ids), &["categorical_log_prob", "id 4"]);
    refuses(ops::weight_norm(&w, &three, 1e-5), &["weight_norm", "[3]", "[4, 3, 3, 3]"]);
    refuses(ops::mask(&x, vec![1.0]), &["mask", "1 factors"]);
}
