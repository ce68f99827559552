//! Files that cannot be written: found out before the work, nothing lost, nothing half-written.

use crate::support::Bench;

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

/// A limit on the size of files stands for a full disk.
#[test]
#[cfg(unix)]
fn a_full_run_directory_loses_nothing() {
    let bench = Bench::new();
    bench.lsgm("train tiny.toml --out run --stage vae").succeeds();
    let before = std::fs::read(bench.path("run/model.safetensors")).unwrap();
    let script = "trap '' XFSZ; ulimit -f 2; exec \"$0\" train tiny.toml --out run --resume";
    let output = std::process::Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_lsgm")])
        .current_dir(bench.path("."))
        .output()
        .unwrap();
    crate::support::Finished::new(output).fails(1, &["run", "File too large"]);
    assert_eq!(std::fs::read(bench.path("run/model.safetensors")).unwrap(), before, "the checkpoint before is kept");
    bench.lsgm("train tiny.toml --out run --resume").succeeds();
}
