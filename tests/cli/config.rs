//! Mistakes in configs and on the command line.

use crate::support::{Bench, TINY};

/// `name:line` of the first line of `text` with `part`.
fn place(name: &str, text: &str, part: &str) -> String {
    let line = text.lines().position(|line| line.contains(part)).unwrap();
    format!("{name}:{}: ", line + 1)
}

#[test]
fn unknown_keys_bring_the_nearest_known_one() {
    let bench = Bench::new();
    let text = TINY.replace("batch_size = 10", "bacth_size = 10");
    bench.write("a.toml", &text);
    bench.lsgm("train a.toml").fails(
        2,
        &[
            &place("a.toml", &text, "bacth"),
            "unknown key `train.bacth_size`",
            "nearest known key is `train.batch_size`",
        ],
    );
    let text = TINY.replace("[prior.network]\n", "[prior.network]\nchanels = 8\n");
    bench.write("b.toml", &text);
    bench.lsgm("train b.toml").fails(
        2,
        &[&place("b.toml", &text, "chanels"), "unknown key `prior.network.chanels`", "`prior.network.channels`"],
    );
    bench
        .lsgm("train tiny.toml --set train.vae.stpes=3")
        .fails(2, &["--set train.vae.stpes=3: unknown key `train.vae.stpes`", "`train.vae.steps`"]);
    assert!(!bench.path("runs").exists(), "nothing is written for a config that is wrong");
}

#[test]
fn wrong_types_and_values_bring_place_and_expectation() {
    let bench = Bench::new();
    let text = TINY.replace("batch_size = 10", "batch_size = \"many\"");
    bench.write("a.toml", &text);
    bench.lsgm("train a.toml").fails(
        2,
        &[&place("a.toml", &text, "many"), "`train.batch_size` must be a whole number", "found string \"many\""],
    );
    bench
        .lsgm("train tiny.toml --set train.batch_size=0")
        .fails(2, &["--set train.batch_size=0: ", "`train.batch_size`"]);
    bench.lsgm("train tiny.toml --set autoencoder.channels=[0]").fails(2, &["--set ", "`autoencoder.channels`"]);
    bench.lsgm("train tiny.toml --set prior.sde.kind=ddpm").fails(2, &["`prior.sde.kind` is \"ddpm\"", "vpsde"]);
    bench.lsgm("train tiny.toml --set modality=audi").fails(2, &["`modality` is \"audi\"", "binary"]);
    bench.lsgm("train tiny.toml --set prior.t_eps=2").fails(2, &["--set prior.t_eps=2: ", "`prior.t_eps`"]);
    bench.lsgm("train tiny.toml --set train").fails(2, &["--set train: write it as key=value"]);
}

#[test]
fn configs_that_cannot_be_read_are_told() {
    let bench = Bench::new();
    bench.lsgm("train none.toml").fails(2, &["none.toml: there is no such file"]);
    bench.lsgm("train .").fails(2, &["is a folder", "--resume"]);
    bench.write("broken.toml", "modality = \"binary\"\n[train\n");
    bench.lsgm("train broken.toml").fails(2, &["broken.toml:2: not valid TOML"]);
    bench.write("bytes.toml", [b'a', b'=', 0xff]);
    bench.lsgm("train bytes.toml").fails(2, &["bytes.toml:1: the file is not UTF-8 text"]);
}

