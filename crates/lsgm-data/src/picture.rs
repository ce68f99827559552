//! One encoded image to pixels, and the ways in which an image of another size may be made to fit.

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageReader, Limits, RgbImage, imageops};
use serde::{Deserialize, Serialize};

use crate::{DataError, ImageSize, Result};

/// The largest height or width of an encoded image that is decoded.
const LARGEST_SIDE: u32 = 1 << 14;
/// The largest amount of memory that decoding one image may take.
const LARGEST_ALLOCATION: u64 = 1 << 29;

/// What to do with an image of another size than expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Refuse it.
    #[default]
    Exact,
    /// Scale it to the expected size; proportions change if they differ.
    Resize,
    /// Cut its middle out where it is larger, pad it with black where it is smaller.
    Center,
}

/// The size that images must have, and how they get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The expected size.
    pub size: ImageSize,
    /// What to do with others.
    pub fit: Fit,
}

/// Decode a PNG or JPEG file and write it to `pixels`, channels first, in the target's size.
///
/// Colour turns to grey by luminance where the target is grey; grey is repeated where the target is colour; 16-bit
/// channels are rounded to 8.
///
/// # Errors
/// Why not; the caller knows file and row.
pub(crate) fn decode(bytes: &[u8], target: Target, pixels: &mut Vec<u8>) -> Result<(), Refusal> {
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| Refusal::Bytes(e.to_string()))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(LARGEST_ALLOCATION);
    reader.limits(limits);
    let image = reader.decode().map_err(|e| Refusal::Bytes(e.to_string()))?;
    if image.color().has_alpha() {
        return Err(Refusal::Bytes("images with an alpha channel cannot be used: flatten them first".into()));
    }
    let image = fit(image, target).map_err(Refusal::Size)?;
    match target.size.channels {
        1 => pixels.extend_from_slice(image.into_luma8().as_raw()),
        _ => push_channels_first(&image.into_rgb8(), pixels),
    }
    Ok(())
}

/// Why an encoded image cannot be used.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Its bytes are not an image that can be read.
    Bytes(String),
    /// It has this size.
    Size(ImageSize),
}

/// Make grey images `[N, H, W]` of one size fit the target.
pub(crate) fn fit_all(size: ImageSize, pixels: Vec<u8>, target: Target, origin: &str) -> Result<Vec<u8>> {
    if size == target.size {
        return Ok(pixels);
    }
    let mut fitted = Vec::new();
    for image in pixels.chunks_exact(size.bytes().max(1)) {
        let grey = GrayImage::from_raw(size.width as u32, size.height as u32, image.to_vec());
        let grey = grey.ok_or_else(|| DataError::Contract(format!("{} bytes for an image of {size}", image.len())))?;
        match fit(DynamicImage::ImageLuma8(grey), target) {
            Ok(image) if target.size.channels == 1 => fitted.extend_from_slice(image.into_luma8().as_raw()),
            Ok(image) => push_channels_first(&image.into_rgb8(), &mut fitted),
            Err(found) => return Err(wrong_size(origin, target.size, found)),
        }
    }
    Ok(fitted)
}

/// The error for an image of another size, with the ways out.
pub(crate) fn wrong_size(origin: impl Into<String>, expected: ImageSize, found: ImageSize) -> DataError {
    DataError::ImageSize {
        origin: origin.into(),
        expected,
        found,
        advice: "set `data.fit` to \"resize\" (scale) or \"center\" (crop or pad), or use another set".into(),
    }
}

/// The image in the target's height and width, or its size if that is refused.
fn fit(image: DynamicImage, target: Target) -> Result<DynamicImage, ImageSize> {
    let (width, height) = (target.size.width as u32, target.size.height as u32);
    if (image.width(), image.height()) == (width, height) {
        return Ok(image);
    }
    match target.fit {
        Fit::Exact => {
            let channels = usize::from(image.color().channel_count());
            Err(ImageSize { channels, height: image.height() as usize, width: image.width() as usize })
        }
        Fit::Resize => Ok(image.resize_exact(width, height, imageops::FilterType::Triangle)),
        Fit::Center => Ok(center(&image, width, height)),
    }
}

