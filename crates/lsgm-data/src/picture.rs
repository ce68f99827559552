//! One encoded image to pixels, and the ways in which an image of another size may be made to fit.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageReader, Limits, RgbImage, imageops};
use serde::{Deserialize, Serialize};

use crate::shield::shield;
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
    /// Scale it until it covers the expected size, then cut the middle out; proportions stay.
    Cover,
}

/// What to do with an image that cannot be used: damaged, transparent, or with inks in place of colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Damaged {
    /// Refuse the whole set, and name the image. Of a set larger than `data.memory` only headers are read at the start: an image
    /// with damaged pixels then ends the training where it is first visited, and a checkpoint lets it go on.
    #[default]
    Refuse,
    /// Leave it out, and say how many were left out.
    Skip,
}

/// The size that images must have, and how they get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The expected size.
    pub size: ImageSize,
    /// What to do with others.
    pub fit: Fit,
    /// Cut the middle square of this side out of each image before all else.
    pub crop: Option<usize>,
}

impl Target {
    /// Images of this size and no other.
    pub fn exact(size: ImageSize) -> Self {
        Self { size, fit: Fit::Exact, crop: None }
    }
}

/// Decode a PNG or JPEG file and write it to `pixels`, channels first, in the target's size.
///
/// Colour turns to grey by luminance where the target is grey; grey is repeated where the target is colour; 16-bit
/// channels are rounded to 8; an orientation stored by a camera is applied; an alpha channel that hides nothing is
/// dropped.
///
/// # Errors
/// Why not; the caller knows file and row.
pub(crate) fn decode(bytes: &[u8], target: Target, pixels: &mut Vec<u8>) -> Result<(), Refusal> {
    let image = decoded(bytes)?;
    if hides_something(&image) {
        return Err(Refusal::Bytes("the image is partly transparent: flatten it onto a background first".into()));
    }
    let image = fit(image, target).map_err(Refusal::Size)?;
    match target.size.channels {
        1 => pixels.extend_from_slice(image.into_luma8().as_raw()),
        _ => push_channels_first(&image.into_rgb8(), pixels),
    }
    Ok(())
}

/// See from the header alone that an encoded image is likely to be usable.
///
/// # Errors
/// As [`decode`].
pub(crate) fn check_header(bytes: &[u8], target: Target) -> Result<(), Refusal> {
    let decoder = decoder(bytes)?;
    let (width, height) = decoder.dimensions();
    let found = ImageSize { channels: target.size.channels, height: height as usize, width: width as usize };
    let fits = target.fit != Fit::Exact || target.crop.is_some() || found == target.size;
    if fits { Ok(()) } else { Err(Refusal::Size(found)) }
}

fn decoded(bytes: &[u8]) -> Result<DynamicImage, Refusal> {
    let image = shield(|| {
        let mut decoder = decoder(bytes)?;
        // A camera's note that cannot be read is no reason to refuse the picture.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder).map_err(refuse)?;
        image.apply_orientation(orientation);
        Ok(image)
    });
    image.unwrap_or_else(|| Err(Refusal::Bytes("the decoder cannot make sense of the bytes".into())))
}

fn decoder(bytes: &[u8]) -> Result<impl ImageDecoder + '_, Refusal> {
    if has_four_inks(bytes) {
        return Err(Refusal::Bytes("a JPEG of four inks (CMYK): convert it to RGB first".into()));
    }
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| Refusal::Bytes(e.to_string()))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(LARGEST_ALLOCATION);
    reader.limits(limits.clone());
    let decoder = reader.into_decoder().map_err(refuse)?;
    limits.reserve(decoder.total_bytes()).map_err(refuse)?;
    Ok(decoder)
}

fn refuse(error: image::ImageError) -> Refusal {
    Refusal::Bytes(error.to_string())
}

/// Whether some pixel has an alpha below the highest.
fn hides_something(image: &DynamicImage) -> bool {
    image.color().has_alpha() && image.to_rgba8().pixels().any(|p| p.0[3] != u8::MAX)
}

/// Whether a JPEG announces four components. How its inks mix, and whether they are stored inverted, is a matter of
/// convention: a guess would give wrong colours without a word.
fn has_four_inks(bytes: &[u8]) -> bool {
    let mut rest = match bytes {
        [0xff, 0xd8, rest @ ..] => rest,
        _ => return false,
    };
    loop {
        match rest {
            // A fill byte before a marker.
            [0xff, 0xff, ..] => rest = &rest[1..],
            // Frame headers: length, precision, height, width, number of components.
            [0xff, 0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf, _, _, _, _, _, _, _, components, ..] => {
                return *components == 4;
            }
            [0xff, 0x01..=0xd7 | 0xdb..=0xfe, high, low, ..] => {
                let length = 2 + usize::from(u16::from_be_bytes([*high, *low]));
                rest = rest.get(length..).unwrap_or_default();
            }
            _ => return false,
        }
    }
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
    if size == target.size && target.crop.is_none() {
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
        advice: "set `data.fit` to \"cover\" (scale and crop), \"resize\" (scale) or \"center\" (crop or pad), or use \
                 another set"
            .into(),
    }
}

