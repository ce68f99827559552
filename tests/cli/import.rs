//! `lsgm import`: published checkpoints as run directories, and what is said when that is impossible.

#[path = "../../crates/lsgm-import/tests/common/mod.rs"]
mod torch;

#[path = "../../crates/lsgm-import/tests/common/layouts.rs"]
mod layouts;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use crate::images::png;
use crate::support::{Bench, shared};
use torch::*;

/// A copy of a golden file in the bench, as `x.safetensors`.
fn golden(bench: &Bench, name: &str) -> Option<PathBuf> {
    let from = shared(&format!("golden/{name}.safetensors"))?;
    Some(bench.write("x.safetensors", std::fs::read(from).unwrap()))
}

/// The file's tensors and metadata with changes, written in its place.
fn change(path: &Path, edit: impl FnOnce(&mut HashMap<String, Tensor>, &mut HashMap<String, String>)) {
    let (mut tensors, mut metadata) = content(path);
    edit(&mut tensors, &mut metadata);
    safetensors::serialize_to_file(&tensors, Some(metadata), path).unwrap();
}

fn content(path: &Path) -> (HashMap<String, Tensor>, HashMap<String, String>) {
    let bytes = std::fs::read(path).unwrap();
    let metadata = safetensors::SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
    (candle_core::safetensors::load(path, &Device::Cpu).unwrap(), metadata)
}

/// The file as `torch.save` would write it, nested as LSGM nests its checkpoints.
fn as_torch(path: &Path, key: &str) {
    let (tensors, metadata) = content(path);
    let weights: Vec<_> = tensors.iter().filter_map(|(n, t)| Some((n.strip_prefix("weights.")?, t))).collect();
    let (mut entries, mut storages) = (Vec::new(), Vec::new());
    for (i, (name, tensor)) in weights.iter().enumerate().filter(|(_, (_, t))| t.dtype().is_float()) {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        let shape: Vec<i64> = tensor.dims().iter().map(|d| *d as i64).collect();
        let strides: Vec<i64> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        entries.push((*name, tensor_of(&i.to_string(), values.len() as i64, &shape, &strides)));
        storages.push((i.to_string(), floats(&values)));
    }
    let args: serde_json::Value = serde_json::from_str(&metadata["args"]).unwrap();
    let args: Vec<_> = args.as_object().unwrap().iter().map(|(k, v)| (k.as_str(), code(v))).collect();
    let content = dict(&[("epoch", int(1)), ("args", namespace(&args)), (key, state_dict(&entries))]);
    let storages: Vec<_> = storages.iter().map(|(k, bytes)| (k.as_str(), bytes.clone())).collect();
    write_zip(&path.with_extension("pt"), &pickle(content), &storages);
}

fn tensor_of(key: &str, elements: i64, shape: &[i64], strides: &[i64]) -> Code {
    tensor(key, elements, 0, shape, strides)
}

fn code(value: &serde_json::Value) -> Code {
    use serde_json::Value;
    match value {
        Value::Bool(b) => boolean(*b),
        Value::Number(n) => n.as_i64().map_or_else(|| float(n.as_f64().unwrap()), int),
        Value::String(s) => text(s),
        Value::Array(members) => list(&members.iter().map(code).collect::<Vec<_>>()),
        _ => b"N".to_vec(),
    }
}

/// Options that let a run of MNIST's sizes use the built-in set, and end soon.
const GLYPHS: &str = "--set data.set=glyphs --set data.limit=20 --set train.batch_size=4 --set train.sample_count=2 \
                      --set sample.solver=heun --set sample.steps=2 --set evaluate.after_training=0";

