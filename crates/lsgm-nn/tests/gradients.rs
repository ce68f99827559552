//! Every op's gradients with respect to all inputs, against central differences in `f64`.

mod common;

use candle_core::{DType, Var};
use common::{cases, check_gradients, loss, normal};
use lsgm_nn::ops::{self, Conv2dConfig};

#[test]
fn every_op_agrees_with_central_differences() {
    cases::small().iter().for_each(check_gradients);
}

/// Gradients in `f32` take other code paths: they must be those of `f64` up to rounding.
#[test]
fn single_precision_agrees_with_double() {
    for case in cases::small().iter().chain(&cases::large()) {
        let (y, gradients) = common::run(case, DType::F32);
        let (y64, gradients64) = common::run(case, DType::F64);
        common::assert_close(&case.name, &y, &y64, 2e-5);
        for (i, (g, g64)) in gradients.iter().zip(&gradients64).enumerate() {
            common::assert_close(&format!("{}, gradient {i}", case.name), g, g64, 5e-5);
        }
    }
}

/// Gradients that nobody needs are not computed, and the others stay the same.
#[test]
fn constants_get_no_gradient() {
    let (x, w) = (normal(1, (2, 3, 5, 5)), normal(2, (4, 3, 3, 3)));
    let f = |x: &candle_core::Tensor, w: &candle_core::Tensor| {
        loss(&ops::conv2d(x, w, None, &Conv2dConfig::same((3, 3))).unwrap()).backward().unwrap()
    };
    let (vx, vw) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&w).unwrap());
    let both = f(&vx, &vw);
    let only_x = f(&vx, &w);
    assert!(only_x.get(&w).is_none());
    common::assert_close("dx", only_x.get(&vx).unwrap(), both.get(&vx).unwrap(), 0.0);
    let only_w = f(&x, &vw);
    assert!(only_w.get(&x).is_none());
    common::assert_close("dw", only_w.get(&vw).unwrap(), both.get(&vw).unwrap(), 0.0);
}
