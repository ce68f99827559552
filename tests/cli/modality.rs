//! A modality of one's own, from the skeleton to samples; and what `check` tells before a training.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Bench, Finished};

/// Built in the target folder of this test: everything but the skeleton itself is there already.
#[test]
fn the_skeleton_compiles_trains_and_is_sampled() {
    let bench = Bench::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let out = bench.lsgm(&format!("new-modality piano-roll new --lsgm {}", root.display())).succeeds().stdout;
    assert!(out.contains("cargo run --release -- train piano-roll.toml"), "{out}");

    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells this test about its own package would make build scripts run again.
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("CARGO_") && n != "CARGO_HOME")
    {
        cargo.env_remove(name);
    }
    cargo.args(["build", "--release", "--offline"]).current_dir(bench.path("new")).env("CARGO_TARGET_DIR", target);
    Finished::new(cargo.output().unwrap()).succeeds();
    let program = target.join("release/lsgm-piano-roll");
    let run = |line: &str| {
        let mut command = Command::new(&program);
        Finished::new(command.args(line.split(' ')).current_dir(bench.path("new")).output().unwrap()).succeeds()
    };
    run(
        "train piano-roll.toml --out run --set train.vae.steps=400 --set train.lsgm.steps=300 --set train.checkpoint_every=200",
    );
    let report: Value = serde_json::from_slice(&std::fs::read(bench.path("new/run/evaluation.json")).unwrap()).unwrap();
    // Independent uniform symbols have 24 ln 12 = 59.6 nats, the data about 15.
    assert!(report["nelbo"]["mean"].as_f64().unwrap() < 45.0, "{report}");
    run("sample run --count 3 --out s.txt");
    let text = std::fs::read_to_string(bench.path("new/s.txt")).unwrap();
    let symbols: Vec<u32> = text.split_whitespace().map(|s| s.parse().unwrap()).collect();
    assert!(text.lines().count() == 3 && symbols.len() == 72 && symbols.iter().all(|s| *s < 12), "{text}");

    bench.lsgm("new-modality piano-roll new").fails(2, &["new: is not empty"]);
    bench.lsgm("new-modality x other --lsgm .").fails(2, &["--lsgm .", "no Cargo.toml of lsgm"]);
    assert!(!bench.path("other").exists());
}

#[test]
fn a_check_tells_what_a_training_would_do_and_trains_nothing() {
    let bench = Bench::new();
    let out = bench.lsgm("check tiny.toml --set train.lsgm.time_budget=10m").succeeds().stdout;
    for part in [
        "config    tiny.toml: modality binary",
        "data      train 200, ",
        "items     [10, 1, 28, 28] f32",
        "latents   [10, 2, 7, 7] in 1 group",
        "encoder.stem",
        "prior.network",
        "whole",
        " ms in stage vae: about 0s for 12 steps",
        " ms in stage lsgm: about ",
        " steps in 10m00s",
        "memory    ",
        "batch     tiny-batch.png: 10 items",
    ] {
        assert!(out.contains(part), "`{part}` is missing in\n{out}");
    }
    assert!(std::fs::read(bench.path("tiny-batch.png")).unwrap().starts_with(b"\x89PNG"));
    assert!(!bench.path("runs").exists());
}

#[test]
fn a_check_refuses_what_a_training_would_refuse() {
    let bench = Bench::new();
    bench.lsgm("check none.toml").fails(2, &["none.toml: there is no such file"]);
    bench.lsgm("check tiny.toml --set train.batch=3").fails(2, &["--set train.batch=3", "train.batch_size"]);
    bench.lsgm("check tiny.toml --set autoencoder.channels=[4,8,16]").fails(2, &["autoencoder.channels"]);
    bench.lsgm("check tiny.toml --set data.set=mnist --data .").fails(2, &["mnist"]);
    bench.lsgm("check tiny.toml --out no/such/a.png").fails(2, &["there is no folder"]);
    assert!(!bench.path("tiny-batch.png").exists());
}
