//! Input that cannot be used: an error that says what, where and what to do; never a panic.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use lsgm_core::{Dataset, Rng, Split};
use lsgm_data::{BinaryConfig, Card, Fit, Hub, Images, check, read_idx};
use proptest::prelude::*;

fn idx_images(items: u32, height: u32, width: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = [0x0803, items, height, width].into_iter().flat_map(u32::to_be_bytes).collect();
    bytes.extend((0..items * height * width).map(|v| v as u8));
    bytes
}

fn idx_labels(items: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = [0x0801, items].into_iter().flat_map(u32::to_be_bytes).collect();
    bytes.extend((0..items).map(|v| (v % 10) as u8));
    bytes
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A folder with the files of a small set of 28x28 images.
fn folder(train: u32, test: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (stem, items) in [("train", train), ("t10k", test)] {
        std::fs::write(dir.path().join(format!("{stem}-images-idx3-ubyte.gz")), gz(&idx_images(items, 28, 28)))
            .unwrap();
        std::fs::write(dir.path().join(format!("{stem}-labels-idx1-ubyte")), idx_labels(items)).unwrap();
    }
    dir
}

fn mnist() -> BinaryConfig {
    BinaryConfig { set: "mnist".into(), ..Default::default() }
}

/// The error of opening a split: the user's fault, of one paragraph, with all of the words.
fn refused(config: &BinaryConfig, split: Split, dir: Option<&Path>, words: &[&str]) {
    let error = config.open(split, dir).err().unwrap_or_else(|| panic!("{words:?} was accepted"));
    assert!(error.is_input(), "{error:?}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{text}` lacks `{word}`");
    }
    assert!(!text.contains("\n\n"), "{text}");
}

#[test]
fn a_folder_of_the_usual_files_is_read_whatever_the_set() {
    let dir = folder(100, 7);
    let open = |set: &str, split| {
        BinaryConfig { set: set.into(), ..Default::default() }.open(split, Some(dir.path())).unwrap()
    };
    assert_eq!(open("glyphs", Split::Train).len(), 90);
    assert_eq!(open("glyphs", Split::Val).len(), 10);
    assert_eq!(open("omniglot", Split::Test).len(), 7);
    let batch = open("mnist", Split::Test).batch(&[6, 0], &mut Rng::new(0)).unwrap();
    assert_eq!(batch.labels.unwrap().to_vec1::<u32>().unwrap(), [6, 0]);
}

#[test]
fn missing_files_and_folders() {
    let dir = tempfile::tempdir().unwrap();
    refused(&mnist(), Split::Train, Some(&dir.path().join("nowhere")), &["nowhere", "data folder not found", "--data"]);
    let words = ["train-images-idx3-ubyte", "train*.parquet", "must hold one of these"];
    refused(&mnist(), Split::Train, Some(dir.path()), &words);
    let config = BinaryConfig { dir: Some(dir.path().join("nowhere")), ..mnist() };
    refused(&config, Split::Train, None, &["nowhere"]);
    let config = BinaryConfig { set: dir.path().join("own.toml").display().to_string(), ..mnist() };
    refused(&config, Split::Train, None, &["own.toml", "not found"]);
    let error = read_idx(&dir.path().join("images"), None).unwrap_err().to_string();
    assert!(error.contains("images: file not found"), "{error}");
}

#[test]
fn unknown_sets_and_keys() {
    refused(
        &BinaryConfig { set: "mist".into(), ..mnist() },
        Split::Train,
        None,
        &["data.set", "did you mean `mnist`?"],
    );
    refused(&BinaryConfig { limit: Some(0), ..mnist() }, Split::Train, None, &["data.limit"]);
    refused(&BinaryConfig { height: 0, ..mnist() }, Split::Train, None, &["data.height"]);
}

