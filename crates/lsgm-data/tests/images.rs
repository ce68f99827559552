//! Grey and colour images from folders, parquet files and cards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use image::{DynamicImage, Rgb, RgbImage};
use lsgm_core::{Dataset, Rng, Split};
use lsgm_data::{Damaged, Fit, ImageConfig, ImageSource};

/// A folder of `count` 8x6 images of one colour each, PNG and JPEG by turns, in folders `a` and `b`.
fn folder(count: u8) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..count {
        save(&dir.path().join(if i.is_multiple_of(3) { "a" } else { "b" }), i, 8, 6);
    }
    dir
}

fn save(dir: &Path, value: u8, width: u32, height: u32) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    let path = dir.join(format!("{value}.{}", if value.is_multiple_of(2) { "png" } else { "JPG" }));
    let image = DynamicImage::ImageRgb8(RgbImage::from_pixel(width, height, Rgb([value, value, value])));
    image.save_with_format(&path, image::ImageFormat::from_path(&path).unwrap()).unwrap();
    path
}

fn config() -> ImageConfig {
    ImageConfig { kind: ImageSource::ImageFolder, height: 6, width: 8, ..Default::default() }
}

/// The value of each image of a split, in order.
fn values(config: &ImageConfig, split: Split, dir: &Path) -> Vec<u8> {
    let set = config.open(split, Some(dir)).unwrap();
    let batch = set.batch(&(0..set.len()).collect::<Vec<_>>(), &mut Rng::new(0)).unwrap();
    let pixels = batch.x.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
    pixels.iter().map(|image| (image[0] * 255.0).round() as u8).collect()
}

fn refused(config: &ImageConfig, split: Split, dir: Option<&Path>, words: &[&str]) {
    let error = config.open(split, dir).err().unwrap_or_else(|| panic!("{words:?} was accepted"));
    assert!(error.is_input(), "{error:?}");
    for word in words {
        assert!(error.to_string().contains(word), "`{error}` lacks `{word}`");
    }
}

#[test]
fn an_undivided_folder_is_divided_by_share_and_always_in_the_same_way() {
    let dir = folder(40);
    let config = ImageConfig { val: 0.1, test: 0.25, ..config() };
    let [train, val, test] = Split::ALL.map(|split| values(&config, split, dir.path()));
    assert_eq!((train.len(), val.len(), test.len()), (26, 4, 10));
    let all: BTreeSet<u8> = train.iter().chain(&val).chain(&test).copied().collect();
    assert_eq!(all, (0..40).collect());
    // A file more moves only what lies at the borders.
    save(&dir.path().join("b"), 40, 8, 6);
    let again = values(&config, Split::Train, dir.path());
    assert!(train.iter().filter(|v| again.contains(v)).count() >= 25);
    assert!(!train.is_sorted(), "a random order: {train:?}");
    // Labels are the folders, in alphabetical order.
    let set = config.open(Split::Train, Some(dir.path())).unwrap();
    let indices: Vec<_> = (0..set.len()).collect();
    let labels = set.batch(&indices, &mut Rng::new(0)).unwrap().labels.unwrap().to_vec1::<u32>().unwrap();
    assert!(labels.iter().zip(&again).all(|(label, value)| *label == u32::from(!value.is_multiple_of(3))));
}

#[test]
fn a_divided_folder_keeps_its_division() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..20 {
        save(&dir.path().join("train/x"), i, 8, 6);
    }
    save(&dir.path().join("valid"), 30, 8, 6);
    let sizes = || Split::ALL.map(|split| values(&config(), split, dir.path()).len());
    assert_eq!(sizes(), [20, 1, 1], "what is for validation is for testing too");
    save(&dir.path().join("test"), 31, 8, 6);
    assert_eq!(values(&config(), Split::Test, dir.path()), [31]);
    std::fs::remove_dir_all(dir.path().join("valid")).unwrap();
    assert_eq!(sizes(), [18, 2, 1]);
}