/// The image in the target's height and width, or its size if that is refused.
fn fit(image: DynamicImage, target: Target) -> Result<DynamicImage, ImageSize> {
    let (width, height) = (target.size.width as u32, target.size.height as u32);
    let image = match target.crop {
        Some(side) => center(&image, side as u32, side as u32),
        None => image,
    };
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
        Fit::Cover => Ok(middle(&image, width, height).resize_exact(width, height, imageops::FilterType::Triangle)),
    }
}

/// The largest part in the middle of an image with the proportions of `width` to `height`. Scaling the whole image first
/// would take gigabytes for one that is a thousand times as wide as it is high.
fn middle(image: &DynamicImage, width: u32, height: u32) -> DynamicImage {
    let (outer_width, outer_height) = (image.width(), image.height());
    let scaled = |side: u32, by: u32, over: u32, most: u32| {
        let rounded = (u64::from(side) * u64::from(by) + u64::from(over) / 2) / u64::from(over);
        u32::try_from(rounded).unwrap_or(most).clamp(1, most)
    };
    let (inner_width, inner_height) =
        (scaled(outer_height, width, height, outer_width), scaled(outer_width, height, width, outer_height));
    let (x, y) = ((outer_width - inner_width) / 2, (outer_height - inner_height) / 2);
    image.crop_imm(x, y, inner_width, inner_height)
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

    fn pixels(bytes: &[u8], size: ImageSize, fit: Fit) -> Result<Vec<u8>, Refusal> {
        let mut pixels = Vec::new();
        decode(bytes, Target { size, fit, crop: None }, &mut pixels).map(|()| pixels)
    }

    #[test]
    fn grey_survives_and_colour_comes_channels_first() {
        let bytes = grey_png(3, 2, |x, y| (10 * y + x) as u8);
        assert_eq!(pixels(&bytes, ImageSize::grey(2, 3), Fit::Exact).unwrap(), [0, 1, 2, 10, 11, 12]);
        let colour = DynamicImage::ImageRgb8(RgbImage::from_fn(2, 1, |x, _| image::Rgb([x as u8, 7, 9])));
        let size = ImageSize { channels: 3, height: 1, width: 2 };
        assert_eq!(pixels(&png(&colour), size, Fit::Exact).unwrap(), [0, 1, 7, 7, 9, 9]);
    }

    /// A line of a thousand pixels is cropped to its middle before it is enlarged, not after.
    #[test]
    fn covering_crops_first() {
        let line = grey_png(16_384, 1, |x, _| if (8000..8384).contains(&x) { 90 } else { 0 });
        assert!(pixels(&line, ImageSize::grey(256, 256), Fit::Cover).unwrap().iter().all(|p| *p == 90));
        let image = DynamicImage::new_luma8(30, 10);
        assert_eq!((middle(&image, 20, 10).width(), middle(&image, 10, 10).width()), (20, 10));
        assert_eq!((middle(&image, 30, 5).width(), middle(&image, 30, 5).height()), (30, 5));
    }

    #[test]
    fn another_size_is_refused_unless_the_config_says_so() {
        let bytes = grey_png(4, 4, |_, _| 200);
        let size = ImageSize::grey(2, 6);
        assert!(matches!(pixels(&bytes, size, Fit::Exact), Err(Refusal::Size(s)) if s == ImageSize::grey(4, 4)));
        assert_eq!(pixels(&bytes, size, Fit::Resize).unwrap(), [200; 12]);
        let row = [0, 200, 200, 200, 200, 0];
        assert_eq!(pixels(&bytes, size, Fit::Center).unwrap(), [row, row].concat());
        let target = Target::exact(size);
        let error = fit_all(ImageSize::grey(4, 4), vec![0; 16], target, "x.idx").unwrap_err().to_string();
        assert!(error.contains("expected 2x6, found 4x4") && error.contains("data.fit"), "{error}");
        let target = Target { size, fit: Fit::Center, crop: None };
        assert_eq!(fit_all(ImageSize::grey(4, 4), vec![200; 32], target, "").unwrap(), [row; 4].concat());
    }

    #[test]
    fn a_crop_comes_first_and_cover_keeps_proportions() {
        // Left half 0, right half 200, and a frame of 90 that the crop cuts away.
        let bytes = grey_png(10, 6, |x, y| match (x, y) {
            (0 | 1 | 8 | 9, _) | (_, 0 | 5) => 90,
            (..=4, _) => 0,
            _ => 200,
        });
        let target = Target { size: ImageSize::grey(4, 4), fit: Fit::Exact, crop: Some(4) };
        let mut cut = Vec::new();
        decode(&bytes, target, &mut cut).unwrap();
        assert_eq!(cut, [[0, 0, 200, 200]; 4].concat());
        assert_eq!(fit_all(ImageSize::grey(6, 8), vec![7; 48], target, "").unwrap(), [7; 16]);
        // Twice as wide as high: cover takes the middle square, resize squeezes all of it.
        let bytes = grey_png(8, 4, |x, _| if (1..7).contains(&x) { 200 } else { 0 });
        assert_eq!(pixels(&bytes, ImageSize::grey(2, 2), Fit::Cover).unwrap(), [200; 4]);
        assert!(pixels(&bytes, ImageSize::grey(2, 2), Fit::Resize).unwrap().iter().all(|v| *v < 200));
    }

    #[test]
    fn modes_are_converted_or_refused() {
        let size = ImageSize::grey(2, 2);
        let refused = pixels(&png(&DynamicImage::new_rgba8(2, 2)), size, Fit::Exact);
        assert!(matches!(refused, Err(Refusal::Bytes(m)) if m.contains("transparent")));
        let colour = ImageSize { channels: 3, ..size };
        let opaque = image::RgbaImage::from_pixel(2, 2, image::Rgba([1, 2, 3, 255]));
        let expected = [[1; 4], [2; 4], [3; 4]].concat();
        assert_eq!(pixels(&png(&DynamicImage::ImageRgba8(opaque)), colour, Fit::Exact).unwrap(), expected);
        let deep = image::ImageBuffer::from_pixel(2, 2, image::Rgb([257u16, 257 * 2, 257 * 3 + 100]));
        assert_eq!(pixels(&png(&DynamicImage::ImageRgb16(deep)), colour, Fit::Exact).unwrap(), expected);
        let grey = image::ImageBuffer::from_pixel(2, 2, image::Luma([257u16 * 9]));
        assert_eq!(pixels(&png(&DynamicImage::ImageLuma16(grey)), colour, Fit::Exact).unwrap(), [9; 12]);
    }

    #[test]
    fn four_inks_are_refused_whatever_comes_before_the_frame() {
        let frame = |components: u8| [0xff, 0xc0, 0, 8 + 3 * components, 8, 0, 2, 0, 2, components];
        let jpeg = |before: &[u8], components| [&[0xff, 0xd8][..], before, &frame(components)].concat();
        let adobe = [&[0xff, 0xee, 0, 14][..], b"Adobe\0\x64\0\0\0\0\0"].concat();
        for before in [&[][..], &adobe, &[0xff, 0xff, 0xfe, 0, 4, 1, 2]] {
            let refused = pixels(&jpeg(before, 4), ImageSize::grey(2, 2), Fit::Exact);
            assert!(matches!(refused, Err(Refusal::Bytes(m)) if m.contains("CMYK")));
            assert!(!has_four_inks(&jpeg(before, 3)));
        }
        assert!(!has_four_inks(&jpeg(&[0xff, 0xee, 0xff, 0xff], 4)), "a segment longer than the file");
    }

    proptest! {
        #[test]
        fn damaged_png_never_panics(at in 0usize..200, value: u8, keep in 0usize..200) {
            let mut bytes = grey_png(9, 9, |x, y| (x * y) as u8);
            let n = bytes.len();
            bytes[at % n] ^= value;
            bytes.truncate(n.saturating_sub(keep));
            let _ = pixels(&bytes, ImageSize::grey(9, 9), Fit::Resize);
        }

        #[test]
        fn damaged_jpeg_never_panics(at in 0usize..2000, value: u8, keep in 0usize..2000) {
            let mut bytes = Cursor::new(Vec::new());
            let image = RgbImage::from_fn(17, 9, |x, y| image::Rgb([(x * y) as u8, x as u8, y as u8]));
            image.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
            let mut bytes = bytes.into_inner();
            let n = bytes.len();
            bytes[at % n] ^= value;
            bytes.truncate(n.saturating_sub(keep / 4));
            let _ = pixels(&bytes, ImageSize::grey(9, 9), Fit::Resize);
        }
    }
}
