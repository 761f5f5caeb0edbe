//! The buffer that edits draw on: RGB8, row-major, sides counted in `usize`.

use crate::EditError;
use imaging::Poll;
use imaging::{Filter, Image, buffers};

/// No side of an edited picture is shorter, in pixels.
pub const MIN_SIDE: u32 = 24;

/// Pixels worked on between two polls.
const POLL_PIXELS: usize = 1 << 18;

/// A mutable picture. Both sides are at least 1.
pub(super) struct Canvas<'p> {
    pub(super) width: usize,
    pub(super) height: usize,
    /// `3 * width * height` bytes.
    pub(super) pixels: Vec<u8>,
    /// Whether the caller still wants the result.
    pub(super) poll: &'p Poll<'p>,
}

impl<'p> Canvas<'p> {
    pub(super) fn from_image(image: &Image, poll: &'p Poll<'p>) -> Result<Self, EditError> {
        Ok(Self {
            width: image.width() as usize,
            height: image.height() as usize,
            pixels: buffers::copy(image.pixels())?,
            poll,
        })
    }

    /// This size, this poll, other pixels.
    pub(super) fn with_pixels(&self, pixels: Vec<u8>) -> Self {
        Self {
            pixels,
            width: self.width,
            height: self.height,
            poll: self.poll,
        }
    }

    /// Whether work on row `y` is in vain: asked every so many pixels. Whoever is told so leaves the picture as it is;
    /// the edit ends with [`imaging::ImageError::Cancelled`].
    pub(super) fn stops_at(&self, y: usize) -> bool {
        y.is_multiple_of((POLL_PIXELS / self.width).max(1)) && self.poll.stopped()
    }

    pub(super) fn into_image(self) -> Result<Image, EditError> {
        Ok(Image::new(self.width as u32, self.height as u32, self.pixels)?)
    }

    /// One colour everywhere. Sides of 0 become 1.
    pub(super) fn filled(width: usize, height: usize, colour: [u8; 3], poll: &'p Poll<'p>) -> Result<Self, EditError> {
        let (width, height) = (width.max(1), height.max(1));
        let mut canvas = Self {
            width,
            height,
            pixels: buffers::zeroed(3 * width * height)?,
            poll,
        };
        if colour != [0; 3] {
            for y in 0..height {
                if canvas.stops_at(y) {
                    break;
                }
                canvas.row_mut(y).as_chunks_mut::<3>().0.fill(colour);
            }
        }
        Ok(canvas)
    }

    pub(super) fn area(&self) -> u64 {
        self.width as u64 * self.height as u64
    }

    pub(super) fn short_side(&self) -> usize {
        self.width.min(self.height)
    }

    pub(super) fn row(&self, y: usize) -> &[u8] {
        &self.pixels[3 * self.width * y..3 * self.width * (y + 1)]
    }

    pub(super) fn row_mut(&mut self, y: usize) -> &mut [u8] {
        &mut self.pixels[3 * self.width * y..3 * self.width * (y + 1)]
    }

    /// The pixel at (x, y), or at the nearest place inside.
    pub(super) fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let start = 3 * (y.min(self.height - 1) * self.width + x.min(self.width - 1));
        [self.pixels[start], self.pixels[start + 1], self.pixels[start + 2]]
    }

    /// Antialiased resize; sides are brought to at least [`MIN_SIDE`].
    pub(super) fn resized(&self, width: f64, height: f64) -> Result<Self, EditError> {
        let side = |length: f64| (length.round().max(0.0) as u32).max(MIN_SIDE);
        self.resized_exactly(side(width), side(height))
    }

    /// As [`Canvas::resized`], for parts that may be smaller than [`MIN_SIDE`]: sides are brought to at least 1.
    pub(super) fn resized_exactly(&self, width: u32, height: u32) -> Result<Self, EditError> {
        let (width, height) = (width.max(1), height.max(1));
        if (width as usize, height as usize) == (self.width, self.height) {
            return Ok(self.with_pixels(buffers::copy(&self.pixels)?));
        }
        let source = (&self.pixels[..], self.width, self.height);
        Ok(Self {
            width: width as usize,
            height: height as usize,
            pixels: imaging::resize_pixels(source, width, height, Filter::Bicubic, self.poll)?,
            poll: self.poll,
        })
    }

    /// Copies `other` with its top left corner at (left, top); what lies outside is left out.
    pub(super) fn place(&mut self, other: &Canvas<'_>, left: usize, top: usize) {
        let columns = other.width.min(self.width.saturating_sub(left));
        for y in 0..other.height.min(self.height.saturating_sub(top)) {
            if self.stops_at(y) {
                return;
            }
            let target = 3 * ((top + y) * self.width + left);
            self.pixels[target..target + 3 * columns].copy_from_slice(&other.row(y)[..3 * columns]);
        }
    }

    /// The mean of each channel, rounded down.
    pub(super) fn mean_colour(&self) -> [u8; 3] {
        let mut sums = [0_u64; 3];
        for y in 0..self.height {
            if self.stops_at(y) {
                break;
            }
            for pixel in self.row(y).chunks_exact(3) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += u64::from(value);
                }
            }
        }
        sums.map(|sum| (sum / self.area()) as u8)
    }

    /// Mixes `colour` into the pixel that starts at byte `start`, `coverage` in 1/255.
    pub(super) fn mix(&mut self, start: usize, colour: [u8; 3], coverage: u32) {
        for (value, new) in self.pixels[start..start + 3].iter_mut().zip(colour) {
            *value = mixed(*value, new, coverage);
        }
    }
}

/// (1 − coverage/255)·old + coverage/255·new, rounded to nearest.
pub(super) fn mixed(old: u8, new: u8, coverage: u32) -> u8 {
    ((u32::from(old) * (255 - coverage) + u32::from(new) * coverage + 127) / 255) as u8
}

/// Luma of ITU-R BT.601 in 16-bit fixed point, the weights of Pillow's `convert("L")`.
pub(super) fn luma(red: u8, green: u8, blue: u8) -> u8 {
    ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
}