#[test]
fn the_command_line_is_checked() {
    let bench = Bench::new();
    for (line, part) in [
        ("trian tiny.toml", "'train'"),
        ("train", "<CONFIG>"),
        ("train tiny.toml --time-budget soon", "is not a duration"),
        ("train tiny.toml --stage three", "vae"),
        ("train tiny.toml --threads 0", "--threads"),
        ("sample run --count 0 --out a.png", "--count"),
        ("sample run --count 4 --out a.png --solver rk54", "rk45"),
        ("sample run --count 4 --out a.png --steps 0", "--steps"),
        ("sample run --count 4 --out a.png --grid cosine", "karras"),
        ("sample run --count 4 --out a.png --readjust-bn 0", "--readjust-bn"),
        ("evaluate run --split dev", "val"),
        ("evaluate run --bound elbo", "iw:K"),
        ("evaluate run --bound iw:0", "iw:16"),
        ("reconstruct run --out a.png", "--count"),
        ("reconstruct run --count 2 --items a --out a.png", "--count"),
        ("completions csh", "bash"),
    ] {
        let finished = bench.lsgm(line);
        assert_eq!(finished.code, Some(2), "{line}: {}", finished.stderr);
        assert!(finished.stderr.contains(part) && !finished.stderr.contains("panicked"), "{line}: {}", finished.stderr);
    }
}

#[test]
fn the_prior_and_its_solvers_say_what_cannot_be_done() {
    let bench = Bench::trained();
    for (line, parts) in [
        ("sample run --count 2 --out a.png --tol 0", &["sample.tolerance", "above 0"][..]),
        ("sample run --count 2 --out a.png --tol nan", &["sample.tolerance"]),
        ("evaluate run --set evaluate.ode_tolerance=0", &["evaluate.ode_tolerance", "positive"]),
        ("evaluate run --set evaluate.ode_probes=0", &["evaluate.ode_probes", "at least 1"]),
        ("evaluate run --set evaluate.ode_trace=\"some\"", &["rademacher", "exact"]),
        ("train tiny.toml --out x --set sample.solver=\"rk54\"", &["rk54", "dpm-solver-2m"]),
        ("train tiny.toml --out x --set sample.solver=\"heun\" --set sample.steps=0", &["sample.steps", "at least 1"]),
        ("train tiny.toml --out x --set prior.t_eps=1.5", &["prior.t_eps", "between 0 and 1"]),
        ("train tiny.toml --out x --set prior.t_eps=0", &["prior.t_eps", "1e-5 to 1e-2"]),
        ("train tiny.toml --out x --set train.lsgm.weighting=\"ll\"", &["ll-iw"]),
        (
            "train tiny.toml --out x --set train.lsgm.algorithm=2 --set train.lsgm.weighting=\"un-iw\" --set prior.sde={kind=\"geometric\"}",
            &["train.lsgm.weighting", "re-iw"],
        ),
        ("train tiny.toml --out x --set train.lsgm.kl_balance=true", &["train.lsgm.kl_balance", "kl_annealing"]),
    ] {
        bench.lsgm(line).fails(2, parts);
    }
}

#[test]
fn help_and_completions_are_results() {
    let bench = Bench::new();
    assert!(bench.lsgm("--help").succeeds().stdout.contains("lsgm"));
    for line in
        ["train -h", "sample -h", "reconstruct -h", "interpolate -h", "evaluate -h", "data -h", "completions -h"]
    {
        assert!(bench.lsgm(line).succeeds().stdout.contains("Usage: lsgm"), "{line}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(bench.lsgm(&format!("completions {shell}")).succeeds().stdout.contains("reconstruct"));
    }
}

/// Words in place of the operating system's end of a process that asks for more memory than there is.
#[test]
fn models_and_batches_beyond_any_memory_are_refused() {
    let bench = Bench::new();
    bench.write("tiny.toml", TINY);
    for command in ["check", "train"] {
        let of = |value: &str| bench.lsgm(&format!("{command} tiny.toml --set {value}"));
        of("train.batch_size=2000000000").fails(2, &["train.batch_size", "2000000000 is too large"]);
        if cfg!(target_os = "linux") {
            of("prior.network.channels=800000").fails(2, &["too large", "`prior.network.", "lower the widths"]);
            of("autoencoder.channels=[1000000000000]").fails(2, &["too large", "`encoder.", "GB of memory"]);
        }
    }
    assert!(bench.files(".").iter().all(|name| name == "tiny.toml"), "nothing is written");
}
