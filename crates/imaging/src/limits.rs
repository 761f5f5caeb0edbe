//! What a caller allows a picture to cost.

use crate::{Format, ImageError};

/// What a picture may cost, checked before anything of its size is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest encoded size, in bytes. Default 64 MiB.
    pub max_bytes: u64,
    /// Largest width × height that a header may claim, in pixels. Default 250 million.
    pub max_pixels: u64,
    /// Most memory that decoding may hold at any moment, in bytes: the codec's own buffers, the pixels, and the second
    /// buffer of a rotation. The encoded bytes themselves are the caller's and not counted. Default 512 MiB.
    pub max_memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_pixels: 250_000_000,
            max_memory: 512 << 20,
        }
    }
}

impl Limits {
    pub(crate) fn check_bytes(&self, bytes: &[u8]) -> Result<(), ImageError> {
        match bytes.len() as u64 {
            0 => Err(ImageError::Empty),
            found if found > self.max_bytes => Err(ImageError::TooManyBytes {
                found,
                limit: self.max_bytes,
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_pixels(&self, width: u32, height: u32) -> Result<(), ImageError> {
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(ImageError::TooManyPixels {
                width,
                height,
                limit: self.max_pixels,
            });
        }
        Ok(())
    }

    pub(crate) fn check_memory(&self, format: Format, width: u32, height: u32, needed: u64) -> Result<(), ImageError> {
        if needed > self.max_memory {
            return Err(ImageError::TooMuchMemory {
                format,
                width,
                height,
                needed,
                limit: self.max_memory,
            });
        }
        Ok(())
    }
}
