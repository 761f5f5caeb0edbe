//! Bytes to RGB pixels. The order is the promise: bytes, header, pixels and memory are checked, and only then is
//! anything of the picture's size allocated.

mod animation;
mod bmp;
mod gif;
mod jpeg;
mod matte;
mod png;
mod tiff;
mod vp8;
mod webp;

use std::cell::Cell;

use crate::header::Header;
use crate::poll::Poll;
use crate::{Format, Image, ImageError, Limits, orientation};

/// How to decode.
#[derive(Clone, Copy)]
pub struct DecodeOptions<'a> {
    /// What the picture may cost.
    pub limits: Limits,
    /// The caller will shrink the picture anyway and needs no side shorter than this: a JPEG may then be decoded at
    /// 1/4 or 1/8 of its size, as long as both sides stay at least this long; at 1/2 only where the full size would
    /// exceed the memory limit. `None` decodes at full size.
    pub min_side: Option<u32>,
    /// The colour under transparent pixels, red, green, blue.
    pub matte: [u8; 3],
    /// Polled about every 16 KiB of compressed bytes and between the stages; once it returns true the result is
    /// [`ImageError::Cancelled`].
    pub should_stop: &'a dyn Fn() -> bool,
}

impl Default for DecodeOptions<'_> {
    /// Default limits, full size, white matte, never stopped.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            min_side: None,
            matte: [255; 3],
            should_stop: &|| false,
        }
    }
}

impl std::fmt::Debug for DecodeOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecodeOptions")
            .field("limits", &self.limits)
            .field("min_side", &self.min_side)
            .field("matte", &self.matte)
            .finish_non_exhaustive()
    }
}

/// Decodes a picture to RGB, 8 bits a channel: turned as its EXIF or XMP orientation says (exactly once), transparent
/// pixels laid over the matte. Samples of 16 bits keep their upper 8, as Pillow's raw modes do (`RGB;16B`). Of an
/// animation, see [`decode_frame`].
///
/// Bytes after a complete picture are ignored. A picture that breaks off is refused as [`ImageError::Truncated`]
/// rather than given with a grey rest: half a picture stored today is a wrong match tomorrow.
///
/// # Errors
/// See [`ImageError`]; each limit is checked before the allocation it bounds.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Image, ImageError> {
    decode_frame(bytes, options).map(|(image, _)| image)
}

/// As [`decode`], with the number of the frame, from 1: the first one, unless it shows markedly less than a later one
/// (a blank first frame, a picture that fades in); then the frame with the most structure of the first 32, as far as
/// time and memory limits allow.
///
/// # Errors
/// As [`decode`].
pub fn decode_frame(bytes: &[u8], options: &DecodeOptions) -> Result<(Image, u32), ImageError> {
    options.limits.check_bytes(bytes)?;
    let header = Header::read(bytes)?;
    options.limits.check_pixels(header.width, header.height)?;
    // A JPEG that may be reduced is held to what that takes, by its own module.
    if header.format != Format::Jpeg || options.min_side.is_none() {
        options
            .limits
            .check_memory(header.format, header.width, header.height, header.memory())?;
    }
    let poll = Poll::new(options.should_stop);
    poll.check()?;
    let ran_out = Cell::new(false);
    let input = Input {
        bytes,
        header: &header,
        options,
        poll: &poll,
        ran_out: &ran_out,
    };
    let still = |image: Image| (image, 1);
    let (image, frame) = poll.contain(header.format, || match header.format {
        Format::Jpeg => jpeg::decode(&input).map(still),
        Format::Png => png::decode(&input),
        Format::WebP => webp::decode(&input),
        Format::Gif => gif::decode(&input),
        Format::Bmp => bmp::decode(&input).map(still),
        Format::Tiff => tiff::decode(&input).map(still),
    })?;
    poll.check()?;
    Ok((orientation::apply(image, header.orientation, &poll)?, frame))
}

/// What every codec's module works on.
struct Input<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    options: &'a DecodeOptions<'a>,
    poll: &'a Poll<'a>,
    /// Set when a codec asks for bytes beyond the end: what tells a truncated picture from a corrupt one.
    ran_out: &'a Cell<bool>,
}

impl Input<'_> {
    /// Whether frames behind the first one are looked at.
    fn looks_further(&self) -> bool {
        self.header.animation_bytes > 0 && self.header.memory_with_animation() <= self.options.limits.max_memory
    }

    /// A codec's complaint as an error of ours.
    fn failure(&self, reason: impl std::fmt::Display) -> ImageError {
        if self.ran_out.get() {
            ImageError::truncated(self.header.format, self.bytes)
        } else {
            ImageError::corrupt(self.header.format, reason.to_string())
        }
    }
}
