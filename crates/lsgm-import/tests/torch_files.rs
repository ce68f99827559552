//! PyTorch files: what is in them, and what is wrong with them. Nothing in them is ever run.

mod common;

use std::path::{Path, PathBuf};

use common::*;
use lsgm_import::{Checkpoint, read};
use serde_json::json;

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("x.pt")
    }

    /// A zip file with this content, and a storage `0` of the numbers 0 to 11.
    fn zip(&self, content: Code) -> PathBuf {
        write_zip(&self.path(), &pickle(content), &[("0", twelve())]);
        self.path()
    }
}

fn twelve() -> Vec<u8> {
    floats(&(0..12).map(|v| v as f32).collect::<Vec<_>>())
}

fn args() -> Code {
    namespace(&[
        ("num_channels_dae", int(32)),
        ("dropout", float(0.2)),
        ("fir", boolean(false)),
        ("dataset", text("mnist")),
        ("channel_mult", list(&[int(1), int(2)])),
        ("root", b"N".to_vec()),
        ("device", call(global("torch", "device"), &[text("cuda")])),
    ])
}

/// `stem.weight` and `all_modules.0.weight` as LSGM nests them.
fn nested() -> Code {
    dict(&[
        ("epoch", int(3)),
        ("args", args()),
        ("vae_state_dict", state_dict(&[("stem.weight", tensor("0", 12, 0, &[3, 4], &[4, 1]))])),
        ("dae_state_dict", state_dict(&[("module.all_modules.0.weight", tensor("0", 12, 2, &[2, 2], &[1, 2]))])),
    ])
}

fn rows(checkpoint: &Checkpoint, name: &str) -> Vec<Vec<f32>> {
    let halves = [&checkpoint.autoencoder, &checkpoint.prior].into_iter().flatten();
    halves.filter_map(|half| half.weights.get(name)).next().unwrap().to_vec2().unwrap()
}

fn check_nested(path: &Path) {
    let found = read(path).unwrap();
    assert_eq!(rows(&found, "stem.weight"), [[0., 1., 2., 3.], [4., 5., 6., 7.], [8., 9., 10., 11.]]);
    assert_eq!(rows(&found, "all_modules.0.weight"), [[2., 4.], [3., 5.]]);
    let expected = json!({
        "num_channels_dae": 32, "dropout": 0.2, "fir": false, "dataset": "mnist", "channel_mult": [1, 2], "root": null
    });
    assert_eq!(found.autoencoder.unwrap().args, expected);
}

#[test]
fn both_forms_of_files_are_read_with_their_arguments() {
    let bench = Bench::new();
    check_nested(&bench.zip(nested()));
    write_legacy(&bench.path(), &pickle(nested()), &[("0", twelve())]);
    check_nested(&bench.path());
}

#[test]
fn memo_parameters_and_shared_tensors_are_followed() {
    let bench = Bench::new();
    let kept = [&tensor("0", 12, 0, &[12], &[1])[..], b"q\x07"].concat();
    let parameter =
        call(global("torch._utils", "_rebuild_parameter"), &[b"h\x07".to_vec(), boolean(true), b"N".to_vec()]);
    let content = dict(&[("args", args()), ("weights", dict(&[("stem.weight", kept), ("stem.bias", parameter)]))]);
    let weights = read(&bench.zip(content)).unwrap().autoencoder.unwrap().weights;
    assert_eq!(weights["stem.weight"].to_vec1::<f32>().unwrap(), weights["stem.bias"].to_vec1::<f32>().unwrap());
    assert_eq!(weights["stem.bias"].dims(), [12]);
}

