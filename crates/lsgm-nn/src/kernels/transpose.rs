//! Planes of channels to channels next to each other, and back.

use super::Float;

/// Side of the squares that are transposed in registers.
const SIDE: usize = 4;

/// `to[places[p] + lane] = planes[lane · plane + p]` for every position `p` and every plane (at most `lanes`); lanes
/// without a plane become zero.
#[inline(always)]
pub(crate) fn interleave<T: Float>(planes: &[T], plane: usize, places: &[usize], lanes: usize, to: &mut [T]) {
    let whole = plane / SIDE * SIDE;
    let count = planes.len() / plane;
    let squares = count / SIDE * SIDE;
    for lane in (0..squares).step_by(SIDE) {
        for p in (0..whole).step_by(SIDE) {
            let mut square = [[T::ZERO; SIDE]; SIDE];
            for (i, row) in square.iter_mut().enumerate() {
                row.copy_from_slice(&planes[(lane + i) * plane + p..][..SIDE]);
            }
            let square = transposed(square);
            for (row, place) in square.iter().zip(&places[p..p + SIDE]) {
                to[place + lane..][..SIDE].copy_from_slice(row);
            }
        }
        for p in whole..plane {
            for i in lane..lane + SIDE {
                to[places[p] + i] = planes[i * plane + p];
            }
        }
    }
    for lane in squares..lanes {
        for (p, place) in places.iter().enumerate() {
            to[place + lane] = if lane < count { planes[lane * plane + p] } else { T::ZERO };
        }
    }
}

/// `planes[lane · plane + p] = from[places[p] + lane] + bias(lane)`, the other way round.
#[inline(always)]
pub(crate) fn deinterleave<T: Float>(from: &[T], places: &[usize], plane: usize, bias: &[T], planes: &mut [T]) {
    let whole = plane / SIDE * SIDE;
    let count = planes.len() / plane;
    let squares = count / SIDE * SIDE;
    for lane in (0..squares).step_by(SIDE) {
        for p in (0..whole).step_by(SIDE) {
            let mut square = [[T::ZERO; SIDE]; SIDE];
            for (row, place) in square.iter_mut().zip(&places[p..p + SIDE]) {
                row.copy_from_slice(&from[place + lane..][..SIDE]);
            }
            let square = transposed(square);
            for (i, row) in square.iter().enumerate() {
                let to = &mut planes[(lane + i) * plane + p..][..SIDE];
                for (to, v) in to.iter_mut().zip(row) {
                    *to = *v + bias[lane + i];
                }
            }
        }
        for p in whole..plane {
            for i in lane..lane + SIDE {
                planes[i * plane + p] = from[places[p] + i] + bias[i];
            }
        }
    }
    for lane in squares..count {
        for (to, place) in planes[lane * plane..(lane + 1) * plane].iter_mut().zip(places) {
            *to = from[place + lane] + bias[lane];
        }
    }
}

#[inline(always)]
fn transposed<T: Float>(square: [[T; SIDE]; SIDE]) -> [[T; SIDE]; SIDE] {
    let mut result = [[T::ZERO; SIDE]; SIDE];
    for i in 0..SIDE {
        for j in 0..SIDE {
            result[j][i] = square[i][j];
        }
    }
    result
}
