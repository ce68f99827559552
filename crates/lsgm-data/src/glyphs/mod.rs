//! The built-in set `glyphs`: digit-like drawings, made from a seed.

mod raster;
mod shapes;

use lsgm_core::{Rng, Split};

use crate::image_set::out_of_range;
use crate::{ImageSize, Images, Result};
use raster::{Canvas, smooth};
use shapes::{DIGITS, Point, Stroke};

/// Height and width of a glyph.
pub(crate) const SIDE: usize = 28;

/// Digit-like drawings of 28x28 pixels in ten classes, drawn on demand.
///
/// Item `i` is a function of the seed, the split and `i` alone, and there is no last one: the length only says how
/// many make an epoch. Each item takes one of the ways to write its digit (class `i % 10`, so that every stretch is
/// balanced), moves the control points of its strokes, and stretches, slants, turns and shifts the whole; the pen's
/// width varies too. Pixels are grey at the edges of strokes: probabilities of ink, as the grey of MNIST is used.
#[derive(Debug, Clone)]
pub(crate) struct Glyphs {
    stream: Rng,
    items: usize,
}

impl Glyphs {
    /// Number of classes.
    pub(crate) const CLASSES: usize = 10;

    /// The stream of a split, of which `items` make an epoch.
    pub(crate) fn new(seed: u64, split: Split, items: usize) -> Self {
        Self { stream: Rng::new(seed).fork("glyphs").fork(split.name()), items }
    }

    fn draw(&self, index: usize, pixels: &mut [u8]) -> u32 {
        let mut rng = self.stream.fork(&index.to_string());
        let class = index % Self::CLASSES;
        let ways = DIGITS[class];
        let mut paths: Vec<Vec<Point>> = ways[rng.below(ways.len())].iter().map(|s| path(s, &mut rng)).collect();
        let placement = Placement::draw(&mut rng);
        let radius = uniform(&mut rng, 0.9, 1.7);
        placement.apply(&mut paths, radius);
        let mut canvas = Canvas::new();
        paths.iter().for_each(|p| canvas.draw(p, radius));
        canvas.write(pixels);
        class as u32
    }
}

impl Images for Glyphs {
    fn len(&self) -> usize {
        self.items
    }

    fn size(&self) -> ImageSize {
        ImageSize::grey(SIDE, SIDE)
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<Option<u32>> {
        if index >= self.items || pixels.len() != SIDE * SIDE {
            return Err(out_of_range(index, self));
        }
        Ok(Some(self.draw(index, pixels)))
    }
}

/// Standard deviation of a control point, as a share of the digit's box.
const JITTER: f32 = 0.025;

/// The pen's path for a stroke, with its control points moved.
fn path(stroke: &Stroke, rng: &mut Rng) -> Vec<Point> {
    let (Stroke::Line(points) | Stroke::Curve(points)) = *stroke;
    let mut moved: Vec<Point> =
        points.iter().map(|p| (p.0 + JITTER * normal(rng), p.1 + JITTER * normal(rng))).collect();
    if points.first() == points.last() {
        moved.truncate(points.len() - 1);
        moved.extend(moved.first().copied());
    }
    match stroke {
        Stroke::Line(_) => moved,
        Stroke::Curve(_) => smooth(&moved),
    }
}

/// Where and how a digit's box lies on the canvas.
struct Placement {
    width: f32,
    height: f32,
    slant: f32,
    angle: f32,
    shift: Point,
}

impl Placement {
    fn draw(rng: &mut Rng) -> Self {
        let height = uniform(rng, 17.0, 21.0);
        Self {
            width: height * uniform(rng, 0.7, 0.95),
            height,
            slant: 0.12 + 0.16 * normal(rng),
            angle: 0.07 * normal(rng),
            shift: (uniform(rng, -1.0, 1.0), uniform(rng, -1.0, 1.0)),
        }
    }

    /// Map paths from the digit's box to pixels. The middle of what is drawn comes near the middle of the canvas, and
    /// a pen of this radius stays off its border.
    fn apply(&self, paths: &mut [Vec<Point>], radius: f32) {
        let (sin, cos) = self.angle.sin_cos();
        let (mut low, mut high) = ((f32::MAX, f32::MAX), (f32::MIN, f32::MIN));
        for point in paths.iter_mut().flatten() {
            let (x, y) = ((point.0 - 0.5) * self.width, (point.1 - 0.5) * self.height);
            let x = x - self.slant * y;
            *point = (cos * x - sin * y, sin * x + cos * y);
            low = (low.0.min(point.0), low.1.min(point.1));
            high = (high.0.max(point.0), high.1.max(point.1));
        }
        let middle = SIDE as f32 / 2.0;
        let room = middle - 1.5 - radius;
        let half = ((high.0 - low.0) / 2.0, (high.1 - low.1) / 2.0);
        let scale = (room / half.0.max(half.1)).min(1.0);
        let place = |v: f32, low: f32, high: f32, half: f32, shift: f32| {
            let slack = (room - scale * half).max(0.0);
            middle + scale * (v - (low + high) / 2.0) + shift.clamp(-slack, slack)
        };
        for point in paths.iter_mut().flatten() {
            point.0 = place(point.0, low.0, high.0, half.0, self.shift.0);
            point.1 = place(point.1, low.1, high.1, half.1, self.shift.1);
        }
    }
}

fn uniform(rng: &mut Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.uniform() as f32
}

/// A Normal draw, cut at two standard deviations: no digit is distorted beyond reading.
fn normal(rng: &mut Rng) -> f32 {
    (rng.normal() as f32).clamp(-2.0, 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(glyphs: &Glyphs, index: usize) -> Vec<u8> {
        let mut pixels = vec![0; SIDE * SIDE];
        assert_eq!(glyphs.read(index, &mut pixels).unwrap(), Some((index % 10) as u32));
        pixels
    }

    #[test]
    fn an_item_depends_on_seed_split_and_index_alone() {
        let train = Glyphs::new(1, Split::Train, 100);
        let first = image(&train, 7);
        image(&train, 8);
        assert_eq!(first, image(&train, 7));
        assert_eq!(first, image(&Glyphs::new(1, Split::Train, 8), 7));
        for other in [
            image(&train, 17),
            image(&Glyphs::new(1, Split::Val, 100), 7),
            image(&Glyphs::new(1, Split::Test, 100), 7),
            image(&Glyphs::new(2, Split::Train, 100), 7),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn every_glyph_has_ink_and_keeps_off_the_border() {
        let glyphs = Glyphs::new(0, Split::Train, 2000);
        for i in 0..glyphs.len() {
            let pixels = image(&glyphs, i);
            let ink = pixels.iter().filter(|p| **p > 127).count();
            assert!((25..300).contains(&ink), "item {i}: {ink}");
            let border = |k: usize| [pixels[k], pixels[27 * SIDE + k], pixels[k * SIDE], pixels[k * SIDE + 27]];
            assert!((0..SIDE).flat_map(border).all(|p| p == 0), "item {i} touches the border");
        }
    }

    #[test]
    fn an_index_beyond_the_end_is_an_error() {
        assert!(Glyphs::new(0, Split::Test, 3).read(3, &mut [0; SIDE * SIDE]).is_err());
        assert!(Glyphs::new(0, Split::Test, 3).read(0, &mut [0; 10]).is_err());
    }
}