#[test]
fn averages_come_from_the_optimizers_state_in_the_order_of_parameters() {
    let bench = Bench::new();
    let state = |shape: &[i64]| {
        let strides: Vec<i64> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        let entry = |at: i64| dict(&[("step", int(9)), ("ema", tensor("0", 12, at, shape, &strides))]);
        let numbered = [&b"}("[..], &int(0), &entry(4), &int(1), &entry(6), b"u"].concat();
        dict(&[("state", numbered), ("param_groups", list(&[]))])
    };
    let weights = || {
        state_dict(&[
            ("stem.weight", tensor("0", 12, 0, &[2], &[1])),
            ("stem.running_mean", tensor("0", 12, 0, &[2], &[1])),
            ("stem.bias", tensor("0", 12, 2, &[2], &[1])),
        ])
    };
    let file = |optimizer| dict(&[("args", args()), ("vae_state_dict", weights()), ("vae_optimizer", optimizer)]);
    let averages = read(&bench.zip(file(state(&[2])))).unwrap().autoencoder.unwrap().averages;
    let values: Vec<_> = averages.iter().map(|(name, t)| (name.as_str(), t.to_vec1::<f32>().unwrap())).collect();
    assert_eq!(values, [("stem.bias", vec![6.0, 7.0]), ("stem.weight", vec![4.0, 5.0])]);
    // Fourier frequencies have a number too, though they are not trained and have no average.
    let entry = |at: i64| dict(&[("ema", tensor("0", 12, at, &[2], &[1]))]);
    let numbered = [&b"}("[..], &int(0), &entry(8), &int(2), &entry(10), b"u"].concat();
    let parameter = |at: i64| tensor("0", 12, at, &[2], &[1]);
    let weights_of_prior = state_dict(&[
        ("mixing_logit", parameter(0)),
        ("temb_fun.w", parameter(2)),
        ("all_modules.0.bias", parameter(4)),
    ]);
    let optimizer = dict(&[("state", numbered), ("param_groups", list(&[]))]);
    let prior = dict(&[("args", args()), ("dae_state_dict", weights_of_prior), ("dae_optimizer", optimizer)]);
    let averages = read(&bench.zip(prior)).unwrap().prior.unwrap().averages;
    let values: Vec<_> = averages.iter().map(|(name, t)| (name.as_str(), t.to_vec1::<f32>().unwrap())).collect();
    assert_eq!(values, [("all_modules.0.bias", vec![10.0, 11.0]), ("mixing_logit", vec![8.0, 9.0])]);
    // An optimizer of something else.
    assert!(read(&bench.zip(file(state(&[1, 2])))).unwrap().autoencoder.unwrap().averages.is_empty());
}