#[test]
fn damaged_idx_files() {
    let images = idx_images(3, 2, 2);
    let flipped = |at: usize, to: u8| {
        let mut bytes = images.clone();
        bytes[at] = to;
        bytes
    };
    let mut wrong_crc = gz(&images);
    let end = wrong_crc.len();
    wrong_crc[end - 6] ^= 1;
    let cases: [(Vec<u8>, &str); 12] = [
        (vec![], "byte 0: the file is truncated"),
        (images[..9].to_vec(), "byte 8: the file is truncated"),
        (images[..20].to_vec(), "truncated: 4 of 12 bytes"),
        ([&images[..], &[0]].concat(), "more bytes follow after the 12"),
        (idx_labels(3), "magic number 0x00000801 instead of 0x00000803"),
        (b"PAR1 but not idx".to_vec(), "not an idx file of images"),
        (flipped(4, 0xff), "truncated: 12 of"),
        (flipped(8, 0xff), "height 4278190082 is not between"),
        (flipped(15, 0), "width 0 is not between"),
        (gz(&images)[..30].to_vec(), "truncated"),
        (gz(&images[..20]), "truncated: 4 of 12 bytes"),
        (wrong_crc, "damaged gzip"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (i, (bytes, words)) in cases.into_iter().enumerate() {
        let path = dir.path().join(format!("{i}-images"));
        std::fs::write(&path, bytes).unwrap();
        let error = read_idx(&path, None).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(&format!("{i}-images")), "`{error}` lacks `{words}`");
    }
    let (path, labels) = (dir.path().join("images"), dir.path().join("labels"));
    std::fs::write(&path, &images).unwrap();
    std::fs::write(&labels, idx_labels(4)).unwrap();
    let error = read_idx(&path, Some(&labels)).unwrap_err().to_string();
    assert!(error.contains("4 labels for the 3 images"), "{error}");
    assert!(read_idx(dir.path(), None).is_err(), "a folder");
}

#[test]
fn wrong_image_size() {
    let dir = folder(30, 5);
    std::fs::write(dir.path().join("t10k-images-idx3-ubyte"), idx_images(5, 32, 30)).unwrap();
    let words = ["t10k-images", "expected 28x28, found 32x30", "data.fit"];
    refused(&mnist(), Split::Test, Some(dir.path()), &words);
    for fit in [Fit::Resize, Fit::Center] {
        let set = BinaryConfig { fit, ..mnist() }.open(Split::Test, Some(dir.path())).unwrap();
        assert_eq!(set.batch(&[0, 4], &mut Rng::new(0)).unwrap().x.dims(), [2, 1, 28, 28]);
    }
    let glyphs = BinaryConfig { height: 32, width: 32, ..Default::default() };
    refused(&glyphs, Split::Train, None, &["expected 32x32, found 28x28"]);
    let set = BinaryConfig { fit: Fit::Center, limit: Some(3), ..glyphs }.open(Split::Train, None).unwrap();
    assert_eq!((set.len(), set.images().size().bytes()), (3, 1024));
}

#[test]
fn an_empty_split() {
    let dir = folder(4, 0);
    refused(&mnist(), Split::Test, Some(dir.path()), &["the test split of `mnist` is empty"]);
    // The card keeps 5,000 images for validation: nothing is left of four.
    refused(&mnist(), Split::Train, Some(dir.path()), &["the train split of `mnist` is empty"]);
}

#[test]
fn damaged_parquet_files() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("train-00000-of-00001.parquet"), b"PAR1 nothing PAR1").unwrap();
    refused(&mnist(), Split::Train, Some(dir.path()), &["train-00000-of-00001.parquet", "footer", "file again"]);
    std::fs::write(dir.path().join("test-00000-of-00002.parquet"), b"").unwrap();
    refused(&mnist(), Split::Test, Some(dir.path()), &["2 shards announced", "1 of them"]);
}

#[test]
fn a_check_reports_what_is_wrong_and_goes_on() {
    let dir = folder(100, 7);
    std::fs::write(dir.path().join("t10k-labels-idx1-ubyte"), idx_labels(6)).unwrap();
    let hub = Hub::from_variables(|_| None);
    let report = check(&Card::find("mnist").unwrap(), Some(dir.path()), &hub).unwrap();
    let problems = report.problems.join("\n");
    for words in ["SHA-256", "train: the train split", "val: 100 items instead of 5000", "6 labels for the 7 images"] {
        let words = words.replace("train: the train split", "the train split of `mnist` is empty");
        assert!(problems.contains(&words), "`{problems}` lacks `{words}`");
    }
    assert_eq!((report.files.len(), report.splits.len()), (4, 1));
}

#[test]
fn an_own_card_starts_at_its_folder() {
    let dir = folder(20, 5);
    let card = dir.path().join("own.toml");
    let text = "name = \"own\"\ntitle = \"Own\"\nmodality = [\"binary\"]\nlicence = \"mine\"\n\
                [[sources]]\nkind = \"idx\"\n[sources.parts.train]\nimages = { file = \"train-images-idx3-ubyte\" }\n\
                [sources.parts.test]\nimages = { file = \"t10k-images-idx3-ubyte\" }\ninvert = true\n";
    std::fs::write(&card, text).unwrap();
    let config = BinaryConfig { set: card.display().to_string(), ..Default::default() };
    refused(&config, Split::Train, None, &["own.toml", "unknown field `invert`"]);
    std::fs::write(&card, text.replace("invert = true\n", "").replace("\"idx\"\n", "\"idx\"\ninvert = true\n"))
        .unwrap();
    let set = config.open(Split::Train, None).unwrap();
    assert_eq!(set.len(), 18);
    let mut pixels = [0; 784];
    set.images().read(0, &mut pixels).unwrap();
    assert_eq!(pixels[..3], [255, 254, 253]);
}

fn damaged(mut bytes: Vec<u8>, flips: &[(usize, u8)], keep: usize) -> Vec<u8> {
    for (at, value) in flips {
        let n = bytes.len();
        bytes[at % n] = *value;
    }
    bytes.truncate(keep);
    bytes
}

fn write(dir: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    path
}

proptest! {
    #[test]
    fn idx_files_never_panic(
        flips in prop::collection::vec((0usize..64, any::<u8>()), 0..4), keep in 0usize..64, compressed: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let bytes = idx_images(3, 2, 4);
        let bytes = if compressed { gz(&bytes) } else { bytes };
        let path = write(&dir, &damaged(bytes, &flips, keep));
        if let Ok(set) = read_idx(&path, None) {
            prop_assert_eq!(set.pixels().len(), set.len() * set.size().bytes());
        }
        let _ = read_idx(&path, Some(&path));
    }

    #[test]
    fn cards_never_panic(flips in prop::collection::vec((0usize..2000, 32u8..127), 1..6), keep in 0usize..2000) {
        let dir = tempfile::tempdir().unwrap();
        let text = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/mnist.toml")).unwrap();
        let path = dir.path().join("card.toml");
        std::fs::write(&path, damaged(text, &flips, keep)).unwrap();
        let _ = Card::read(&path);
    }
}