#[test]
fn a_golden_binary_autoencoder_is_verified_and_goes_on() {
    let bench = Bench::new();
    let Some(file) = golden(&bench, "nvae_binary_mbconv") else { return };
    let said = bench.lsgm(&format!("import x.safetensors --out run --verify {GLYPHS}")).succeeds().stdout;
    for part in ["eps.1", "logits", "log_q", "recon_nll", "decode_logits", "a new one, close to N(0, I)"] {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
    bench.lsgm("sample run --count 2 --solver heun --steps 2 --out a.png").succeeds();
    bench.lsgm("evaluate run --limit 4 --bound nelbo --set evaluate.time_samples=1").succeeds();
    as_torch(&file, "vae_state_dict");
    bench.lsgm(&format!("import x.pt --out same {GLYPHS}")).succeeds();
    assert!(bench.tensors("run/model.safetensors") == bench.tensors("same/model.safetensors"));
    bench.lsgm("train run --resume --time-budget 1s").succeeds();
}

#[test]
fn a_golden_colour_autoencoder_is_verified() {
    let bench = Bench::new();
    if golden(&bench, "nvae_rgb_bnswish").is_none() {
        return;
    }
    for i in 0..8u8 {
        let picture = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([x as u8 * 8, y as u8 * 8, i * 30]));
        bench.write(&format!("folder/{i}.png"), png(picture));
    }
    let data = "--data folder --set data.kind=image-folder --set data.val=0.25 --set data.test=0.25 --set train.batch_size=2 \
                --set train.sample_count=2 --set sample.solver=heun --set sample.steps=2 --set evaluate.after_training=0";
    let said = bench.lsgm(&format!("import x.safetensors --out run --verify {data}")).succeeds().stdout;
    assert!(said.contains("recon_nll") && said.contains("decode_logits"), "{said}");
    bench.lsgm("sample run --count 2 --solver heun --steps 2 --out a.png").succeeds();
    bench.lsgm("evaluate run --bound nelbo --set evaluate.time_samples=1").succeeds();
    bench.lsgm("train run --resume --time-budget 1s").succeeds();
}

