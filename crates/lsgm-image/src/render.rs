use std::io::Cursor;

use candle_core::{DType, Device, Tensor};
use image::{ImageFormat, Rgb, RgbImage};
use lsgm_core::{Arrangement, Artifact, Error, Result};

const GAP: usize = 2;
const BACKGROUND: u8 = 96;

/// Small images are shown at twice their size.
const SMALL: usize = 48;

/// A PNG with all items `[N, C, H, W]`, grey (`C` = 1) or RGB (`C` = 3) with values in [0, 1], in a grid.
///
/// # Errors
/// Items of another shape.
pub fn grid(items: &Tensor, arrangement: Arrangement) -> Result<Artifact> {
    let (n, channels, h, w) = items.dims4()?;
    if !matches!(channels, 1 | 3) {
        return Err(Error::contract("sheet", format!("images of {channels} channels: 1 and 3 can be shown")));
    }
    let pixels = items.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    let zoom = if h.max(w) <= SMALL { 2 } else { 1 };
    let columns = arrangement.columns(n);
    let rows = (0..n).map(|i| arrangement.place(i, columns).0 + 1).max().unwrap_or(1);
    let (cell_h, cell_w) = (zoom * h + GAP, zoom * w + GAP);
    let (height, width) = ((rows * cell_h + GAP) as u32, (columns * cell_w + GAP) as u32);
    let mut sheet = RgbImage::from_pixel(width, height, Rgb([BACKGROUND; 3]));
    for i in 0..n {
        let (row, column) = arrangement.place(i, columns);
        for y in 0..zoom * h {
            for x in 0..zoom * w {
                let value = |c: usize| {
                    let value = pixels[((i * channels + c) * h + y / zoom) * w + x / zoom].clamp(0.0, 1.0);
                    (value * 255.0).round() as u8
                };
                let colour = Rgb([0, 1, 2].map(|c: usize| value(c.min(channels - 1))));
                let (px, py) = (GAP + column * cell_w + x, GAP + row * cell_h + y);
                sheet.put_pixel(px as u32, py as u32, colour);
            }
        }
    }
    Ok(Artifact { suffix: String::new(), extension: "png", bytes: png(sheet, channels)? })
}

/// The bytes of a PNG, grey where all images are.
fn png(sheet: RgbImage, channels: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut target = Cursor::new(&mut bytes);
    let sheet = image::DynamicImage::ImageRgb8(sheet);
    let sheet = if channels == 1 { sheet.into_luma8().into() } else { sheet };
    sheet.write_to(&mut target, ImageFormat::Png).map_err(|e| Error::Other(e.into()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_lie_above_each_other_and_paths_in_rows() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(|i| Arrangement::Pairs.place(i, 2)),
            [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (3, 0)]
        );
        assert_eq!(Arrangement::Paths(5).place(7, 5), (1, 2));
    }

    #[test]
    fn the_grid_shows_grey_pixels() {
        let items = Tensor::new(&[0f32, 1.0, 0.5, 1.0], &Device::Cpu).unwrap().reshape((1, 1, 2, 2)).unwrap();
        let png = grid(&items, Arrangement::Samples).unwrap();
        let sheet = image::load_from_memory(&png.bytes).unwrap();
        assert_eq!(sheet.color(), image::ColorType::L8);
        let sheet = sheet.to_luma8();
        let at = |x: usize, y: usize| sheet.get_pixel((GAP + 2 * x) as u32, (GAP + 2 * y) as u32).0[0];
        assert_eq!([at(0, 0), at(1, 0), at(0, 1), at(1, 1)], [0, 255, 128, 255]);
        assert_eq!(sheet.get_pixel(0, 0).0[0], BACKGROUND);
    }

    #[test]
    fn the_grid_shows_colours_and_large_images_at_their_size() {
        let items = Tensor::zeros((2, 3, 50, 50), DType::F32, &Device::Cpu).unwrap();
        let red = Tensor::ones((2, 1, 50, 50), DType::F32, &Device::Cpu).unwrap();
        let items = Tensor::cat(&[&red, &items.narrow(1, 0, 2).unwrap()], 1).unwrap();
        let png = grid(&items, Arrangement::Samples).unwrap();
        let sheet = image::load_from_memory(&png.bytes).unwrap().to_rgb8();
        assert_eq!(sheet.dimensions(), (2 * 52 + 2, 54));
        assert_eq!((sheet.get_pixel(2, 2).0, sheet.get_pixel(51, 51).0), ([255, 0, 0], [255, 0, 0]));
        assert!(grid(&items.narrow(1, 0, 2).unwrap(), Arrangement::Samples).is_err());
    }
}
