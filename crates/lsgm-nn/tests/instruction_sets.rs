//! Every instruction set that this CPU has computes the same values and gradients up to rounding.
//!
//! The choice is the process's: one test of this file alone makes it.

mod common;

use candle_core::{DType, Tensor, Var};
use common::{Case, assert_close, cases, normal, run};
use lsgm_nn::InstructionSet;
use lsgm_nn::optim::{Gradients, Optimizer, OptimizerConfig, OptimizerKind};

/// The parameters after three steps of every optimizer.
fn optimized(dtype: DType) -> Vec<Tensor> {
    [OptimizerKind::Adam, OptimizerKind::AdamW, OptimizerKind::Adamax]
        .into_iter()
        .map(|kind| {
            let var = Var::from_tensor(&normal(1, 1003).to_dtype(dtype).unwrap()).unwrap();
            let vars = vec![("w".to_owned(), var.clone())];
            let config = OptimizerConfig { kind, weight_decay: 0.1, ..Default::default() };
            let mut optimizer = Optimizer::new(config, vars.clone()).unwrap();
            for _ in 0..3 {
                let loss = common::loss(&var.sqr().unwrap());
                let gradients = Gradients::collect(&lsgm_nn::backward(&loss).unwrap(), &vars);
                optimizer.step(&gradients, 1e-2, 0.7, None).unwrap();
            }
            var.as_detached_tensor().copy().unwrap()
        })
        .collect()
}

fn results(cases: &[Case], dtype: DType) -> Vec<(String, Tensor)> {
    let mut all = Vec::new();
    for case in cases {
        let (y, gradients) = run(case, dtype);
        all.push((case.name.clone(), y));
        all.extend(gradients.into_iter().enumerate().map(|(k, g)| (format!("{}, gradient {k}", case.name), g)));
    }
    all.extend(optimized(dtype).into_iter().map(|t| ("an optimizer".to_owned(), t)));
    all
}

#[test]
fn every_instruction_set_computes_the_same() {
    let sets = InstructionSet::available();
    assert_eq!(sets[0], InstructionSet::Baseline);
    assert_eq!(InstructionSet::selected(), sets[sets.len() - 1], "the best is the default");
    let cases: Vec<Case> = cases::small().into_iter().chain(cases::large()).collect();
    InstructionSet::Baseline.select().unwrap();
    let expected = results(&cases, DType::F64);
    for set in sets {
        set.select().unwrap();
        assert_eq!(InstructionSet::selected(), set);
        for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 5e-5)] {
            for ((name, got), (_, expected)) in results(&cases, dtype).iter().zip(&expected) {
                assert_close(&format!("{set:?} {dtype:?}: {name}"), got, expected, tolerance);
            }
        }
    }
}

#[test]
fn a_set_that_the_cpu_lacks_is_refused() {
    let absent = if cfg!(target_arch = "aarch64") { InstructionSet::Avx2 } else { InstructionSet::Neon };
    let message = absent.select().unwrap_err().to_string();
    assert!(message.contains(&format!("{absent:?}")) && message.contains("Baseline"), "{message}");
}
