//! The cases of ops with activations in bf16 and parameters in f32, where a pass asks for it.

use candle_core::{DType, Tensor};
use lsgm_nn::{full_precision, lower_precision};

use super::{Case, cases};

/// Ops whose inputs are all activations.
const ALL: [&str; 7] = [
    "attention",
    "self_attention",
    "modulated_layer_norm",
    "gated_sum",
    "gated_residual",
    "squeeze_excite",
    "a product",
];

/// Ops whose first input is one, and the others parameters.
const FIRST: [&str; 20] = [
    "conv",
    "linear",
    "group_norm",
    "batch_norm",
    "layer_norm",
    "rms_norm",
    "relu",
    "silu",
    "gelu",
    "elu",
    "softplus",
    "sigmoid",
    "softmax",
    "log_softmax",
    "upsample",
    "avg_pool",
    "global_avg_pool",
    "mask",
    "rotary",
    "snake",
];

/// Of all cases those that take activations.
pub(crate) fn cases() -> Vec<Case> {
    let all: Vec<Case> = cases::small().into_iter().chain(cases::large()).collect();
    for name in ALL.iter().chain(&FIRST) {
        assert!(all.iter().any(|case| case.name.starts_with(name)), "no case of {name}");
    }
    all.into_iter().filter(|case| case.name != "conv2d with its own input as weight").filter_map(lowered).collect()
}

fn lowered(case: Case) -> Option<Case> {
    let begins = |names: &[&str]| names.iter().any(|name| case.name.starts_with(name));
    let activations = if begins(&ALL) {
        case.inputs.len()
    } else if begins(&FIRST) {
        1
    } else {
        return None;
    };
    // Numbers that bf16 has: not a function's slope is in question, but its arithmetic.
    let rounded = |t: &Tensor| t.to_dtype(DType::BF16).unwrap().to_dtype(t.dtype()).unwrap();
    Some(Case {
        name: format!("{} in bf16", case.name),
        inputs: case.inputs.iter().map(rounded).collect(),
        f: Box::new(move |t| {
            let mut inputs = t.to_vec();
            for input in &mut inputs[..activations] {
                *input = lower_precision(input)?;
            }
            full_precision(&(case.f)(&inputs)?)
        }),
    })
}
