//! Folders of pictures as people have them: mixed sizes and modes, damaged files.

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba, RgbaImage};

use crate::support::Bench;

/// A model of 16x16 pictures and a training that take about a second.
const TINY: &str = r#"modality = "image"

[data]
kind = "image-folder"
height = 16
width = 16

[autoencoder]
kind = "nvae"
encoder_channels = 4
decoder_channels = 4
latent_channels = 2

[prior.network]
channels = 8
blocks = 1
attention = []
embedding = 16

[train]
batch_size = 4
sample_count = 2

[train.vae]
steps = 1

[train.lsgm]
steps = 1
"#;

/// What trains one step on the folder.
const TRAIN: &str = "train tiny-image.toml --data pictures --stage vae --out run";

fn encoded(image: impl Into<DynamicImage>, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub(crate) fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    encoded(image, image::ImageFormat::Png)
}

/// A bench with thirty pictures to train on, and some for validation.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("tiny-image.toml", TINY);
    for i in 0..30u8 {
        let picture = RgbImage::from_fn(16, 16, |x, y| Rgb([8 * i, (x * y) as u8, (16 * x) as u8]));
        bench.write(&format!("pictures/train/{i}.png"), png(picture.clone()));
        bench.write(&format!("pictures/val/{i}.jpg"), encoded(picture, image::ImageFormat::Jpeg));
    }
    bench
}

#[test]
fn mixed_sizes_are_told_and_can_be_made_to_fit() {
    let bench = bench();
    bench.write("pictures/train/wide.png", png(RgbImage::new(40, 12)));
    bench.lsgm(TRAIN).fails(2, &["wide.png", "expected 16x16", "found 12x40", "data.fit"]);
    bench.lsgm(&format!("{TRAIN} --set data.memory=0")).fails(2, &["wide.png", "found 12x40"]);
    assert!(!bench.path("run").exists());
    bench.lsgm(&format!("{TRAIN} --set data.fit=cover --set data.flip=true --set data.bits=5")).succeeds();
}

#[test]
fn modes_are_converted_where_nothing_is_guessed() {
    let bench = bench();
    bench.write("pictures/train/grey.png", png(GrayImage::new(16, 16)));
    bench.write("pictures/train/opaque.png", png(RgbaImage::from_pixel(16, 16, Rgba([1, 2, 3, 255]))));
    let deep: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::new(16, 16);
    bench.write("pictures/train/deep.png", png(deep));
    bench.lsgm(TRAIN).succeeds();
    let refused = format!("{} --out new", TRAIN.trim_end_matches(" --out run"));
    bench.write("pictures/train/clear.png", png(RgbaImage::new(16, 16)));
    bench.lsgm(&refused).fails(2, &["clear.png", "partly transparent", "data.damaged"]);
    std::fs::remove_file(bench.path("pictures/train/clear.png")).unwrap();
    // Start of image, and the header of a frame of four components.
    let inks = [0xff, 0xd8, 0xff, 0xc0, 0, 20, 8, 0, 16, 0, 16, 4, 1, 17, 0, 2, 17, 0, 3, 17, 0, 4, 17, 0];
    bench.write("pictures/train/inks.jpg", inks);
    bench.lsgm(&refused).fails(2, &["inks.jpg", "CMYK"]);
    assert!(!bench.path("new").exists());
}

#[test]
fn a_damaged_file_is_refused_or_skipped_and_counted() {
    let bench = bench();
    let whole = std::fs::read(bench.path("pictures/train/0.png")).unwrap();
    bench.write("pictures/train/cut.png", &whole[..whole.len() / 2]);
    bench.lsgm(TRAIN).fails(2, &["cut.png", "data.damaged"]);
    assert!(!bench.path("run").exists());
    let said = bench.lsgm(&format!("{TRAIN} --set data.damaged=skip")).succeeds().stderr;
    assert!(said.contains("1 of 31 images cannot be used") && said.contains("cut.png"), "{said}");
    // Every one of them damaged: nothing is left.
    for i in 0..30 {
        bench.write(&format!("pictures/train/{i}.png"), "");
    }
    let nothing = format!("{} --out new --set data.damaged=skip", TRAIN.trim_end_matches(" --out run"));
    let said = bench.lsgm(&nothing);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    assert!(said.stderr.contains("31 of 31 images") && said.stderr.contains("the train split"), "{}", said.stderr);
    bench.lsgm("train tiny-image.toml --stage vae --out new").fails(2, &["data.dir", "--data DIR"]);
}
