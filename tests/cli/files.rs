//! Files that cannot be written: found out before the work, nothing lost, nothing half-written.

use crate::support::{Bench, Finished};

#[test]
fn outputs_are_refused_before_the_work() {
    let bench = Bench::trained();
    bench.write("file", "");
    for (out, part) in
        [("no/such/a.png", "there is no folder"), (".", "is a folder"), ("file/a.png", "there is no folder")]
    {
        bench.lsgm(&format!("sample run --count 4 --out {out}")).fails(2, &[out, part]);
        bench.lsgm(&format!("reconstruct run --count 4 --out {out}")).fails(2, &[out, part]);
        bench.lsgm(&format!("interpolate run --count 2 --out {out}")).fails(2, &[out, part]);
        bench.lsgm(&format!("evaluate run --json {out}")).fails(2, &[out, part]);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_told() {
    let bench = Bench::trained();
    bench.lsgm("evaluate run --limit 4 --json /dev/full").fails(1, &["/dev/full", "No space left"]);
    bench.lsgm("sample run --count 4 --out /dev/full").fails(1, &["/dev/full", "No space left"]);
}

#[test]
fn an_unwritable_run_directory_is_told() {
    let bench = Bench::new();
    bench.write("file", "");
    bench.lsgm("train tiny.toml --out file/run").fails(2, &["file/run", "cannot be written"]);
    bench.lsgm("train tiny.toml --out file").fails(2, &["file"]);
}

/// A limit on the size of files, in KiB, stands for a full disk.
#[cfg(unix)]
fn on_a_full_disk(bench: &Bench, limit: u32, line: &str) -> Finished {
    let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" {line}");
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_lsgm")]).current_dir(bench.path("."));
    Finished::new(command.output().unwrap())
}

#[test]
#[cfg(unix)]
fn nothing_half_written_is_left() {
    let bench = Bench::trained();
    bench.write("sheets/old.png", "kept");
    for (line, name) in [
        ("sample run --count 64 --out sheets/a.png", "a.png"),
        ("sample run --count 64 --out sheets/old.png", "old.png"),
        ("reconstruct run --count 64 --out sheets/b.png", "b.png"),
        ("evaluate run --limit 4 --json sheets/e.json", "e.json"),
    ] {
        let limit = u32::from(name.ends_with(".png"));
        on_a_full_disk(&bench, limit, line).fails(1, &[name, "File too large"]);
    }
    assert_eq!(bench.files("sheets"), ["old.png"]);
    assert_eq!(std::fs::read(bench.path("sheets/old.png")).unwrap(), b"kept");
}

#[test]
#[cfg(unix)]
fn a_full_run_directory_loses_nothing() {
    let bench = Bench::new();
    bench.lsgm("train tiny.toml --out run --stage vae").succeeds();
    let before = bench.tensors("run/model.safetensors");
    on_a_full_disk(&bench, 2, "train tiny.toml --out run --resume").fails(1, &["run", "File too large"]);
    assert!(bench.tensors("run/model.safetensors") == before, "the checkpoint before is kept");
    bench.lsgm("train tiny.toml --out run --resume").succeeds();
}
