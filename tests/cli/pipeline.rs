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
fn two_evaluations_are_compared_item_by_item() {
    let bench = Bench::trained();
    let of = |line: &str| bench.lsgm(&format!("evaluate run --set evaluate.ode_items=4 {line}"));
    let json = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(bench.path(name)).unwrap()).unwrap() };
    let mean = |report: &Value, name: &str| report[name]["mean"].as_f64().unwrap();
    of("--limit 30 --items a.csv --json a.json").succeeds();
    let csv = std::fs::read_to_string(bench.path("a.csv")).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    // Behind the first four items the place of the ODE's bound is empty.
    let numbers = |row: &[&str]| row[1..].iter().map(|n| n.parse().unwrap_or(f64::NAN)).collect::<Vec<f64>>();
    assert_eq!(rows.iter().filter(|row| !row[2].is_empty()).count(), 4);
    assert_eq!(rows.len(), 30);
    let total: f64 = rows.iter().map(|row| numbers(row)[0]).sum();
    assert!((total / 30.0 - mean(&json("a.json"), "nelbo")).abs() < 1e-5);
    assert!(rows.iter().all(|row| (numbers(row)[0] - numbers(row)[3..].iter().sum::<f64>()).abs() < 1e-4), "{csv}");
    assert!(json("a.json")["nelbo_difference"].is_null());

    // More times for each item: the same items with less noise.
    let table = of("--limit 30 --set evaluate.time_samples=20 --against a.csv --json b.json").succeeds().stdout;
    assert!(table.contains("nelbo_difference") && table.contains("nelbo_ode_difference"), "{table}");
    let (first, second) = (json("a.json"), json("b.json"));
    assert!((mean(&second, "nelbo_difference") - (mean(&second, "nelbo") - mean(&first, "nelbo"))).abs() < 1e-5);
    let ode = |report: &Value| report["ode"]["nelbo_ode"]["mean"].as_f64().unwrap();
    assert!((mean(&second, "nelbo_ode_difference") - (ode(&second) - ode(&first))).abs() < 1e-5);
    let paired = second["nelbo_difference"]["stderr"].as_f64().unwrap();
    assert!(paired > 0.0 && paired < second["nelbo"]["stderr"].as_f64().unwrap(), "{paired}: pairs vary less");

    // The training split draws its items anew each time, but not from what the model draws from.
    of("--limit 30 --split train --items train.csv").succeeds();
    of("--limit 30 --split train --set evaluate.time_samples=3 --against train.csv").succeeds();
    of("--limit 30 --split train --set evaluate.seed=5 --against train.csv")
        .fails(2, &["train.csv: its item", "another"]);
    of("--limit 30 --against train.csv").fails(2, &["train.csv: its item 0 is another one"]);

    of("--limit 20 --against a.csv").fails(2, &["a.csv: it has 30 items, and 20 are to be evaluated"]);
    bench.write("odd.csv", "item,nelbo,nelbo_ode,more\n0,81.5,,\n1,much,,\n");
    of("--limit 2 --against odd.csv").fails(2, &["odd.csv, line 3: `much` is not a number"]);
    bench.write("odd.csv", "{}");
    of("--limit 2 --against odd.csv").fails(2, &["odd.csv, line 1"]);
    of("--limit 2 --against absent.csv").fails(2, &["absent.csv: there is no such file"]);
}

#[test]
fn bounds_are_reported_under_their_own_names() {
    let bench = Bench::trained();
    let json = |line: &str| -> Value {
        bench.lsgm(&format!("evaluate run --limit 6 --json b.json {line}")).succeeds();
        serde_json::from_slice(&std::fs::read(bench.path("b.json")).unwrap()).unwrap()
    };
    let plain = json("--bound nelbo");
    assert!(plain["nelbo"]["mean"].is_f64() && plain["ode"].is_null() && plain["iw"].is_null(), "{plain}");
    let ode = json("--bound ode");
    assert_eq!((ode["ode"]["n"].as_u64(), ode["iw"].is_null()), (Some(6), true), "{ode}");
    let bound = |report: &Value| report["iw"]["iw_bound"]["mean"].as_f64().unwrap();
    let both = json("--bound ode,iw:1");
    assert_eq!((both["iw"]["n"].as_u64(), both["iw"]["samples"].as_u64()), (Some(6), Some(1)));
    // One sample is the ODE's bound by another draw; more samples make it tighter.
    let nelbo_ode = both["ode"]["nelbo_ode"]["mean"].as_f64().unwrap();
    assert!((bound(&both) - nelbo_ode).abs() < 0.05 * nelbo_ode, "{both}");
    let eight = json("--bound iw:8");
    assert!(bound(&eight) < bound(&both) && eight["iw"]["iw_bound"]["stderr"].is_f64(), "{eight}");
}

#[test]
fn samples_are_measured_in_a_feature_space_that_is_named_and_kept() {
    let bench = Bench::trained();
    let line = "evaluate run --limit 6 --bound nelbo --samples 60 --solver heun --steps 4 --json m.json";
    let table = bench.lsgm(line).succeeds().stdout;
    let json: Value = serde_json::from_slice(&std::fs::read(bench.path("m.json")).unwrap()).unwrap();
    let measures = json["measures"]["samples"].as_array().unwrap();
    let value = |name: &str| {
        let found = measures.iter().find(|m| m["name"] == name).unwrap_or_else(|| panic!("no {name} in {json}"));
        found["value"].as_f64().unwrap()
    };
    // A tiny model is far from its data, the data are not.
    assert!(value("frechet_distance") > 3.0 * value("frechet_floor"), "{json}");
    for name in ["precision", "recall", "coverage", "mean_confidence", "feature_accuracy"] {
        assert!((0.0..=1.0).contains(&value(name)), "{name}: {json}");
    }
    assert!(value("class_entropy") <= 10f64.ln() + 1e-6 && value("density") >= 0.0);
    assert!(table.contains("lsgm-features v2, 10 labels") && table.contains("60 samples, heun: 8 NFE"), "{table}");
    let kept = bench.files("cache");
    assert!(kept.len() == 1 && kept[0].starts_with("features-v2-"), "{kept:?}");
    bench.lsgm(line).succeeds();
    assert_eq!(bench.files("cache"), kept);
}

#[test]
fn a_film_and_the_way_through_the_prior() {
    let bench = Bench::trained();
    bench.lsgm("sample run --count 9 --out s.png --film f.png --solver heun --steps 5").succeeds();
    let (w, h) = png_size(&bench, "f.png");
    assert!(w > h, "12 moments of 8 items: {w} × {h}");
    let out = bench.lsgm("reconstruct run --count 4 --out p.png --through-prior").succeeds().stdout;
    assert!(out.contains("through the prior") && out.contains("NFE"), "{out}");
    let bytes = |name: &str| std::fs::read(bench.path(name)).unwrap();
    bench.lsgm("reconstruct run --count 4 --out r.png").succeeds();
    assert_eq!(png_size(&bench, "p.png"), png_size(&bench, "r.png"));
    assert!(bytes("p.png").len() > 100);
    bench.lsgm("reconstruct run --items a b --out x.png").fails(2, &["`binary`", "cannot be given"]);
    bench.lsgm("interpolate run --items a b c --out x.png").fails(2, &["two for each path"]);
    bench.lsgm("sample run --count 4 --out s.png --film no/such/f.png").fails(2, &["there is no folder"]);
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
