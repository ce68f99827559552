//! Run directories: resume, kill, two processes, checkpoints that do not fit.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Bench, Finished, TINY, wait_for};

/// A training that takes long.
fn start_long(bench: &Bench, more: &[&str]) -> Child {
    let args = ["train", "tiny.toml", "--out", "run", "--set", "train.vae.steps=100000"];
    bench.command(args.iter().chain(more)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn step(run: &Path) -> u64 {
    let Ok(text) = std::fs::read_to_string(run.join("state.json")) else { return 0 };
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["step"].as_u64().unwrap()
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn what_is_no_run_is_told() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("empty")).unwrap();
    for line in ["sample RUN --count 4 --out a.png", "evaluate RUN", "train tiny.toml --resume --out RUN"] {
        bench.lsgm(&line.replace("RUN", "nowhere")).fails(2, &["nowhere", "not a run directory"]);
        bench.lsgm(&line.replace("RUN", "empty")).fails(2, &["empty", "not a run directory"]);
    }
}

#[test]
fn a_finished_run_is_neither_resumed_nor_overwritten() {
    let bench = Bench::trained();
    let before = std::fs::read(bench.path("run/model.safetensors")).unwrap();
    bench.lsgm("train tiny.toml --out run --resume").fails(2, &["run", "finished"]);
    bench.lsgm("train run --resume").fails(2, &["run", "finished"]);
    bench.lsgm("train tiny.toml --out run").fails(2, &["run", "--resume"]);
    assert_eq!(std::fs::read(bench.path("run/model.safetensors")).unwrap(), before);
}

#[test]
fn another_architecture_is_told() {
    let bench = Bench::trained();
    bench.lsgm("train tiny.toml --out other --set autoencoder.latent_channels=4 --stage vae").succeeds();
    let change = "train tiny.toml --out other --resume --set autoencoder.latent_channels=2";
    bench.lsgm(change).fails(2, &["autoencoder.latent_channels", "architecture"]);
    for name in ["model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"] {
        std::fs::copy(bench.path("run").join(name), bench.path("other").join(name)).unwrap();
    }
    for line in ["sample other --count 4 --out a.png", "evaluate other", "train tiny.toml --out other --resume"] {
        bench.lsgm(line).fails(2, &["other", "another architecture", "shape"]);
    }
    assert!(!bench.path("a.png").exists());
}

#[test]
fn damaged_checkpoints_are_told() {
    let bench = Bench::trained();
    let weights = bench.path("run/ema.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    for damaged in [&whole[..whole.len() / 2], &[], b"not safetensors at all"] {
        std::fs::write(&weights, damaged).unwrap();
        bench.lsgm("sample run --count 4 --out a.png").fails(2, &["ema.safetensors", "corrupt"]);
    }
    std::fs::write(&weights, whole).unwrap();
    std::fs::write(bench.path("run/state.json"), "{").unwrap();
    bench.lsgm("sample run --count 4 --out a.png").fails(2, &["state.json", "corrupt"]);
    assert!(!bench.path("a.png").exists());
}

#[test]
#[cfg(unix)]
fn one_process_trains_at_a_time_and_ctrl_c_saves() {
    let bench = Bench::new();
    let first = start_long(&bench, &["--set", "train.checkpoint_every=2"]);
    wait_for("a checkpoint", || step(&bench.path("run")) > 0);
    bench.lsgm("train tiny.toml --out run --resume").fails(2, &["run", "another process"]);
    bench.lsgm("train tiny.toml --out run").fails(2, &["run", "another process"]);

    signal(&first, "INT");
    let first = Finished::new(first.wait_with_output().unwrap());
    assert_eq!(first.code, Some(130), "{}", first.stderr);
    let last = first.stderr.lines().last().unwrap();
    assert!(last.contains("stopped and saved after") && last.contains("--resume"), "{last}");
    assert!(last.contains(&format!("{} steps", step(&bench.path("run")))), "{last}");
    bench.lsgm("sample run --count 4 --out a.png").succeeds();
}

#[test]
fn a_killed_training_resumes_bit_exactly() {
    let longer = ["--set", "train.vae.steps=40", "--set", "train.lsgm.steps=40", "--out", "run"];
    let whole = Bench::new();
    let output = whole.command(["train", "tiny.toml"].iter().chain(&longer)).output().unwrap();
    Finished::new(output).succeeds();

    let bench = Bench::new();
    let start = |args: &[&str]| bench.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let run = bench.path("run");
    let mut child = start(&[&["train", "tiny.toml"], &longer[..]].concat());
    let mut kills = 0;
    while kills < 5 {
        let begun = step(&run);
        wait_for("another checkpoint", || step(&run) > begun || child.try_wait().unwrap().is_some());
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        child = start(&["train", "run", "--resume"]);
    }
    child.wait().unwrap();
    assert!(kills > 1, "the training was over before it could be killed");
    assert_eq!(step(&run), 80);
    for name in ["run/model.safetensors", "run/ema.safetensors"] {
        assert!(whole.tensors(name) == bench.tensors(name), "{name} differs");
    }
    let losses = |bench: &Bench| {
        let events = std::fs::read_to_string(bench.path("run/events.jsonl")).unwrap();
        let line = |l: &str| serde_json::from_str::<serde_json::Value>(l).unwrap()["values"]["loss"].as_f64().unwrap();
        events.lines().map(line).collect::<Vec<_>>()
    };
    assert_eq!(losses(&whole), losses(&bench), "every event stands once in the log");
}

#[test]
fn a_training_that_diverges_gives_up_and_keeps_its_checkpoint() {
    let bench = Bench::new();
    bench.lsgm("train tiny.toml --out run --stage vae").succeeds();
    let before = bench.tensors("run/model.safetensors");
    let line = "train tiny.toml --out run --resume --set train.lsgm.vae_learning_rate=1e30";
    let finished = bench.lsgm(line);
    finished.fails(1, &["learning rate"]);
    let is_rollback = |l: &&str| l.starts_with("lsgm: warning: ") && l.contains("back to step");
    assert_eq!(finished.stderr.lines().filter(is_rollback).count(), 4, "{}", finished.stderr);
    assert!(bench.tensors("run/model.safetensors") == before);
    bench.lsgm("train tiny.toml --out run --resume --set train.lsgm.vae_learning_rate=1e-3").succeeds();
}

#[test]
fn a_run_goes_on_with_its_own_config() {
    let bench = Bench::new();
    bench.lsgm("train tiny.toml --out run --stage vae --set train.seed=7").succeeds();
    bench.lsgm("train tiny.toml --out run --resume --seed 8").fails(2, &["another seed", "train.seed: 7 -> 8"]);
    let changed = TINY.replace("checkpoint_every = 4", "checkpoint_every = 3");
    bench.write("tiny.toml", changed);
    let stderr = bench.lsgm("train tiny.toml --out run --resume --set train.lsgm.steps=6").succeeds().stderr;
    let notice = stderr.lines().find(|l| l.contains("goes on with its own config")).unwrap();
    assert!(notice.contains("train.checkpoint_every: 3 -> 4") && notice.contains("train.seed: 0 -> 7"), "{notice}");
    assert!(!notice.contains("train.lsgm.steps"), "what was asked for is not ignored: {notice}");
    let config = std::fs::read_to_string(bench.path("run/config.toml")).unwrap();
    for part in ["checkpoint_every = 4", "seed = 7", "steps = 6"] {
        assert!(config.contains(part), "{part} is missing in\n{config}");
    }
    assert_eq!(step(&bench.path("run")), 18);
}

#[test]
fn stages_can_be_trained_apart() {
    let bench = Bench::new();
    bench.lsgm("train tiny.toml --out run --stage lsgm").fails(2, &["--stage lsgm: stage 1 is not done yet"]);
    assert!(!bench.path("run").exists());
    bench.lsgm("train tiny.toml --out run --stage vae").succeeds();
    assert_eq!(step(&bench.path("run")), 12);
    bench
        .lsgm("train tiny.toml --out run --stage vae --resume")
        .fails(2, &["--stage vae: stage 1 of this run is done"]);
    bench.lsgm("train tiny.toml --out run --stage lsgm --resume").succeeds();
    assert_eq!(step(&bench.path("run")), 24);
    let whole = Bench::trained();
    let name = "run/model.safetensors";
    assert!(bench.tensors(name) == whole.tensors(name), "trained apart or at once, the weights are the same");
}
