//! Text from a config to sentences.

use crate::support::{Bench, Finished};

/// A model of text and a training that take about a second.
const TINY: &str = r#"modality = "text"

[data]
set = "grammar"
length = 16
limit = 300

[data.tokenizer]
kind = "bpe"
vocabulary = 400

[autoencoder]
kind = "transformer"
channels = 16
heads = 2
encoder_blocks = 1
decoder_blocks = 1
latent_channels = 4

[prior.network]
kind = "transformer"
channels = 16
blocks = 1
heads = 2
embedding = 8

[train]
batch_size = 10
sample_count = 4

[train.vae]
steps = 4

[train.lsgm]
steps = 4

[sample]
tolerance = 1e-2

[evaluate]
batch_size = 20
time_samples = 1
ode_items = 0
samples = 5
after_training = 20
"#;

fn trained() -> Bench {
    let bench = Bench::new();
    bench.write("text.toml", TINY);
    bench.lsgm("train text.toml --out run").succeeds();
    bench
}

fn read(bench: &Bench, name: &str) -> String {
    std::fs::read_to_string(bench.path(name)).unwrap()
}

/// Arguments that hold spaces.
fn lsgm(bench: &Bench, args: &[&str]) -> Finished {
    Finished::new(bench.command(args).output().unwrap())
}

#[test]
fn a_run_directory_is_enough_for_texts_too() {
    let bench = trained();
    let files = bench.files("run");
    for name in ["assets/tokenizer.json", "samples/samples.txt", "samples/reconstructions.txt", "evaluation.json"] {
        assert!(files.iter().any(|f| f == name), "{name} is missing in {files:?}");
    }
    let evaluation = read(&bench, "run/evaluation.json");
    for name in ["bits_per_char", "fourgram_bits_per_char", "token_accuracy", "grammatical", "copied_8", "repetition"] {
        assert!(evaluation.contains(&format!("\"{name}\"")), "{name} is missing in {evaluation}");
    }
    bench.lsgm("sample run --count 3 --out s.txt").succeeds();
    assert_eq!(read(&bench, "s.txt").lines().count(), 3);
    bench.lsgm("sample run --count 3 --out s.jsonl").succeeds();
    let lines: Vec<serde_json::Value> =
        read(&bench, "s.jsonl").lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let texts: Vec<&str> = lines.iter().map(|l| l["text"].as_str().unwrap()).collect();
    assert_eq!(texts, read(&bench, "s.txt").lines().collect::<Vec<_>>(), "a seed is a text, whatever the format");

    lsgm(&bench, &["reconstruct", "run", "--items", "a fox sleeps.", "the owls hide.", "--out", "r.jsonl"]).succeeds();
    let pair: serde_json::Value = serde_json::from_str(read(&bench, "r.jsonl").lines().next().unwrap()).unwrap();
    assert_eq!(pair["original"], "a fox sleeps.");
    lsgm(
        &bench,
        &["interpolate", "run", "--items", "a fox sleeps.", "the owls hide.", "--steps", "4", "--out", "i.jsonl"],
    )
    .succeeds();
    let path: serde_json::Value = serde_json::from_str(&read(&bench, "i.jsonl")).unwrap();
    assert_eq!(path["path"].as_array().unwrap().len(), 4);

    let infill = ["infill", "run", "--template", "the _ fox sleeps.", "--count", "3", "--steps", "5", "--out", "f.txt"];
    let out = lsgm(&bench, &infill).succeeds().stdout;
    assert!(out.contains("agree with the template"), "{out}");
    for line in read(&bench, "f.txt").lines() {
        assert!(line.starts_with("the") && line.ends_with(" fox sleeps."), "{line}");
    }
}

#[test]
fn texts_that_cannot_be_used_are_told() {
    let bench = trained();
    let long = "the old owl sees the red fox near the river and the ants follow the brave geese.";
    lsgm(&bench, &["reconstruct", "run", "--items", long, "--out", "r.txt"]).fails(2, &["do not fit an item of 16"]);
    let known = ["infill", "run", "--template", "a fox sleeps.", "--out", "f.txt"];
    lsgm(&bench, &known).fails(2, &["nothing is unknown", "`_`"]);

    // Another tokenizer, with and without the checksum of the first.
    bench.lsgm("data tokenizer text.toml --set data.tokenizer.vocabulary=300 --out other.json").succeeds();
    std::fs::copy(bench.path("other.json"), bench.path("run/assets/tokenizer.json")).unwrap();
    bench.lsgm("sample run --count 1 --out s.txt").fails(2, &["not the tokenizer that this model was trained with"]);
    std::fs::remove_file(bench.path("run/assets/tokenizer.sha256")).unwrap();
    bench.lsgm("sample run --count 1 --out s.txt").fails(2, &["another architecture", "vocabulary.weight", "[300"]);
}

#[test]
fn a_tokenizer_of_ones_own_serves_a_training() {
    let bench = Bench::new();
    bench.write("text.toml", TINY);
    let out = bench.lsgm("data tokenizer text.toml --out t.json").succeeds().stdout;
    assert!(out.starts_with("t.json: "), "{out}");
    let given = TINY.replace("kind = \"bpe\"\nvocabulary = 400", "kind = \"file\"\nfrom = \"t.json\"");
    bench.write("given.toml", given);
    bench.lsgm("train given.toml --out run --stage vae").succeeds();
    // The same from the cache of the hub.
    let repo = bench.path("hf/hub/models--own--words");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    std::fs::create_dir_all(repo.join("snapshots").join(commit)).unwrap();
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), commit).unwrap();
    std::fs::copy(bench.path("t.json"), repo.join("snapshots").join(commit).join("tokenizer.json")).unwrap();
    let hub = TINY.replace("kind = \"bpe\"\nvocabulary = 400", "kind = \"hub\"\nfrom = \"own/words\"");
    bench.write("hub.toml", hub.clone());
    bench.lsgm("train hub.toml --out hub --stage vae").succeeds();
    assert_eq!(read(&bench, "hub/assets/tokenizer.json"), read(&bench, "run/assets/tokenizer.json"));
    bench.write("hub.toml", hub.replace("own/words", "own/none"));
    bench.lsgm("train hub.toml --out none").fails(2, &["data.tokenizer.from", "own/none", "hf download own/none"]);
    bench.lsgm("data tokenizer tiny.toml").fails(2, &["`binary` has no tokenizer"]);
}

#[test]
fn texts_of_ones_own_train_from_a_folder() {
    let bench = Bench::new();
    bench.write("own/train.txt", "first line\r\n\r\nsecond line\r\n".repeat(40));
    let own = TINY.replace("set = \"grammar\"", "set = \"texts\"\nval = 0.1\ntest = 0.1");
    bench.write("text.toml", own.replace("kind = \"bpe\"\nvocabulary = 400", "kind = \"characters\""));
    let told = bench.lsgm("train text.toml --data own --out run --stage vae").succeeds().stderr;
    assert!(told.contains("empty entries were left out") && told.contains("Windows line ends"), "{told}");
    bench.write("few/train.txt", "one\ntwo\nthree\nfour\n");
    let few = "train text.toml --data few --out few-run --stage vae --set data.val=1 --set data.test=1";
    let told = bench.lsgm(few).succeeds().stderr;
    assert!(told.contains("2 items, fewer than a batch of 10"), "{told}");
    bench.write("bad/train.txt", b"good\nbad \xff\n");
    bench.lsgm("train text.toml --data bad --out bad-run").fails(2, &["train.txt: line 2, byte 9", "not UTF-8"]);
    assert!(!bench.path("bad-run").exists());
}
