//! Sound: from a config or a folder of recordings to WAV files and figures, and what cannot be used.

use serde_json::Value;

use crate::support::{Bench, shared};

/// A model of sound that is trained in a second.
const TINY: &str = r#"modality = "audio"

[data]
sample_rate = 2000
samples = 256
limit = 60

[autoencoder]
kind = "wave"
strides = [16]
channels = [8]
blocks = 1
latent_channels = 2
likelihood = { kind = "logistic-mixture", components = 2 }
stft = { weight = 1.0, sizes = [32, 64] }

[prior.network]
channels = 8
blocks = 1
channel_multipliers = [1]
attention = []
embedding = 16

[train]
batch_size = 10
log_every = 4
sample_count = 2

[train.vae]
steps = 8

[train.lsgm]
steps = 8

[sample]
tolerance = 1e-2

[evaluate]
batch_size = 20
time_samples = 1
ode_items = 0
reconstruction_items = 10
samples = 8
after_training = 20
"#;

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("sound.toml", TINY);
    bench
}

/// A WAV file of 16-bit mono samples.
fn wav(rate: u32, samples: impl IntoIterator<Item = i16>) -> Vec<u8> {
    let data: Vec<u8> = samples.into_iter().flat_map(i16::to_le_bytes).collect();
    let mut file = b"RIFF".to_vec();
    file.extend((36 + data.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(rate.to_le_bytes());
    file.extend((2 * rate).to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

fn tone(rate: u32, pitch: f64, frames: usize) -> Vec<u8> {
    let step = std::f64::consts::TAU * pitch / f64::from(rate);
    wav(rate, (0..frames).map(|i| (9000.0 * (step * i as f64).sin()) as i16))
}

#[test]
fn tones_are_learned_sampled_and_measured() {
    let bench = bench();
    bench.lsgm("train sound.toml --out run").succeeds();
    let figures = bench.files("run");
    for name in ["samples/samples.png", "samples/samples-001.wav", "samples/reconstructions-000-original.wav"] {
        assert!(figures.iter().any(|f| f == name), "{name} is missing in {figures:?}");
    }
    assert!(std::fs::read_to_string(bench.path("run/events.jsonl")).unwrap().contains("\"stft\""));
    let text = std::fs::read_to_string(bench.path("run/evaluation.json")).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    let names: Vec<&str> = ["bound", "baselines", "reconstructions", "samples"]
        .iter()
        .flat_map(|part| report["measures"][part].as_array().unwrap())
        .map(|m| m["name"].as_str().unwrap())
        .collect();
    for name in [
        "bits_per_sample",
        "categorical_histogram",
        "linear_predictor_16",
        "si_sdr",
        "log_spectral_distance",
        "stft_distance",
        "recognised",
        "real_time_factor_decoding",
        "spectral_flatness",
        "frechet_distance",
        "classes_present",
        "real_time_factor_sampling",
    ] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }

    let out = bench.lsgm("sample run --count 2 --out s.png --tol 1e-2").succeeds().stdout;
    assert!(out.contains("s.png: 2 samples") && out.contains("s-001.wav"), "{out}");
    assert_eq!(&std::fs::read(bench.path("s-001.wav")).unwrap()[..4], b"RIFF");
    // Files of one's own, at another rate.
    bench.write("a.wav", tone(8000, 300.0, 900));
    bench.write("b.wav", tone(2000, 500.0, 300));
    bench.lsgm("reconstruct run --items a.wav b.wav --out r.png").succeeds();
    bench.lsgm("interpolate run --items a.wav b.wav --steps 3 --out i.png").succeeds();
    assert!(bench.path("i-000-02.wav").exists());
    bench.lsgm("reconstruct run --items none.wav --out r.png").fails(2, &["none.wav"]);
}

#[test]
fn a_folder_of_recordings_is_enough() {
    let bench = bench();
    for i in 0..30 {
        bench.write(&format!("set/{i}.wav"), tone(4000, 100.0 + 20.0 * f64::from(i), 700));
    }
    bench.write("set/blip.wav", wav(4000, [3; 7]));
    let out = bench.lsgm("train sound.toml --data set --set evaluate.samples=0 --out run").succeeds();
    assert!(out.stderr.contains("1 of") && out.stderr.contains("fewer than 16 samples"), "{}", out.stderr);
}

#[test]
fn recordings_that_cannot_be_used_are_named() {
    let whole = tone(2000, 300.0, 400);
    let truncated = whole[..300].to_vec();
    let mut codec = whole.clone();
    codec[20] = 0x55;
    let mut channels = whole.clone();
    channels[22..24].copy_from_slice(&200u16.to_le_bytes());
    channels[28..34].copy_from_slice(&[0x00, 0x35, 0x0c, 0, 0x90, 0x01]);
    for (name, bytes, word) in [
        ("empty.wav", Vec::new(), "empty"),
        ("truncated.wav", truncated, "truncated"),
        ("none.wav", wav(2000, []), "no samples"),
        ("codec.wav", codec, "codec"),
        ("many.wav", channels, "200 channels"),
        ("text.wav", b"not a recording at all".to_vec(), "RIFF"),
    ] {
        let bench = bench();
        bench.write("set/train/good.wav", &whole);
        bench.write(&format!("set/train/{name}"), bytes);
        bench.lsgm("train sound.toml --data set --out run").fails(2, &[name, word]);
        assert!(!bench.path("run/model.safetensors").exists());
    }
    let bench = bench();
    bench.write("set/train/quiet.wav", wav(2000, [0; 400]));
    bench.lsgm("train sound.toml --data set --out run").fails(2, &["silent"]);
    bench.lsgm("train sound.toml --set data.samples=250 --out run").fails(2, &["autoencoder.strides"]);
    bench.lsgm("train sound.toml --set data.set=mnist --out run").fails(2, &["mnist"]);
}

#[test]
fn the_official_split_of_spoken_digits() {
    let Some(folder) = shared("data/fsdd/recordings") else { return };
    let bench = bench();
    let out = bench.lsgm(&format!("data check fsdd --data {}", folder.display())).succeeds().stdout;
    for part in ["train  2430 recordings", "val    270 recordings", "test   300 recordings", "10 labels", "at 8000 Hz"]
    {
        assert!(out.contains(part), "{part} is missing in:\n{out}");
    }
}
