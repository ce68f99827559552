//! Where commands compute, and what is told where they cannot.

use lsgm::nn::gpu;

use crate::support::Bench;

#[test]
fn devices_are_listed_with_the_reason_why_there_are_no_more() {
    let bench = Bench::new();
    let told = bench.lsgm("devices").succeeds().stdout;
    assert!(told.contains("cpu       ") && told.contains("threads"), "{told}");
    if !gpu::is_built_in() {
        assert!(told.contains("cuda      none: ") && told.contains("--features cuda"), "{told}");
    }
}

#[test]
fn a_device_that_cannot_be_used_is_refused_before_anything_is_written() {
    let bench = Bench::new();
    let wrong = bench.lsgm("train tiny.toml --out run --device gpu");
    assert!(wrong.code == Some(2) && wrong.stderr.contains("cuda:N"), "{}", wrong.stderr);
    if !gpu::is_built_in() {
        bench.lsgm("train tiny.toml --out run --device cuda").fails(2, &["--device cuda:0", "--features cuda"]);
        bench.lsgm("check tiny.toml --device cuda:1").fails(2, &["--device cuda:1", "--device cpu"]);
    }
    assert!(!bench.path("run").exists());
    bench.lsgm("train tiny.toml --out run --device cpu").succeeds();
    bench.lsgm("sample run --count 4 --out s.png --device auto").succeeds();
}
