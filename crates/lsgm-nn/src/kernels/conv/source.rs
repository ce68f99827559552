//! Zero-padded planes of several images, and where the taps of a kernel lie in them.

use crate::kernels::Float;

/// What a padded plane holds along one axis: zeros before `left`, then `count` elements of the image, `step` apart from
/// `start` on, then zeros.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content {
    pub(crate) left: usize,
    pub(crate) start: usize,
    pub(crate) count: usize,
    pub(crate) step: usize,
}

/// The layout of padded planes.
///
/// A channel has one or more planes, each with the images of a task below one another. Position `(image, y, x)` of a
/// grid lies at `image · image_size + y · pitch + x`, and a tap adds a constant to that. The zeros at the end of a row
/// are those at the start of the next, and the same for images, where there is one plane only.
#[derive(Debug, Clone)]
pub(crate) struct Planes {
    contents: Vec<(Content, Content)>,
    taps: Vec<(usize, (usize, usize))>,
    image: (usize, usize),
    rows: usize,
    pub(crate) pitch: usize,
    /// The farthest that a tap lies from its position.
    reach: usize,
}

impl Planes {
    /// Planes of images of size `image`, for positions in a grid of `grid` rows and columns; each tap is a plane with a
    /// distance in rows and columns.
    pub(crate) fn new(
        contents: Vec<(Content, Content)>,
        taps: Vec<(usize, (usize, usize))>,
        grid: (usize, usize),
        image: (usize, usize),
    ) -> Self {
        let extent = |axis: fn(&(Content, Content)) -> Content, grid: usize, distance: usize| {
            let held = contents.iter().map(|c| axis(c).left + axis(c).count).max().unwrap_or(0);
            let shared = if let [only] = contents.as_slice() { axis(only).left } else { 0 };
            held.max((grid + distance).saturating_sub(shared)).max(grid)
        };
        let far = |axis: fn(&(usize, usize)) -> usize| taps.iter().map(|(_, t)| axis(t)).max().unwrap_or(0);
        let (rows, pitch) = (extent(|c| c.0, grid.0, far(|t| t.0)), extent(|c| c.1, grid.1, far(|t| t.1)));
        let reach = far(|t| t.0) * pitch + far(|t| t.1);
        Self { contents, taps, image, rows, pitch, reach }
    }

    /// Whether the planes of one image are what that image's channels are already: one tap, and no padding.
    pub(crate) fn are_the_input(&self) -> bool {
        let whole = |c: &Content, size: usize| (c.left, c.start, c.count, c.step) == (0, 0, size, 1);
        let [(rows, columns)] = self.contents.as_slice() else { return false };
        whole(rows, self.image.0)
            && whole(columns, self.image.1)
            && (self.rows, self.pitch, self.reach) == (self.image.0, self.image.1, 0)
    }

    /// Elements of one channel of one image.
    pub(crate) fn input_size(&self) -> usize {
        self.image.0 * self.image.1
    }

    /// Elements from one image to the next in a plane.
    pub(crate) fn image_size(&self) -> usize {
        self.rows * self.pitch
    }

    /// Elements of one plane of `images` images.
    fn plane(&self, images: usize) -> usize {
        images * self.image_size()
    }

    /// Elements of one channel of `images` images.
    pub(crate) fn channel(&self, images: usize) -> usize {
        self.contents.len() * self.plane(images)
    }

    /// Where `tap` of `channel` lies relative to a position.
    pub(crate) fn offset(&self, images: usize, channel: usize, tap: usize) -> usize {
        let (plane, (y, x)) = self.taps[tap];
        channel * self.channel(images) + plane * self.plane(images) + y * self.pitch + x
    }

    /// Elements of `channels` channels, with room for reads of `beyond` elements from any position on.
    pub(crate) fn len(&self, images: usize, channels: usize, beyond: usize) -> usize {
        channels * self.channel(images) + self.reach + beyond
    }

    /// Copy `channels` channels of each of `images` images into `planes`. Every call with the same numbers writes the
    /// same places, so that a zeroed buffer keeps its zeros.
    pub(crate) fn fill<'a, T: Float>(
        &self,
        planes: &mut [T],
        images: usize,
        channels: usize,
        channel_of: impl Fn(usize, usize) -> &'a [T],
    ) {
        for channel in 0..channels {
            for (p, (rows, columns)) in self.contents.iter().enumerate() {
                for image in 0..images {
                    let from = channel_of(image, channel);
                    let to = channel * self.channel(images) + p * self.plane(images) + image * self.image_size();
                    self.fill_plane(&mut planes[to..], from, rows, columns);
                }
            }
        }
    }

    fn fill_plane<T: Float>(&self, to: &mut [T], from: &[T], rows: &Content, columns: &Content) {
        let width = self.image.1;
        for i in 0..rows.count {
            let from = &from[(rows.start + i * rows.step) * width..][..width];
            let to = &mut to[(rows.left + i) * self.pitch + columns.left..][..columns.count];
            if columns.count == 0 {
                continue;
            }
            let from = &from[columns.start..];
            match columns.step {
                1 => to.copy_from_slice(&from[..columns.count]),
                2 => every_second(from, to),
                step => to.iter_mut().zip(from.iter().step_by(step)).for_each(|(t, f)| *t = *f),
            }
        }
    }
}

/// The planes of a few images, group by group: where the images already lie as they should, or copies of them.
pub(crate) struct GroupPlanes<'a, T> {
    planes: &'a Planes,
    images: usize,
    groups: usize,
    /// Channels of a group.
    channels: usize,
    x: &'a [T],
    /// Elements of the planes of a group.
    len: usize,
    /// Room for those of one group, where they are copies.
    copied: Option<Vec<T>>,
}

impl<'a, T: Float> GroupPlanes<'a, T> {
    /// The planes of the first `images` images of `x: [.., groups · channels, ..]`, with room for reads of `beyond` elements
    /// from any position on.
    pub(crate) fn new(
        planes: &'a Planes,
        x: &'a [T],
        images: usize,
        groups: usize,
        channels: usize,
        beyond: usize,
    ) -> Self {
        let len = planes.len(images, channels, beyond);
        let last = (groups - 1) * channels * planes.input_size();
        let in_place = images == 1 && planes.are_the_input() && last + len <= x.len();
        let copied = (!in_place).then(|| vec![T::ZERO; len]);
        Self { planes, images, groups, channels, x, len, copied }
    }

    /// Those of `group`.
    pub(crate) fn of(&mut self, group: usize) -> &[T] {
        let (x, channels, plane) = (self.x, self.channels, self.planes.input_size());
        let Some(copied) = &mut self.copied else { return &x[group * channels * plane..][..self.len] };
        self.planes.fill(copied, self.images, channels, |image, channel| {
            &x[((image * self.groups + group) * channels + channel) * plane..][..plane]
        });
        copied
    }
}

/// The elements 0, 2, 4, .. of `from`, in a form that vectorises.
fn every_second<T: Float>(from: &[T], to: &mut [T]) {
    let (pairs, rest) = from.as_chunks::<2>();
    let (whole, last) = to.split_at_mut(pairs.len().min(to.len()));
    for (t, pair) in whole.iter_mut().zip(pairs) {
        *t = pair[0];
    }
    for (t, f) in last.iter_mut().zip(rest) {
        *t = *f;
    }
}
