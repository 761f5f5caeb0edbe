//! The picture that every other part of the crate takes and gives.

use crate::ImageError;

/// A picture: RGB, 8 bits a channel, row-major, `width × height × 3` bytes without padding. Neither side is zero.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Image {
    /// Takes over `pixels`, which must hold exactly `width × height × 3` bytes.
    ///
    /// # Errors
    /// [`ImageError::InvalidSize`] for a side of zero, [`ImageError::WrongLength`] when the bytes do not fit the size.
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self, ImageError> {
        if width == 0 || height == 0 {
            return Err(ImageError::InvalidSize { width, height });
        }
        let expected = (u64::from(width) * u64::from(height)).saturating_mul(3);
        if pixels.len() as u64 != expected {
            return Err(ImageError::WrongLength {
                width,
                height,
                expected,
                found: pixels.len() as u64,
            });
        }
        Ok(Self { width, height, pixels })
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// `width × height × 3` bytes, row by row from the top, each pixel red, green, blue.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Gives the buffer of [`Image::pixels`] away.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }
}

impl std::fmt::Debug for Image {
    /// The size only: a failed assertion must not print megabytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}x{})", self.width, self.height)
    }
}
