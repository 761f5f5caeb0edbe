//! What a picture says about itself before it is decoded: size, orientation, frames, and an upper bound of the memory
//! that decoding it takes. Headers are walked over the bytes in place: nothing is allocated, nothing decompressed, and
//! the time is bounded by the number of bytes (each step of each walk moves forward).

pub(crate) mod bmp;
mod fields;
mod gif;
mod jpeg;
mod png;
mod prefix_codes;
pub(crate) mod tiff;
mod webp;

pub(crate) use fields::Fields;
pub(crate) use jpeg::{MAX_SCANS, too_many_scans};
pub(crate) use webp::{MOST_CODES as MOST_PREFIX_CODES, code_memory};

use crate::{Format, ImageError, Limits};

/// What [`inspect`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// The format.
    pub format: Format,
    /// Width in pixels as shown, after the orientation is applied.
    pub width: u32,
    /// Height in pixels as shown, after the orientation is applied.
    pub height: u32,
    /// EXIF orientation, 1 to 8; 1 where there is none.
    pub orientation: u8,
    /// Frames of a GIF, WebP or APNG animation, pages of a TIFF; else 1. One is decoded: the first page, and of an
    /// animation the first frame unless it shows markedly less than a later one.
    pub frames: u32,
    /// Bits of a colour channel (of a palette's entries: 8).
    pub bits_per_channel: u8,
    /// Whether pixels may be transparent.
    pub has_alpha: bool,
    /// The colour model as stored: `grey`, `RGB`, `palette`, `YCbCr`, `CMYK` or `YCCK`.
    pub colour: &'static str,
    /// Upper bound, in bytes, of the memory that [`crate::decode`] at full size holds at any moment: what
    /// [`Limits::max_memory`] is compared with.
    pub decode_memory: u64,
}

/// Reads the header only. [`Limits::max_bytes`] holds; `max_pixels` and `max_memory` do not, since nothing of that size
/// is allocated and the answer says why [`crate::decode`] would refuse.
///
/// # Errors
/// As [`crate::decode`], as far as the header can tell.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<ImageInfo, ImageError> {
    limits.check_bytes(bytes)?;
    let header = Header::read(bytes)?;
    let (width, height) = if header.is_transposed() {
        (header.height, header.width)
    } else {
        (header.width, header.height)
    };
    Ok(ImageInfo {
        format: header.format,
        width,
        height,
        orientation: header.orientation,
        frames: header.frames,
        bits_per_channel: header.bits_per_channel,
        has_alpha: header.has_alpha,
        colour: header.colour,
        decode_memory: header.memory_with_animation(),
    })
}

/// Small allocations of codecs (tables, row buffers of narrow pictures) that no formula below lists one by one.
pub(crate) const FIXED_BYTES: u64 = 1 << 20;

/// The header as stored, before orientation.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub format: Format,
    pub width: u32,
    pub height: u32,
    pub orientation: u8,
    pub frames: u32,
    pub bits_per_channel: u8,
    pub has_alpha: bool,
    pub colour: &'static str,
    /// Most bytes held while the codec runs, the pixels it gives included.
    pub codec_bytes: u64,
    /// Most bytes held while those pixels become RGB; 0 where that happens in place.
    pub conversion_bytes: u64,
    /// Pixels of the largest frame that is read: of a GIF, whose frames have sizes of their own.
    pub frame_pixels: u64,
    /// Most bytes held beside when the frames of an animation are compared; 0 for a still picture.
    pub animation_bytes: u64,
    /// Whether nothing about a JPEG is unusual: a quick decoder may have it.
    pub is_ordinary: bool,
}

/// Pixels, capped where no memory could hold them, so that no formula over them overflows.
fn area(width: u32, height: u32) -> u64 {
    (u64::from(width) * u64::from(height)).min(1 << 48)
}

impl Header {
    /// A still picture without alpha, whose memory is not known yet.
    fn new(format: Format, width: u32, height: u32) -> Self {
        Self {
            format,
            width,
            height,
            orientation: 1,
            frames: 1,
            bits_per_channel: 8,
            has_alpha: false,
            colour: "RGB",
            codec_bytes: 0,
            conversion_bytes: 0,
            frame_pixels: 0,
            animation_bytes: 0,
            is_ordinary: true,
        }
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        let format = Format::of(bytes)?;
        let header = match format {
            Format::Jpeg => jpeg::read(bytes),
            Format::Png => png::read(bytes),
            Format::WebP => webp::read(bytes),
            Format::Gif => gif::read(bytes),
            Format::Bmp => bmp::read(bytes),
            Format::Tiff => tiff::read(bytes),
        }?;
        if header.width == 0 || header.height == 0 {
            return Err(ImageError::corrupt(
                format,
                format!("its header gives a size of {}x{} pixels", header.width, header.height),
            ));
        }
        Ok(header)
    }

    pub(crate) fn pixels(&self) -> u64 {
        area(self.width, self.height)
    }

    /// Orientations 5 to 8 swap rows and columns.
    pub(crate) fn is_transposed(&self) -> bool {
        self.orientation >= 5
    }

    /// Upper bound of the memory held at once by a full-size decode of the first frame.
    pub(crate) fn memory(&self) -> u64 {
        // A transposition needs a second buffer; flips and half turns happen in place.
        let rotation = if self.is_transposed() { 6 * self.pixels() } else { 0 };
        let most = self.codec_bytes.max(self.conversion_bytes).max(rotation);
        most.saturating_add(FIXED_BYTES)
    }

    /// The same where frames are compared.
    pub(crate) fn memory_with_animation(&self) -> u64 {
        if self.animation_bytes == 0 {
            return self.memory();
        }
        // What measures the structure of a frame shrinks it to 64 columns first.
        let measured = 64 * 3 * u64::from(self.height);
        self.memory()
            .saturating_add(self.animation_bytes)
            .saturating_add(measured)
    }
}