fn center(image: &DynamicImage, width: u32, height: u32) -> DynamicImage {
    let offset = |outer: u32, inner: u32| (i64::from(outer) - i64::from(inner)) / 2;
    let (x, y) = (offset(width, image.width()), offset(height, image.height()));
    if image.color().has_color() {
        let mut canvas = RgbImage::new(width, height);
        imageops::overlay(&mut canvas, &image.to_rgb8(), x, y);
        DynamicImage::ImageRgb8(canvas)
    } else {
        let mut canvas = GrayImage::new(width, height);
        imageops::overlay(&mut canvas, &image.to_luma8(), x, y);
        DynamicImage::ImageLuma8(canvas)
    }
}

fn push_channels_first(image: &RgbImage, pixels: &mut Vec<u8>) {
    for channel in 0..3 {
        pixels.extend(image.pixels().map(|p| p.0[channel]));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn png(image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    pub(crate) fn grey_png(width: u32, height: u32, value: impl Fn(u32, u32) -> u8) -> Vec<u8> {
        png(&DynamicImage::ImageLuma8(GrayImage::from_fn(width, height, |x, y| image::Luma([value(x, y)]))))
    }

    fn decoded(bytes: &[u8], size: ImageSize, fit: Fit) -> Result<Vec<u8>, Refusal> {
        let mut pixels = Vec::new();
        decode(bytes, Target { size, fit }, &mut pixels).map(|()| pixels)
    }

    #[test]
    fn grey_survives_and_colour_comes_channels_first() {
        let bytes = grey_png(3, 2, |x, y| (10 * y + x) as u8);
        assert_eq!(decoded(&bytes, ImageSize::grey(2, 3), Fit::Exact).unwrap(), [0, 1, 2, 10, 11, 12]);
        let colour = DynamicImage::ImageRgb8(RgbImage::from_fn(2, 1, |x, _| image::Rgb([x as u8, 7, 9])));
        let size = ImageSize { channels: 3, height: 1, width: 2 };
        assert_eq!(decoded(&png(&colour), size, Fit::Exact).unwrap(), [0, 1, 7, 7, 9, 9]);
    }

    #[test]
    fn another_size_is_refused_unless_the_config_says_so() {
        let bytes = grey_png(4, 4, |_, _| 200);
        let size = ImageSize::grey(2, 6);
        assert!(matches!(decoded(&bytes, size, Fit::Exact), Err(Refusal::Size(s)) if s == ImageSize::grey(4, 4)));
        assert_eq!(decoded(&bytes, size, Fit::Resize).unwrap(), [200; 12]);
        let row = [0, 200, 200, 200, 200, 0];
        assert_eq!(decoded(&bytes, size, Fit::Center).unwrap(), [row, row].concat());
        let target = Target { size, fit: Fit::Exact };
        let error = fit_all(ImageSize::grey(4, 4), vec![0; 16], target, "x.idx").unwrap_err().to_string();
        assert!(error.contains("expected 2x6, found 4x4") && error.contains("data.fit"), "{error}");
        let target = Target { size, fit: Fit::Center };
        assert_eq!(fit_all(ImageSize::grey(4, 4), vec![200; 32], target, "").unwrap(), [row; 4].concat());
    }

    #[test]
    fn alpha_is_refused() {
        let bytes = png(&DynamicImage::new_rgba8(2, 2));
        let refusal = decoded(&bytes, ImageSize::grey(2, 2), Fit::Exact);
        assert!(matches!(refusal, Err(Refusal::Bytes(m)) if m.contains("alpha")));
    }

    proptest! {
        #[test]
        fn damaged_png_never_panics(at in 0usize..200, value: u8, keep in 0usize..200) {
            let mut bytes = grey_png(9, 9, |x, y| (x * y) as u8);
            let n = bytes.len();
            bytes[at % n] ^= value;
            bytes.truncate(n.saturating_sub(keep));
            let _ = decoded(&bytes, ImageSize::grey(9, 9), Fit::Resize);
        }
    }
}
