//! Pixels to bytes: what edits, the demo and the tests write.

use std::io::{self, Write};

use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use crate::poll::{POLL_BYTES, Poll};
use crate::{Format, Image, ImageError};

/// Writes a baseline JPEG (4:2:0, or 4:4:4 as the encoder chooses) with `quality` from 1 (worst) to 100; other values
/// are moved to the nearer end.
///
/// # Errors
/// [`ImageError::Encode`] when a side is longer than 65,535 pixels.
pub fn encode_jpeg(image: &Image, quality: u8) -> Result<Vec<u8>, ImageError> {
    encode_jpeg_until(image, quality, &Poll::new(&|| false))
}

/// As [`encode_jpeg`]; the poll is asked for every piece that is written.
///
/// # Errors
/// As [`encode_jpeg`]; [`ImageError::Cancelled`] once the poll says so.
pub fn encode_jpeg_until(image: &Image, quality: u8, poll: &Poll) -> Result<Vec<u8>, ImageError> {
    write(Format::Jpeg, poll, |sink| {
        JpegEncoder::new_with_quality(sink, quality.clamp(1, 100)).write_image(
            image.pixels(),
            image.width(),
            image.height(),
            ExtendedColorType::Rgb8,
        )
    })
}

/// Writes an 8-bit RGB PNG, lossless.
///
/// # Errors
/// [`ImageError::Encode`] when the encoder refuses the size.
pub fn encode_png(image: &Image) -> Result<Vec<u8>, ImageError> {
    write(Format::Png, &Poll::new(&|| false), |sink| {
        PngEncoder::new(sink).write_image(image.pixels(), image.width(), image.height(), ExtendedColorType::Rgb8)
    })
}

fn write(
    format: Format,
    poll: &Poll,
    encode: impl FnOnce(&mut Sink) -> image::ImageResult<()>,
) -> Result<Vec<u8>, ImageError> {
    let mut sink = Sink {
        bytes: Vec::new(),
        next_poll: 0,
        short_of: None,
        poll,
    };
    let outcome = encode(&mut sink);
    poll.check()?;
    if let Some(bytes) = sink.short_of {
        return Err(ImageError::OutOfMemory { bytes });
    }
    outcome.map_err(|error| ImageError::Encode {
        format,
        reason: error.to_string(),
    })?;
    Ok(sink.bytes)
}

/// Takes what an encoder writes, until the caller wants to stop or memory runs short.
struct Sink<'a> {
    bytes: Vec<u8>,
    next_poll: usize,
    short_of: Option<u64>,
    poll: &'a Poll<'a>,
}

impl Write for Sink<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        // Few bytes may stand for many pixels.
        if self.bytes.len() >= self.next_poll {
            if self.poll.stopped() {
                return Err(io::Error::other("cancelled"));
            }
            self.next_poll = self.bytes.len() + POLL_BYTES / 16;
        }
        if self.bytes.try_reserve(piece.len()).is_err() {
            self.short_of = Some((self.bytes.len() + piece.len()) as u64);
            return Err(io::Error::other("out of memory"));
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
