//! Strokes to pixels.

use super::SIDE;
use super::shapes::Point;

/// Straight pieces in each span of a curve.
const PIECES: usize = 6;

/// A grey picture in [0, 1] that pens of a round tip are drawn on.
pub(super) struct Canvas([f32; SIDE * SIDE]);

impl Canvas {
    /// All black.
    pub(super) fn new() -> Self {
        Self([0.0; SIDE * SIDE])
    }

    /// Draw a path in pixel coordinates with a pen of this radius; edges fall off over one pixel.
    pub(super) fn draw(&mut self, path: &[Point], radius: f32) {
        for piece in path.windows(2) {
            if let [from, to] = *piece {
                self.draw_piece(from, to, radius);
            }
        }
    }

    fn draw_piece(&mut self, from: Point, to: Point, radius: f32) {
        let reach = radius + 0.5;
        let (columns, rows) = (reached(from.0, to.0, reach), reached(from.1, to.1, reach));
        let direction = (to.0 - from.0, to.1 - from.1);
        let scale = 1.0 / (direction.0 * direction.0 + direction.1 * direction.1).max(1e-12);
        for row in rows {
            for column in columns.clone() {
                // Pixel centres lie at half-integers.
                let offset = (column as f32 + 0.5 - from.0, row as f32 + 0.5 - from.1);
                let along = ((offset.0 * direction.0 + offset.1 * direction.1) * scale).clamp(0.0, 1.0);
                let (dx, dy) = (offset.0 - along * direction.0, offset.1 - along * direction.1);
                let ink = (reach - (dx * dx + dy * dy).sqrt()).clamp(0.0, 1.0);
                let pixel = &mut self.0[row * SIDE + column];
                *pixel = pixel.max(ink);
            }
        }
    }

    /// Write the picture as bytes.
    pub(super) fn write(&self, pixels: &mut [u8]) {
        for (byte, ink) in pixels.iter_mut().zip(&self.0) {
            *byte = (ink * 255.0).round() as u8;
        }
    }
}

/// The pixels of one axis that lie within `reach` of the interval between `a` and `b`.
fn reached(a: f32, b: f32, reach: f32) -> std::ops::Range<usize> {
    let edge = |v: f32| v.clamp(0.0, SIDE as f32) as usize;
    edge((a.min(b) - reach).floor())..edge((a.max(b) + reach).ceil())
}

/// Straight pieces along the Catmull-Rom curve through `points`, which is closed if the last is the first.
pub(super) fn smooth(points: &[Point]) -> Vec<Point> {
    let n = points.len();
    let closed = n > 2 && points.first() == points.last();
    let at = |i: isize| {
        let last = n as isize - 1;
        let i = match (closed, i) {
            (true, i) if i < 0 => i + last,
            (true, i) if i > last => i - last,
            (_, i) => i.clamp(0, last),
        };
        points[i as usize]
    };
    let mut path = Vec::with_capacity(n * PIECES + 1);
    for i in 0..n as isize - 1 {
        let (before, from, to, after) = (at(i - 1), at(i), at(i + 1), at(i + 2));
        for piece in 0..PIECES {
            let t = piece as f32 / PIECES as f32;
            let blend = |p: f32, a: f32, b: f32, q: f32| {
                a + 0.5 * t * ((b - p) + t * ((2.0 * p - 5.0 * a + 4.0 * b - q) + t * (3.0 * (a - b) + q - p)))
            };
            path.push((blend(before.0, from.0, to.0, after.0), blend(before.1, from.1, to.1, after.1)));
        }
    }
    path.extend(points.last());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ink_covers_the_area_of_the_pen() {
        let mut canvas = Canvas::new();
        canvas.draw(&[(6.0, 14.0), (22.0, 14.0)], 2.0);
        // A rectangle of 16 x 4 with half a disc of radius 2 at each end.
        let area = 16.0 * 4.0 + std::f32::consts::PI * 4.0;
        let ink: f32 = canvas.0.iter().sum();
        assert!((ink - area).abs() < 0.02 * area, "{ink} {area}");
    }

    #[test]
    fn a_closed_curve_through_a_circle_is_round() {
        let points: Vec<Point> =
            (0..=8).map(|i| (i % 8) as f32 * std::f32::consts::FRAC_PI_4).map(|a| (a.cos(), a.sin())).collect();
        for (x, y) in smooth(&points) {
            assert!((x.hypot(y) - 1.0).abs() < 0.02, "{x} {y}");
        }
    }

    #[test]
    fn drawing_outside_is_cut() {
        let mut canvas = Canvas::new();
        canvas.draw(&[(-50.0, -50.0), (80.0, 90.0), (f32::MAX, 0.0)], 3.0);
        assert!(canvas.0.iter().all(|p| (0.0..=1.0).contains(p)));
    }
}