#[test]
fn a_class_has_one_number_in_all_parts_of_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    for (i, folder) in ["train/cat", "train/dog", "train/owl", "test/cat", "test/owl", "val/dog"].iter().enumerate() {
        save(&dir.path().join(folder), 10 * i as u8, 8, 6);
    }
    let labels = |split| {
        let set = config().open(split, Some(dir.path())).unwrap();
        let batch = set.batch(&(0..set.len()).collect::<Vec<_>>(), &mut Rng::new(0)).unwrap();
        let mut labels = batch.labels.unwrap().to_vec1::<u32>().unwrap();
        labels.sort_unstable();
        labels
    };
    assert_eq!((labels(Split::Train), labels(Split::Test), labels(Split::Val)), (vec![0, 1, 2], vec![0, 2], vec![1]));
}

#[test]
fn large_sets_are_decoded_as_they_are_visited() {
    let dir = folder(40);
    let small = config();
    let large = ImageConfig { memory: 0, ..config() };
    for split in Split::ALL {
        assert_eq!(values(&small, split, dir.path()), values(&large, split, dir.path()));
    }
    let set = large.open(Split::Train, Some(dir.path())).unwrap();
    assert!(set.batch(&[set.len()], &mut Rng::new(0)).is_err());
}

#[test]
fn unusable_files_are_refused_by_name_or_skipped() {
    let dir = folder(40);
    let whole = values(&config(), Split::Train, dir.path());
    let name = |value: u8| {
        let folder = if value.is_multiple_of(3) { "a" } else { "b" };
        dir.path().join(folder).join(format!("{value}.{}", if value.is_multiple_of(2) { "png" } else { "JPG" }))
    };
    // One cut off within its pixels, one that is no image, one that is transparent.
    let pngs: Vec<u8> = whole.iter().copied().filter(|v| v.is_multiple_of(2)).take(3).collect();
    let bytes = std::fs::read(name(pngs[0])).unwrap();
    std::fs::write(name(pngs[0]), &bytes[..bytes.len() - 20]).unwrap();
    std::fs::write(name(pngs[1]), b"this is text").unwrap();
    DynamicImage::new_rgba8(8, 6).save(name(pngs[2])).unwrap();
    for memory in [0, 1024] {
        let skip = ImageConfig { damaged: Damaged::Skip, memory, ..config() };
        let kept = values(&skip, Split::Train, dir.path());
        if memory > 0 {
            assert!(kept.iter().all(|v| !pngs.contains(v)));
            assert_eq!(kept.len(), whole.len() - 3);
        } else {
            // A header says nothing of pixels: their places are taken by others at the visit.
            assert_eq!(kept.len(), whole.len() - 1);
        }
    }
    refused(&config(), Split::Train, Some(dir.path()), &["data.damaged"]);
    std::fs::write(name(pngs[0]), &bytes).unwrap();
    std::fs::remove_file(name(pngs[2])).unwrap();
    refused(&config(), Split::Train, Some(dir.path()), &[&format!("{}.png", pngs[1]), "data.damaged"]);
    let lazy = ImageConfig { memory: 0, ..config() };
    refused(&lazy, Split::Train, Some(dir.path()), &[&format!("{}.png", pngs[1])]);
}

#[test]
fn mixed_sizes_need_a_rule() {
    let dir = folder(30);
    save(dir.path(), 200, 20, 12);
    for split in Split::ALL {
        for memory in [0, 1024] {
            let exact = ImageConfig { memory, ..config() };
            let Err(error) = exact.open(split, Some(dir.path())) else { continue };
            let text = error.to_string();
            assert!(text.contains("200.png") && text.contains("found 12x20") && text.contains("data.fit"), "{text}");
        }
    }
    for fit in [Fit::Resize, Fit::Center, Fit::Cover] {
        let any = ImageConfig { fit, ..config() };
        assert_eq!(Split::ALL.map(|split| values(&any, split, dir.path()).len()).iter().sum::<usize>(), 31);
    }
    let cropped = ImageConfig { crop: Some(4), height: 4, width: 4, ..config() };
    assert_eq!(cropped.open(Split::Train, Some(dir.path())).unwrap().images().size().bytes(), 48);
}

