//! Training through the binary, from the shipped config with shorter stages: columns of samples belong together as those of
//! the data do.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn samples_have_the_associations_of_the_data() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let set = [
        "data.file=households.csv",
        "autoencoder.width=128",
        "prior.network.transformer.channels=64",
        "prior.network.transformer.blocks=2",
        "train.vae.steps=1000",
        "train.lsgm.steps=1000",
        "train.sample_count=16",
        "evaluate.ode_items=0",
        "evaluate.after_training=200",
    ];
    let mut train = Command::new(env!("CARGO_BIN_EXE_tabular"));
    train.arg("train").arg(here.join("tabular.toml")).arg("--data").arg(here).arg("--out").arg(&run);
    train.args(set.iter().flat_map(|value| ["--set", value]));
    let trained = train.output().unwrap();
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));

    let report: Value = serde_json::from_slice(&std::fs::read(run.join("evaluation.json")).unwrap()).unwrap();
    let measure = |i: usize| report["measures"]["samples"][i]["value"].as_f64().unwrap();
    // Independent columns would be 0.19 off on average, and 0.7 at the worst.
    assert!(measure(0) < 0.05 && measure(1) < 0.2, "{report}");
    let samples = std::fs::read_to_string(run.join("samples/samples.csv")).unwrap();
    assert!(samples.starts_with("region,dwelling,people,") && samples.lines().count() == 17, "{samples}");
}
