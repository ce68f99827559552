use serde::{Deserialize, Serialize};

use crate::{DataError, Result};

/// Channels, height and width of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSize {
    /// 1 for grey, 3 for colour.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageSize {
    /// A grey image.
    pub fn grey(height: usize, width: usize) -> Self {
        Self { channels: 1, height, width }
    }

    /// Number of bytes of one image.
    pub fn bytes(&self) -> usize {
        self.channels * self.height * self.width
    }
}

impl std::fmt::Display for ImageSize {
    /// Height x width, as a person writes it; channels when there are several.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.height, self.width)?;
        if self.channels == 1 { Ok(()) } else { write!(f, " with {} channels", self.channels) }
    }
}

/// Indexed 8-bit images of one size, wherever they come from: memory, a generator, a folder.
///
/// ```
/// use lsgm_data::{ImageSize, Images, Result};
///
/// /// Image `i` is all of brightness `i`.
/// struct Greys;
///
/// impl Images for Greys {
///     fn len(&self) -> usize {
///         256
///     }
///
///     fn size(&self) -> ImageSize {
///         ImageSize::grey(8, 8)
///     }
///
///     fn read(&self, index: usize, pixels: &mut [u8]) -> Result<Option<u32>> {
///         pixels.fill(index as u8);
///         Ok(None)
///     }
/// }
///
/// let mut pixels = vec![0; Greys.size().bytes()];
/// Greys.read(7, &mut pixels).unwrap();
/// assert!(pixels.iter().all(|p| *p == 7));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of images",
    note = "implement `len`, `size` and `read` of `lsgm_data::Images` for it"
)]
pub trait Images: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size that all of them have.
    fn size(&self) -> ImageSize;

    /// Write image `index` to `pixels` (channels first: `[C, H, W]`, [`ImageSize::bytes`] of them) and return its
    /// label.
    ///
    /// # Errors
    /// When `index` is out of range, `pixels` has another length, or a lazily read file cannot be used.
    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<Option<u32>>;
}

/// Images in memory, channels first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSet {
    size: ImageSize,
    pixels: Vec<u8>,
    labels: Option<Vec<u32>>,
}

impl ImageSet {
    /// A set from `[N, C, H, W]` pixels and `[N]` labels.
    ///
    /// # Errors
    /// When the numbers of pixels and labels do not fit the size.
    pub fn new(size: ImageSize, pixels: Vec<u8>, labels: Option<Vec<u32>>) -> Result<Self> {
        let bytes = size.bytes();
        let items = pixels.len().checked_div(bytes).unwrap_or(0);
        if items * bytes != pixels.len() {
            let message = format!("{} bytes are not a whole number of {size} images", pixels.len());
            return Err(DataError::Contract(message));
        }
        if let Some(labels) = labels.as_ref().filter(|l| l.len() != items) {
            let message = format!("{items} images but {} labels", labels.len());
            return Err(DataError::Contract(message));
        }
        Ok(Self { size, pixels, labels })
    }

    /// All pixels, `[N, C, H, W]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Image `index`, `[C, H, W]`.
    pub fn image(&self, index: usize) -> Option<&[u8]> {
        let start = index.checked_mul(self.size.bytes())?;
        self.pixels.get(start..start + self.size.bytes()).filter(|p| !p.is_empty())
    }

    /// Labels, where the source has them.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// Size, pixels and labels.
    pub(crate) fn into_parts(self) -> (ImageSize, Vec<u8>, Option<Vec<u32>>) {
        (self.size, self.pixels, self.labels)
    }

    /// Keep the images in `range` (cut to what there is).
    pub(crate) fn keep(&mut self, range: std::ops::Range<usize>) {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        let bytes = self.size.bytes();
        self.pixels.truncate(end * bytes);
        self.pixels.drain(..start * bytes);
        if let Some(labels) = &mut self.labels {
            labels.truncate(end);
            labels.drain(..start);
        }
    }

    /// White to black and back.
    pub(crate) fn invert(&mut self) {
        self.pixels.iter_mut().for_each(|p| *p = 255 - *p);
    }
}

impl Images for ImageSet {
    fn len(&self) -> usize {
        self.pixels.len().checked_div(self.size.bytes()).unwrap_or(0)
    }

    fn size(&self) -> ImageSize {
        self.size
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<Option<u32>> {
        let image = self.image(index).filter(|i| i.len() == pixels.len()).ok_or_else(|| out_of_range(index, self))?;
        pixels.copy_from_slice(image);
        Ok(self.labels.as_ref().and_then(|l| l.get(index)).copied())
    }
}

/// The error for an index or a buffer that does not fit `images`.
pub(crate) fn out_of_range(index: usize, images: &dyn Images) -> DataError {
    DataError::Contract(format!("image {index} of {} images of {} was asked for", images.len(), images.size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> ImageSet {
        ImageSet::new(ImageSize::grey(1, 2), vec![1, 2, 3, 4, 5, 6], Some(vec![7, 8, 9])).unwrap()
    }

    #[test]
    fn images_and_labels_stay_together() {
        let mut set = three();
        set.keep(1..9);
        assert_eq!((set.len(), set.pixels(), set.labels()), (2, &[3u8, 4, 5, 6][..], Some(&[8u32, 9][..])));
        let mut pixels = [0; 2];
        assert_eq!(set.read(1, &mut pixels).unwrap(), Some(9));
        assert_eq!(pixels, [5, 6]);
        assert!(set.read(2, &mut pixels).is_err());
        set.keep(5..9);
        assert!(set.is_empty());
    }

    #[test]
    fn counts_are_checked() {
        assert!(ImageSet::new(ImageSize::grey(1, 2), vec![0; 5], None).is_err());
        assert!(ImageSet::new(ImageSize::grey(1, 2), vec![0; 4], Some(vec![0])).is_err());
        assert!(ImageSet::new(ImageSize::grey(0, 2), vec![0; 4], None).is_err());
        assert!(ImageSet::new(ImageSize::grey(0, 2), vec![], None).unwrap().is_empty());
    }
}
