//! Training through the binary, from the shipped config: samples have the motifs of the data.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn motifs_are_as_frequent_in_samples_as_in_the_data() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let set = [
        "train.vae.steps=3000",
        "train.lsgm.steps=2500",
        "train.sample_count=16",
        "evaluate.ode_items=0",
        "evaluate.samples=4000",
        "evaluate.after_training=500",
    ];
    let mut train = Command::new(env!("CARGO_BIN_EXE_dna"));
    train.arg("train").arg(here.join("dna.toml")).arg("--out").arg(&run);
    train.args(set.iter().flat_map(|value| ["--set", value]));
    let trained = train.output().unwrap();
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));

    let report: Value = serde_json::from_slice(&std::fs::read(run.join("evaluation.json")).unwrap()).unwrap();
    let measures = report["measures"]["samples"].as_array().unwrap();
    assert_eq!(measures.len(), 2, "{report}");
    for measure in measures {
        let ratio = measure["value"].as_f64().unwrap();
        assert!((0.8..=1.2).contains(&ratio), "{measure}");
    }
    // Independent bases have 64 ln 4 = 88.7 nats.
    assert!(report["nelbo"]["mean"].as_f64().unwrap() < 84.0, "{report}");
    let samples = std::fs::read_to_string(run.join("samples/samples.txt")).unwrap();
    assert_eq!(samples.lines().count(), 16);
    assert!(samples.lines().all(|l| l.len() == 64 && l.chars().all(|c| "ACGT".contains(c))), "{samples}");
}
