//! From a config to samples and figures.

use serde_json::Value;

use crate::support::Bench;

fn png_size(bench: &Bench, name: &str) -> (u32, u32) {
    let bytes = std::fs::read(bench.path(name)).unwrap();
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n", "{name}");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn a_run_directory_is_enough_for_everything() {
    let bench = Bench::trained();
    // The config that began it is not needed any more.
    std::fs::remove_file(bench.path("tiny.toml")).unwrap();
    let files = bench.files("run");
    for name in
        ["config.toml", "model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json", "events.jsonl"]
    {
        assert!(files.iter().any(|f| f == name), "{name} is missing in {files:?}");
    }
    for name in ["samples", "reconstructions", "interpolations", "vae-0000012", "lsgm-0000024"] {
        png_size(&bench, &format!("run/samples/{name}.png"));
    }
    let evaluation = std::fs::read_to_string(bench.path("run/evaluation.json")).unwrap();
    assert!(evaluation.contains("\"n\": 20"), "{evaluation}");
    assert!(!files.iter().any(|f| f.contains("partial")), "{files:?}");

    let out = bench.lsgm("sample run --count 9 --out s.png --solver rk45 --tol 1e-2 --seed 3").succeeds().stdout;
    assert!(out.starts_with("s.png: 9 samples, rk45: ") && out.contains("NFE"), "{out}");
    bench.lsgm("sample run --count 9 --out t.png --tol 1e-2 --seed 3").succeeds();
    bench.lsgm("sample run --count 9 --out u.png --tol 1e-2 --seed 4").succeeds();
    let bytes = |name: &str| std::fs::read(bench.path(name)).unwrap();
    assert!(bytes("s.png") == bytes("t.png") && bytes("s.png") != bytes("u.png"), "a seed is a sheet");
    bench.lsgm("reconstruct run --count 4 --out r.png").succeeds();
    bench.lsgm("interpolate run --count 2 --out i.png").succeeds();
    let (w, h) = png_size(&bench, "s.png");
    assert_eq!(w, h);
    assert!(png_size(&bench, "r.png").1 > png_size(&bench, "r.png").0, "pairs stand above each other");
    assert!(png_size(&bench, "i.png").0 > 4 * png_size(&bench, "i.png").1, "paths are rows");
}

#[test]
fn an_evaluation_is_a_table_and_json() {
    let bench = Bench::trained();
    let table = bench.lsgm("evaluate run --limit 40 --json e.json").succeeds().stdout;
    let json: Value = serde_json::from_slice(&std::fs::read(bench.path("e.json")).unwrap()).unwrap();
    for name in ["nelbo", "nelbo_normal_prior", "reconstruction", "cross_entropy", "neg_entropy", "bits_per_dim"] {
        assert!(
            json[name]["mean"].is_f64() && json[name]["stderr"].is_f64() && json[name]["unit"].is_string(),
            "{name}: {json}"
        );
        assert!(table.contains(name), "{name} is missing in\n{table}");
    }
    assert_eq!(
        (json["n"].as_u64(), json["split"].as_str(), json["modality"].as_str()),
        (Some(40), Some("test"), Some("binary"))
    );
    assert!(json["nfe"].as_f64().unwrap() > 0.0 && json["seconds"].as_f64().unwrap() > 0.0);
    assert!(json["alpha"]["min"].as_f64() <= json["alpha"]["mean"].as_f64());
    let mean = |name: &str| json[name]["mean"].as_f64().unwrap();
    let sum = mean("reconstruction") + mean("neg_entropy") + mean("cross_entropy");
    assert!((mean("nelbo") - sum).abs() < 1e-6 * sum.abs(), "the terms add up");
    assert!((mean("bits_per_dim") - mean("nelbo") / (784.0 * std::f64::consts::LN_2)).abs() < 1e-9);
    let again = bench.lsgm("evaluate run --limit 40 --json f.json").succeeds().stdout;
    let numbers = |t: &str| t.lines().filter(|l| l.contains("nats")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(numbers(&table), numbers(&again), "an evaluation repeats");
}

#[test]
fn more_items_than_there_are_are_told() {
    let bench = Bench::trained();
    bench.lsgm("reconstruct run --count 4000000 --out r.png").fails(2, &["4000000 items are needed", "--count"]);
    assert!(!bench.path("r.png").exists());
}

#[test]
fn a_time_budget_is_kept_and_stored() {
    let bench = Bench::new();
    let clock = std::time::Instant::now();
    bench.lsgm("train tiny.toml --out run --time-budget 2s --seed 5 --threads 1").succeeds();
    assert!(clock.elapsed().as_secs_f64() < 30.0);
    let config = std::fs::read_to_string(bench.path("run/config.toml")).unwrap();
    assert_eq!(config.matches("time_budget = \"1000ms\"").count(), 2, "{config}");
    assert!(config.contains("seed = 5"), "{config}");
    let state: Value = serde_json::from_slice(&std::fs::read(bench.path("run/state.json")).unwrap()).unwrap();
    assert!((1.9..4.0).contains(&state["seconds"].as_f64().unwrap()), "{state}");
}