#[test]
fn a_golden_prior_is_verified_and_gets_an_autoencoder() {
    let bench = Bench::new();
    let Some(file) = golden(&bench, "ncsnpp_vpsde") else { return };
    let said = bench.lsgm(&format!("import x.safetensors --out run --verify {GLYPHS}")).succeeds().stdout;
    for part in ["pred", "mixed", "ode_z0", "ode_nfe", "a new one, untrained"] {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
    bench.lsgm("sample run --count 2 --solver heun --steps 2 --out a.png").succeeds();
    bench.lsgm("evaluate run --limit 4 --bound nelbo --set evaluate.time_samples=1").succeeds();
    bench.lsgm("train run --resume --time-budget 1s").succeeds();
    // Without inputs nothing tells how large the latents are.
    as_torch(&file, "dae_state_dict");
    bench.lsgm("import x.pt --out other").fails(2, &["x.pt", "nothing tells how large the latents"]);
}

#[test]
fn both_halves_from_two_files_of_a_folder_make_one_run() {
    let bench = Bench::new();
    let Some(file) = golden(&bench, "nvae_binary_mbconv") else { return };
    as_torch(&file, "vae_state_dict");
    std::fs::create_dir(bench.path("both")).unwrap();
    std::fs::rename(bench.path("x.pt"), bench.path("both/vae.pt")).unwrap();
    golden(&bench, "ncsnpp_vpsde").unwrap();
    std::fs::rename(bench.path("x.safetensors"), bench.path("both/prior.safetensors")).unwrap();
    let said = bench.lsgm(&format!("import both --out run {GLYPHS}")).succeeds().stdout;
    assert!(
        said.contains("vae.pt") && said.contains("prior.safetensors") && said.contains("ready to sample"),
        "{said}"
    );
    bench.lsgm("sample run --count 2 --solver heun --steps 2 --out a.png").succeeds();
    bench.lsgm("train run --resume --time-budget 1s").succeeds();
}

/// An autoencoder with several scales, flows and progressive input, for images of MNIST's sizes, as a file of golden layout.
fn write_hierarchy(file: &Path) {
    let args = layouts::with(&layouts::hierarchy(), &[("dataset", "mnist".into()), ("decoder_dist", "bin".into())]);
    layouts::write(file, &args, &layouts::published(&layouts::autoencoder(&args, 1), &["encoder.", "decoder."]));
}

/// What no golden file has: several scales, flows, progressive input, FIR filters, progressive output, times as Fourier
/// features.
#[test]
fn other_layouts_become_runs_that_do_everything() {
    let bench = Bench::new();
    let file = bench.path("x.safetensors");
    write_hierarchy(&file);
    as_torch(&file, "vae_state_dict");
    std::fs::create_dir(bench.path("both")).unwrap();
    std::fs::rename(bench.path("x.pt"), bench.path("both/vae.pt")).unwrap();
    let ways = ["progressive", "progressive_input", "embedding_type"];
    let changes: Vec<_> = ways.into_iter().zip(["output_skip", "residual", "fourier"].map(Into::into)).collect();
    let args = layouts::with(&layouts::with(&layouts::score_network(), &changes), &[("embedding_scale", 16.0.into())]);
    let (_, prior) = layouts::prior(&args, lsgm_core::LatentShape::plane(6, 8, 8), 2);
    layouts::write(&file, &args, &layouts::published(&prior, &["prior.network.", "prior."]));
    std::fs::rename(&file, bench.path("both/prior.safetensors")).unwrap();

    let said = bench.lsgm(&format!("import both --out run {GLYPHS}")).succeeds().stdout;
    assert!(said.contains("ready to sample"), "{said}");
    let model = bench.tensors("run/model.safetensors");
    assert!(model.contains_key("encoder.nf_cells.7.cell2.mu.conv_0.weight"), "{:?}", model.keys());
    bench.lsgm("sample run --count 2 --solver heun --steps 2 --out a.png").succeeds();
    bench.lsgm("evaluate run --limit 4 --bound nelbo --set evaluate.time_samples=1").succeeds();
    bench.lsgm("train run --resume --time-budget 1s").succeeds();
    bench.lsgm("sample run --count 2 --solver heun --steps 2 --out b.png").succeeds();
}

#[test]
fn tensors_that_do_not_fit_are_each_named() {
    let bench = Bench::new();
    let Some(file) = golden(&bench, "nvae_binary_mbconv") else { return };
    change(&file, |tensors, _| {
        tensors.remove("weights.stem.bias").unwrap();
        tensors.remove("weights.prior_ftr0").unwrap();
        let zeros = Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
        tensors.insert("weights.stem.weight".into(), zeros.clone());
        tensors.insert("weights.enc_tower.99.weight".into(), zeros.clone());
        tensors.insert("weights.spare".into(), zeros);
    });
    let named = [
        "x.safetensors",
        "`stem.bias` is missing",
        "`prior_ftr0` is missing",
        "`stem.weight` has shape [3] instead of [16, 1, 3, 3]",
        "`enc_tower.99.weight` is unknown",
        "`spare` is unknown",
    ];
    bench.lsgm("import x.safetensors --out run").fails(2, &named);
    nothing_is_left(&bench);
}

/// Those of the prior, beside an autoencoder and alone.
#[test]
fn tensors_of_a_prior_that_do_not_fit_are_each_named() {
    let bench = Bench::new();
    let file = bench.path("x.safetensors");
    write_hierarchy(&file);
    std::fs::create_dir(bench.path("both")).unwrap();
    std::fs::rename(&file, bench.path("both/vae.safetensors")).unwrap();
    let args = layouts::score_network();
    let (_, prior) = layouts::prior(&args, lsgm_core::LatentShape::plane(6, 8, 8), 2);
    let mut weights = layouts::published(&prior, &["prior.network.", "prior."]);
    let zeros = Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
    weights.insert("all_modules.2.weight".into(), zeros.clone());
    weights.insert("all_modules.99.bias".into(), zeros);
    weights.remove("all_modules.0.bias").unwrap();
    layouts::write(&bench.path("both/prior.safetensors"), &args, &weights);
    let named = [
        "prior.safetensors",
        "`all_modules.2.weight` has shape [3] instead of [8, 6, 3, 3]",
        "`all_modules.99.bias` is unknown",
        "`all_modules.0.bias` is missing",
    ];
    bench.lsgm("import both --out run").fails(2, &named);
    nothing_is_left(&bench);
    std::fs::copy(bench.path("both/prior.safetensors"), &file).unwrap();
    bench.lsgm("import x.safetensors --out run").fails(2, &["`all_modules.2.weight` has shape [3]"]);
}

fn nothing_is_left(bench: &Bench) {
    let left: Vec<_> = bench.files(".").into_iter().filter(|f| f.contains("run") || f.contains("partial")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn other_weights_do_not_pass_the_verification() {
    let bench = Bench::new();
    let Some(file) = golden(&bench, "nvae_binary_mbconv") else { return };
    change(&file, |tensors, _| {
        let bias = tensors.get_mut("weights.image_conditional.1.bias").unwrap();
        *bias = (&*bias + 1e-3).unwrap();
    });
    bench.lsgm("import x.safetensors --out run --verify").fails(1, &["outputs differ", "logits", "decode_logits"]);
    nothing_is_left(&bench);
    bench.lsgm("import x.safetensors --out run").succeeds();
    let Some(file) = golden(&bench, "ncsnpp_vpsde") else { return };
    change(&file, |tensors, _| tensors.retain(|name, _| !name.starts_with("io.ode") && name != "io.mixed"));
    bench.lsgm("import x.safetensors --out other --verify").succeeds();
    change(&file, |tensors, _| tensors.retain(|name, _| name == "io.z" || !name.starts_with("io.")));
    bench.lsgm("import x.safetensors --out third --verify").fails(2, &["--verify", "no inputs and outputs"]);
    // An output without its inputs is not passed over, whatever else is right.
    let file = golden(&bench, "ncsnpp_vpsde").unwrap();
    change(&file, |tensors, _| drop(tensors.remove("io.t")));
    let said = ["--verify", "cannot be recomputed", "mixed, pred"];
    bench.lsgm("import x.safetensors --out third --verify").fails(2, &said);
}

#[test]
fn arguments_that_cannot_be_used_are_named() {
    let bench = Bench::new();
    let edit = |from: &str, to: &str| {
        let file = golden(&bench, "nvae_binary_mbconv")?;
        change(&file, |_, metadata| {
            let args = metadata["args"].replace(from, to);
            metadata.insert("args".into(), args);
        });
        Some(())
    };
    for (from, to, part) in [
        ("\"num_groups_per_scale\": 2, ", "", "num_groups_per_scale"),
        ("res_mbconv", "res_unheard_of", "arch_instance"),
        ("\"num_latent_per_group\": 4", "\"num_latent_per_group\": \"four\"", "num_latent_per_group"),
        ("\"num_latent_per_group\": 4", "\"num_latent_per_group\": 0", "latent_channels"),
        ("}", "", "args"),
    ] {
        if edit(from, to).is_none() {
            return;
        }
        bench.lsgm("import x.safetensors --out run").fails(2, &["x.safetensors", part]);
    }
    let file = golden(&bench, "ncsnpp_vpsde").unwrap();
    change(&file, |_, metadata| {
        drop(metadata.insert("args".into(), "{\"dataset\": \"mnist\", \"sde_type\": \"x\"}".into()))
    });
    bench.lsgm("import x.safetensors --out run").fails(2, &["x.safetensors", "args.num_channels_dae"]);
    change(&file, |_, metadata| drop(metadata.remove("args")));
    bench.lsgm("import x.safetensors --out run").fails(2, &["x.safetensors", "args.json"]);
    nothing_is_left(&bench);
}

/// An architecture that would take more memory than there is, is refused by what the file holds.
#[test]
fn arguments_are_held_against_the_tensors_beside_them() {
    let bench = Bench::new();
    let Some(file) = golden(&bench, "nvae_binary_mbconv") else { return };
    change(&file, |_, metadata| {
        let mut args: serde_json::Value = serde_json::from_str(&metadata["args"]).unwrap();
        args["num_channels_dec"] = 10_000_000.into();
        metadata.insert("args".into(), args.to_string());
    });
    bench
        .lsgm("import x.safetensors --out run")
        .fails(2, &["x.safetensors", "the model is too large", "another model"]);
    nothing_is_left(&bench);
}

#[test]
fn malicious_and_damaged_files_are_told() {
    let bench = Bench::new();
    let import = || bench.lsgm("import x.pt --out run");
    import().fails(2, &["x.pt", "no such file"]);
    let marker = bench.path("executed");
    let command = text(&format!("touch {}", marker.display()));
    let evil = pickle(call(global("os", "system"), &[command]));
    write_zip(&bench.path("x.pt"), &evil, &[]);
    import().fails(2, &["x.pt", "`os.system`", "nothing was executed"]);
    write_legacy(&bench.path("x.pt"), &evil, &[]);
    import().fails(2, &["x.pt", "`os.system`", "nothing was executed"]);
    assert!(!marker.exists());
    let weights = |elements: i64| {
        dict(&[
            ("args", namespace(&[("dataset", text("mnist"))])),
            ("vae_state_dict", state_dict(&[("stem.weight", tensor("0", elements, 0, &[elements], &[1]))])),
        ])
    };
    write_zip(&bench.path("x.pt"), &pickle(weights(1 << 40)), &[("0", floats(&[1.0]))]);
    import().fails(2, &["x.pt", "tensor `stem.weight`", "has 4 bytes instead of"]);
    write_zip(&bench.path("x.pt"), &pickle(weights(1))[..40], &[("0", floats(&[1.0]))]);
    import().fails(2, &["x.pt", "data.pkl", "byte"]);
    bench.write("x.pt", "PK and nothing else");
    import().fails(2, &["x.pt", "damaged zip archive"]);
    bench.write("x.safetensors", "no header");
    bench.lsgm("import x.safetensors --out run").fails(2, &["x.safetensors", "no safetensors file"]);
    std::fs::create_dir(bench.path("empty")).unwrap();
    bench.lsgm("import empty --out run").fails(2, &["empty", "holds no `.safetensors`"]);
    nothing_is_left(&bench);
}

#[test]
fn nothing_that_is_there_is_touched() {
    let bench = Bench::trained();
    let before = bench.files("run");
    bench.lsgm("import x.pt --out run").fails(2, &["run", "holds files already"]);
    assert_eq!(bench.files("run"), before);
    bench.lsgm("import x.pt --out tiny.toml").fails(2, &["tiny.toml", "is a file"]);
}