#[test]
fn arguments_may_lie_beside_a_bare_state_dict() {
    let bench = Bench::new();
    let path = bench.zip(state_dict(&[("stem.weight", tensor("0", 12, 0, &[12], &[1]))]));
    refused(&path, &["x.pt", "`args`", "args.json"]);
    std::fs::write(path.with_file_name("args.json"), r#"{"dataset": "cifar10"}"#).unwrap();
    assert_eq!(read(&path).unwrap().autoencoder.unwrap().args, json!({ "dataset": "cifar10" }));
    // The folder is as good as the file, and a second autoencoder is one too many.
    assert!(read(path.parent().unwrap()).unwrap().prior.is_none());
    std::fs::copy(&path, path.with_file_name("y.pth")).unwrap();
    refused(path.parent().unwrap(), &["y.pth", "a second autoencoder", "x.pt"]);
}

#[track_caller]
fn refused(path: &Path, words: &[&str]) {
    let error = lsgm_core::Error::from(read(path).expect_err("accepted"));
    assert!(error.is_input(), "{error:?}");
    for word in words {
        assert!(error.to_string().contains(word), "`{error}` lacks `{word}`");
    }
    assert!(error.to_string().len() < 500, "{error}");
}

#[test]
fn code_is_named_and_never_run() {
    let bench = Bench::new();
    let marker = bench.0.path().join("executed");
    let command = text(&format!("touch {}", marker.display()));
    let evil = |module: &str, name: &str| call(global(module, name), std::slice::from_ref(&command));
    for (module, name) in
        [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("torchx", "load")]
    {
        let full = format!("`{module}.{name}`");
        refused(&bench.zip(evil(module, name)), &["x.pt", &full, "nothing was executed"]);
        refused(&bench.zip(dict(&[("args", evil(module, name))])), &[&full]);
    }
    // The same through the newer instruction, and by objects that are made without a call.
    let newer = [&text("os")[..], &text("system"), b"\x93", &tuple(std::slice::from_ref(&command)), b"R"].concat();
    refused(&bench.zip(newer), &["`os.system`"]);
    refused(&bench.zip([&b"("[..], &command, b"ios\nsystem\n"].concat()), &["instruction 0x69"]);
    // A known package is no way in: nothing of it is called either.
    let content = dict(&[("x", evil("torch", "load")), ("weights", dict(&[]))]);
    refused(&bench.zip(content), &["holds no weights"]);
    write_legacy(&bench.path(), &pickle(evil("os", "system")), &[]);
    refused(&bench.path(), &["`os.system`"]);
    assert!(!marker.exists());
}

#[test]
fn pickles_without_end_end() {
    let bench = Bench::new();
    // A dictionary that contains itself, and lists a hundred thousand levels deep.
    let own = [&b"}q\x00("[..], &text("weights"), b"h\x00u"].concat();
    refused(&bench.zip(own), &["holds no weights"]);
    let own = [&b"}q\x00("[..], &text("args"), b"h\x00", &text("stem.weight"), &tensor("0", 12, 0, &[12], &[1]), b"u"];
    assert!(read(&bench.zip(own.concat())).unwrap().autoencoder.unwrap().args.to_string().len() < 200);
    let deep = [vec![b']'; 100_000], vec![b'a'; 99_999]].concat();
    refused(&bench.zip(dict(&[("args", deep)])), &["holds no weights"]);
    // Ten lists, each of ten times the one before: 10^10 values for whoever writes them out.
    let mut laughs = [&b"]q\x00("[..], &int(1), b"e"].concat();
    for level in 0..10u8 {
        laughs.extend([&b"]q"[..], &[level + 1], b"(", &[b'h', level].repeat(10), b"e"].concat());
    }
    let weights = dict(&[("stem.weight", tensor("0", 12, 0, &[12], &[1]))]);
    let args = [&laughs[..], &namespace(&[("x", b"h\x0a".to_vec())])].concat();
    let content = [&args[..], b"q\x20", &dict(&[("args", b"h\x20".to_vec()), ("weights", weights)])].concat();
    let found = read(&bench.zip(content)).unwrap();
    assert!(found.autoencoder.unwrap().args.to_string().len() < 200_000);
    // An object that gets its own attributes again and again doubles each time.
    let doubling = [&b"}q\x00("[..], &text("a"), &int(1), b"u", &b"h\x00b".repeat(64)].concat();
    refused(&bench.zip(doubling), &["attributes"]);
}

#[test]
fn sizes_are_not_believed() {
    let bench = Bench::new();
    let weights = |tensor: Code| bench.zip(dict(&[("args", args()), ("weights", dict(&[("stem.weight", tensor)]))]));
    for (tensor, words) in [
        (tensor("0", 13, 0, &[13], &[1]), "storage `0` has 48 bytes instead of 52"),
        (tensor("0", 11, 0, &[11], &[1]), "storage `0` has 48 bytes instead of 44"),
        (tensor("1", 12, 0, &[12], &[1]), "data/1"),
        (tensor("0", i64::MAX, 0, &[12], &[1]), "impossible size"),
        (tensor("0", 12, 1, &[12], &[1]), "does not fit its storage of 12 numbers"),
        (tensor("0", 12, 0, &[1 << 40, 1 << 40], &[0, 0]), "does not fit its storage"),
        (tensor("0", 12, 0, &[1 << 20], &[0]), "does not fit its storage"),
        (tensor("0", 12, 0, &[12], &[i64::MAX]), "does not fit its storage"),
        (tensor("0", 12, 0, &[-1], &[1]), "negative size"),
        (tensor("0", 12, -1, &[12], &[1]), "begins before its storage"),
        (tensor("0", -1, 0, &[12], &[1]), "negative size"),
        (tensor("0", 12, 0, &[12], &[]), "another number of strides"),
        (tensor("0", 12, 0, &[1; 9], &[1; 9]), "9 dimensions"),
        (tensor("../../x", 12, 0, &[12], &[1]), "data/../../x"),
    ] {
        refused(&weights(tensor), &["x.pt", words]);
    }
    refused(&bench.zip([&b"X"[..], &u32::MAX.to_le_bytes()].concat()), &["ends within a text"]);
    refused(&bench.zip([&b"\x8d"[..], &u64::MAX.to_le_bytes()].concat()), &["ends within a text"]);
    let whole = call(global("torch._utils", "_rebuild_tensor_v2"), &[storage("QInt8Storage", "0", 12), int(0)]);
    refused(&weights(whole), &["lacks its shape"]);
}

/// Parameters may share a storage, but a small file must not fill the memory.
#[test]
fn what_shares_a_storage_is_counted() {
    let bench = Bench::new();
    let elements = 100_000;
    let names: Vec<String> = (0..40).map(|i| format!("w{i}")).collect();
    let file = |count: usize| {
        let shared: Vec<(&str, Code)> =
            names.iter().take(count).map(|name| (name.as_str(), tensor("0", elements, 0, &[elements], &[1]))).collect();
        let content = dict(&[("args", args()), ("weights", dict(&shared))]);
        write_zip(&bench.path(), &pickle(content), &[("0", floats(&vec![1.0; elements as usize]))]);
        bench.path()
    };
    assert!(read(&file(6)).is_ok());
    refused(&file(40), &["x.pt", "tensor `w", "more than eight times the bytes"]);
}

#[test]
fn damaged_files_are_told() {
    let bench = Bench::new();
    refused(&bench.path(), &["x.pt", "no such file"]);
    for (bytes, words) in [
        (&b""[..], "is empty"),
        (b"PK\x03\x04 and no more", "damaged zip archive"),
        (b"this is text", "no PyTorch file"),
        (b"\x80\x02}.", "not one of PyTorch"),
        (b"\x80\x02", "ends too early"),
    ] {
        std::fs::write(bench.path(), bytes).unwrap();
        refused(&bench.path(), &["x.pt", words]);
    }
    let whole = std::fs::read(bench.zip(nested())).unwrap();
    for keep in (0..whole.len()).step_by(37) {
        std::fs::write(bench.path(), &whole[..keep]).unwrap();
        assert!(read(&bench.path()).is_err(), "{keep} bytes");
    }
    write_legacy(&bench.path(), &pickle(nested()), &[("0", twelve())]);
    let whole = std::fs::read(bench.path()).unwrap();
    for keep in (0..whole.len()).step_by(11) {
        std::fs::write(bench.path(), &whole[..keep]).unwrap();
        assert!(read(&bench.path()).is_err(), "{keep} bytes");
    }
}

#[test]
fn no_change_of_bytes_brings_the_reader_down() {
    let bench = Bench::new();
    let content = pickle(nested());
    let mut rng = lsgm_core::Rng::new(5);
    let mut errors = 0;
    for _ in 0..1500 {
        let mut bytes = content.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len());
            bytes[at] = rng.bits() as u8;
        }
        if rng.below(4) == 0 {
            bytes.truncate(rng.below(bytes.len()));
        }
        write_zip(&bench.path(), &bytes, &[("0", twelve())]);
        errors += usize::from(read(&bench.path()).is_err());
    }
    assert!(errors > 500, "{errors}");
}
