//! Pixels to bytes: what the edits, the demo and the tests write.

use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use crate::{Format, Image, ImageError};

/// Writes a baseline JPEG (4:2:0, or 4:4:4 as the encoder chooses) with `quality` from 1 (worst) to 100; other values
/// are moved to the nearer end.
///
/// # Errors
/// [`ImageError::Encode`] when a side is longer than 65,535 pixels.
pub fn encode_jpeg(image: &Image, quality: u8) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100))
        .write_image(image.pixels(), image.width(), image.height(), ExtendedColorType::Rgb8)
        .map_err(|error| ImageError::Encode {
            format: Format::Jpeg,
            reason: error.to_string(),
        })?;
    Ok(bytes)
}

/// Writes an 8-bit RGB PNG, lossless.
///
/// # Errors
/// [`ImageError::Encode`] when the encoder refuses the size.
pub fn encode_png(image: &Image) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(image.pixels(), image.width(), image.height(), ExtendedColorType::Rgb8)
        .map_err(|error| ImageError::Encode {
            format: Format::Png,
            reason: error.to_string(),
        })?;
    Ok(bytes)
}

/// Writes a grey picture, one byte a pixel, row by row, as a baseline JPEG with `quality` from 1 to 100.
///
/// # Errors
/// [`ImageError::Encode`] where the bytes are not `width × height`, or a side is longer than 65,535 pixels.
pub fn encode_grey_jpeg(width: u32, height: u32, pixels: &[u8], quality: u8) -> Result<Vec<u8>, ImageError> {
    let refused = |reason: String| ImageError::Encode {
        format: Format::Jpeg,
        reason,
    };
    if pixels.len() as u64 != u64::from(width) * u64::from(height) {
        return Err(refused(format!("{} bytes are not {width} × {height}", pixels.len())));
    }
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100))
        .write_image(pixels, width, height, ExtendedColorType::L8)
        .map_err(|error| refused(error.to_string()))?;
    Ok(bytes)
}
