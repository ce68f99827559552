//! Grey images and an NVAE, from a config to samples.

use serde_json::Value;

use crate::support::{Bench, TINY};

/// The tiny training with an NVAE in the place of its autoencoder.
fn nvae(modality: &str, data: &str) -> String {
    let (head, rest) = TINY.split_once("[autoencoder]").unwrap();
    let (_, rest) = rest.split_once("[prior.network]").unwrap();
    let autoencoder = "kind = \"nvae\"\nencoder_channels = 4\ndecoder_channels = 4\nchannel_multipliers = [1, 1, 1]\n\
                       preprocess_cells = 1\npostprocess_cells = 1\nlatent_channels = 1\n";
    let head = head.replace("\"binary\"", &format!("\"{modality}\"")).replace("limit = 200", data);
    format!("{head}[autoencoder]\n{autoencoder}[prior.network]{rest}")
}

#[test]
fn grey_images_train_and_a_run_resumes_with_all_its_statistics() {
    let bench = Bench::new();
    bench.write("grey.toml", nvae("image", "limit = 200\nchannels = 1\nheight = 28\nwidth = 28"));
    bench.lsgm("train grey.toml --out run").succeeds();
    bench.lsgm("train grey.toml --out parts --stage vae").succeeds();
    bench.lsgm("train grey.toml --out parts --resume").succeeds();
    for name in ["model.safetensors", "ema.safetensors"] {
        assert!(bench.tensors(&format!("run/{name}")) == bench.tensors(&format!("parts/{name}")), "{name}");
    }
    let bytes = |name: &str| std::fs::read(bench.path(name)).unwrap();
    let evaluation: Value = serde_json::from_slice(&bytes("run/evaluation.json")).unwrap();
    assert!(evaluation["bits_per_dim"]["mean"].as_f64().unwrap().is_finite());

    bench.lsgm("sample run --count 4 --out stored.png").succeeds();
    bench.lsgm("sample run --count 4 --out again.png").succeeds();
    bench.lsgm("sample run --count 4 --out readjusted.png --readjust-bn 3").succeeds();
    assert!(bytes("stored.png") == bytes("again.png"), "the run keeps its statistics");
    assert!(bytes("stored.png") != bytes("readjusted.png"));
    bench.lsgm("evaluate run --limit 10 --readjust-bn 2").succeeds();
}

#[test]
fn binary_images_take_an_nvae_too_and_wrong_sizes_are_told_by_key() {
    let bench = Bench::new();
    bench.write("binary.toml", nvae("binary", "limit = 200"));
    bench.lsgm("train binary.toml --out run").succeeds();
    bench.lsgm("sample run --count 4 --out s.png").succeeds();
    for (change, parts) in [
        ("autoencoder.preprocess_blocks=3", ["autoencoder.channel_multipliers", "4 sizes"]),
        ("autoencoder.padding=1", ["autoencoder.preprocess_blocks", "30×30"]),
        ("autoencoder.likelihood=logistic", ["autoencoder.likelihood", "bernoulli"]),
        ("autoencoder.latent_chanels=3", ["autoencoder.latent_chanels", "autoencoder.latent_channels"]),
    ] {
        bench.lsgm(&format!("train binary.toml --out other --set {change}")).fails(2, &parts);
        assert!(!bench.path("other").exists());
    }
}
