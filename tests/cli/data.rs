//! Data that are missing, damaged, or not what the config says.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StructArray};
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;

use crate::support::{Bench, Finished, shared};

/// An idx file of `items` images whose header says `announced`.
fn idx(announced: u32, side: u32, bytes: usize) -> Vec<u8> {
    let header = [0x0803u32, announced, side, side];
    let mut file: Vec<u8> = header.iter().flat_map(|n| n.to_be_bytes()).collect();
    file.extend((0..bytes).map(|i| (i % 251) as u8));
    file
}

/// A bench with the folder `set` of MNIST's form, without labels.
fn bench(train: &[u8]) -> Bench {
    let bench = Bench::new();
    bench.write("set/train-images-idx3-ubyte", train);
    bench.write("set/t10k-images-idx3-ubyte", idx(4, 28, 4 * 784));
    bench
}

const TRAIN: &str = "train tiny.toml --set data.set=mnist --set data.limit=20 --data set --out run";

#[test]
fn a_missing_folder_is_told() {
    let bench = Bench::new();
    bench.lsgm("train tiny.toml --data nowhere").fails(2, &["--data nowhere: there is no such folder"]);
    std::fs::create_dir(bench.path("set")).unwrap();
    bench.lsgm(TRAIN).fails(2, &["mnist", "train-images-idx3-ubyte"]);
    assert!(!bench.path("run").exists());
}

#[test]
fn a_truncated_idx_file_is_told() {
    let bench = bench(&idx(100, 28, 99 * 784));
    bench.lsgm(TRAIN).fails(2, &["train-images-idx3-ubyte"]);
    bench.lsgm("data check mnist --data set").fails(2, &["mnist is not whole", "train-images-idx3-ubyte"]);
}

#[test]
fn a_corrupt_idx_file_is_told() {
    bench(b"this is not an idx file at all").lsgm(TRAIN).fails(2, &["train-images-idx3-ubyte"]);
    bench(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]).lsgm(TRAIN).fails(2, &["train-images-idx3-ubyte"]);
    // A header that announces more than there can be must not be believed.
    bench(&idx(u32::MAX, 28, 784)).lsgm(TRAIN).fails(2, &["train-images-idx3-ubyte"]);
}

#[test]
fn a_wrong_image_size_is_told() {
    bench(&idx(6000, 16, 6000 * 256)).lsgm(TRAIN).fails(2, &["train-images-idx3-ubyte", "28x28", "16x16"]);
}

#[test]
fn an_empty_split_is_told() {
    bench(&idx(0, 28, 0)).lsgm(TRAIN).fails(2, &["empty"]);
}

#[test]
fn a_corrupt_parquet_file_is_told() {
    let bench = Bench::new();
    for name in ["set/train-00000-of-00001.parquet", "set/test-00000-of-00001.parquet"] {
        bench.write(name, b"PAR1 this is not a parquet file PAR1");
    }
    bench.lsgm(TRAIN).fails(2, &["train-00000-of-00001.parquet"]);
    bench.write("set/train-00000-of-00001.parquet", b"");
    bench.lsgm(TRAIN).fails(2, &["train-00000-of-00001.parquet"]);
}

/// A parquet file in the hub's layout, with one encoded image a row.
fn write_parquet(path: &Path, images: &[&[u8]]) {
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(images));
    let column: ArrayRef =
        Arc::new(StructArray::from(vec![(Arc::new(Field::new("bytes", DataType::Binary, true)), bytes)]));
    let batch = RecordBatch::try_from_iter([("image", column)]).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn a_corrupt_or_truncated_png_is_told() {
    let bench = Bench::trained();
    let whole = std::fs::read(bench.path("run/samples/samples.png")).unwrap();
    std::fs::create_dir(bench.path("set")).unwrap();
    let damaged = [(&b"no image"[..], "row 0"), (&whole[..whole.len() / 2], "row 0"), (&whole[..], "28x28")];
    for (image, part) in damaged {
        for name in ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"] {
            write_parquet(&bench.path("set").join(name), &[image; 20]);
        }
        bench.lsgm("train tiny.toml --data set --out new").fails(2, &["train-00000-of-00001.parquet", part]);
    }
    assert!(!bench.path("new").exists());
}

#[test]
fn data_named_once_are_remembered() {
    let bench = bench(&idx(60, 28, 60 * 784));
    bench.lsgm("train tiny.toml --data set --out run --stage vae").succeeds();
    std::fs::create_dir(bench.path("elsewhere")).unwrap();
    let elsewhere = |line: &str| {
        let output = bench.command(line.split(' ')).current_dir(bench.path("elsewhere")).output().unwrap();
        Finished::new(output).succeeds()
    };
    let table = elsewhere("evaluate ../run --json e.json").stdout;
    assert!(table.contains("4 items of the test split"), "{table}");
    elsewhere("train ../run --resume");
    std::fs::remove_file(bench.path("set/t10k-images-idx3-ubyte")).unwrap();
    bench.lsgm("evaluate run").fails(2, &["t10k-images-idx3-ubyte"]);
    bench.lsgm("sample run --count 1 --out a.png").succeeds();
}

#[test]
fn unknown_sets_bring_the_nearest_known_one() {
    let bench = Bench::new();
    bench.lsgm("data show minst").fails(2, &["unknown data set `minst`", "did you mean `mnist`?"]);
    bench.lsgm("train tiny.toml --set data.set=minst").fails(2, &["--set data.set=minst: ", "did you mean `mnist`?"]);
}

#[test]
fn known_sets_are_listed_shown_and_checked() {
    let bench = Bench::new();
    let list = bench.lsgm("data list").succeeds().stdout;
    for name in ["glyphs", "mnist", "fashion-mnist", "omniglot"] {
        assert!(list.lines().any(|line| line.starts_with(name)), "{name} is missing in\n{list}");
    }
    let card = bench.lsgm("data show mnist").succeeds().stdout;
    for part in ["licence", "citation", "LeCun", "55000 items", "state     absent"] {
        assert!(card.contains(part), "{part} is missing in\n{card}");
    }
    assert!(bench.lsgm("data fetch glyphs").succeeds().stdout.contains("nothing to fetch"));
}

#[test]
fn without_a_network_a_download_fails_with_advice() {
    let bench = Bench::new();
    bench.lsgm("data fetch mnist").fails(1, &["HF_HUB_OFFLINE", "--data DIR"]);
    bench.lsgm("train tiny.toml --set data.set=mnist").fails(2, &["mnist", "lsgm data fetch"]);
}

#[test]
fn mnist_is_whole() {
    let Some(folder) = shared("data/mnist") else { return };
    let bench = Bench::new();
    let output = bench.command(["data", "check", "mnist", "--data"]).arg(folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for part in ["55000 items of 28x28, 10 labels", "5000 items", "10000 items"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let bench = Bench::new();
    let pipe =
        format!("{} completions bash | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_lsgm"));
    let output = Command::new("bash").args(["-c", &pipe]).current_dir(bench.path(".")).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