#[test]
fn keys_are_checked_before_data_are_touched() {
    for (config, key) in [
        (ImageConfig { bits: 7, ..config() }, "data.bits"),
        (ImageConfig { channels: 4, ..config() }, "data.channels"),
        (ImageConfig { width: 0, ..config() }, "data.width"),
        (ImageConfig { crop: Some(0), ..config() }, "data.crop"),
        (ImageConfig { val: 0.6, test: 0.5, ..config() }, "data.val"),
        (ImageConfig { test: 0.0, ..config() }, "data.test"),
        (ImageConfig { limit: Some(0), ..config() }, "data.limit"),
        (ImageConfig { kind: ImageSource::Card, set: "cifar".into(), ..config() }, "did you mean `cifar10`?"),
    ] {
        refused(&config, Split::Train, Some(Path::new("nowhere")), &[key]);
    }
    refused(&config(), Split::Train, None, &["data.dir", "--data"]);
    refused(&config(), Split::Train, Some(Path::new("nowhere")), &["nowhere", "not found"]);
    let empty = tempfile::tempdir().unwrap();
    refused(&config(), Split::Train, Some(empty.path()), &["PNG or JPEG files"]);
}

#[test]
fn grey_sets_serve_colour_models_and_the_other_way_round() {
    let glyphs = ImageConfig { set: "glyphs".into(), height: 28, width: 28, ..Default::default() };
    let colour = ImageConfig { limit: Some(4), fit: Fit::Resize, ..glyphs.clone() };
    let grey = ImageConfig { channels: 1, ..colour.clone() };
    let item = |config: &ImageConfig| {
        config.open(Split::Train, None).unwrap().batch(&[0], &mut Rng::new(0)).unwrap().x.squeeze(0).unwrap()
    };
    let (colour, grey) = (item(&colour), item(&grey));
    assert_eq!((colour.dims(), grey.dims()), (&[3, 28, 28][..], &[1, 28, 28][..]));
    let plane = |x: &candle_core::Tensor, c: usize| x.get(c).unwrap().to_vec2::<f32>().unwrap();
    assert!((0..3).all(|c| plane(&colour, c) == plane(&grey, 0)));
    let dir = folder(10);
    let values = values(&ImageConfig { channels: 1, ..config() }, Split::Train, dir.path());
    assert_eq!(values.len(), 8);
}

#[test]
fn cifar10_is_read_from_a_folder_of_parquet_files() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/cifar10-jpeg");
    if !path.exists() {
        eprintln!("skipped: there is no {}", path.display());
        return;
    }
    let config = ImageConfig { limit: Some(500), flip: true, ..Default::default() };
    let train = config.open(Split::Train, Some(&path)).unwrap();
    let batch = train.batch(&[0, 499], &mut Rng::new(0)).unwrap();
    assert_eq!((train.len(), batch.x.dims()), (500, &[2, 3, 32, 32][..]));
    assert!(batch.labels.unwrap().to_vec1::<u32>().unwrap().iter().all(|l| *l < 10));
    let all = batch.x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(all.iter().all(|v| (v * 255.0 - (v * 255.0).round()).abs() < 1e-4 && (0.0..=1.0).contains(v)));
    assert_eq!(config.open(Split::Val, Some(&path)).unwrap().len(), 2000);
    // The same rows, unpacked in place of decoded.
    let lazy = ImageConfig { memory: 0, ..config.clone() }.open(Split::Train, Some(&path)).unwrap();
    let again = lazy.batch(&[0, 499], &mut Rng::new(0)).unwrap().x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(all, again);
    let columns = lsgm_data::card::Columns { image: "img".into(), ..Default::default() };
    let own = ImageConfig { kind: ImageSource::Parquet, columns, ..config };
    let own = own.open(Split::Train, Some(&path)).unwrap().batch(&[0, 499], &mut Rng::new(0)).unwrap();
    assert_eq!(all, own.x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
}
