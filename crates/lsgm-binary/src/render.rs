use std::io::Cursor;

use candle_core::{DType, Device, Tensor};
use image::{GrayImage, ImageFormat, Luma};
use lsgm_core::{Arrangement, Artifact, Error, Result};

const GAP: usize = 2;
const ZOOM: usize = 2;
const BACKGROUND: u8 = 96;

/// A PNG with all items `[N, 1, H, W]` (values in [0, 1]) in a grid.
pub(crate) fn grid(items: &Tensor, arrangement: Arrangement) -> Result<Artifact> {
    let (n, _, h, w) = items.dims4()?;
    let pixels = items.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    let columns = columns(n, arrangement);
    let rows = (0..n).map(|i| place(i, columns, arrangement).0 + 1).max().unwrap_or(1);
    let (cell_h, cell_w) = (ZOOM * h + GAP, ZOOM * w + GAP);
    let mut sheet =
        GrayImage::from_pixel((columns * cell_w + GAP) as u32, (rows * cell_h + GAP) as u32, Luma([BACKGROUND]));
    for i in 0..n {
        let (row, column) = place(i, columns, arrangement);
        for y in 0..ZOOM * h {
            for x in 0..ZOOM * w {
                let value = pixels[(i * h + y / ZOOM) * w + x / ZOOM].clamp(0.0, 1.0);
                let (px, py) = (GAP + column * cell_w + x, GAP + row * cell_h + y);
                sheet.put_pixel(px as u32, py as u32, Luma([(value * 255.0).round() as u8]));
            }
        }
    }
    let mut bytes = Vec::new();
    sheet.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).map_err(|e| Error::Other(e.into()))?;
    Ok(Artifact { suffix: String::new(), extension: "png", bytes })
}

fn columns(n: usize, arrangement: Arrangement) -> usize {
    match arrangement {
        Arrangement::Samples => (n as f64).sqrt().ceil() as usize,
        Arrangement::Pairs => ((n / 2) as f64).sqrt().ceil() as usize,
        Arrangement::Paths(steps) => steps,
    }
    .max(1)
}

/// Row and column of item `i`. Pairs lie in two rows: the original above its reconstruction.
fn place(i: usize, columns: usize, arrangement: Arrangement) -> (usize, usize) {
    match arrangement {
        Arrangement::Pairs => {
            let pair = i / 2;
            (2 * (pair / columns) + i % 2, pair % columns)
        }
        _ => (i / columns, i % columns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_lie_above_each_other_and_paths_in_rows() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(|i| place(i, 2, Arrangement::Pairs)),
            [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (3, 0)]
        );
        assert_eq!(place(7, 5, Arrangement::Paths(5)), (1, 2));
    }

    #[test]
    fn the_grid_shows_the_pixels() {
        let items = Tensor::new(&[0f32, 1.0, 0.5, 1.0], &Device::Cpu).unwrap().reshape((1, 1, 2, 2)).unwrap();
        let png = grid(&items, Arrangement::Samples).unwrap();
        let sheet = image::load_from_memory(&png.bytes).unwrap().to_luma8();
        let at = |x: usize, y: usize| sheet.get_pixel((GAP + ZOOM * x) as u32, (GAP + ZOOM * y) as u32).0[0];
        assert_eq!([at(0, 0), at(1, 0), at(0, 1), at(1, 1)], [0, 255, 128, 255]);
        assert_eq!(sheet.get_pixel(0, 0).0[0], BACKGROUND);
    }
}
