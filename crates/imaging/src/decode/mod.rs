//! Bytes to RGB pixels. The order is the promise: bytes, header, pixels and memory are checked, and only then is
//! anything of the picture's size allocated.

mod jpeg;
mod matte;
mod png;
mod raster;
mod reduced;

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

/// Decodes the first frame to RGB, 8 bits a channel: turned as its EXIF orientation says (exactly once), transparent
/// pixels laid over the matte. Samples of 16 bits keep their upper 8, as Pillow's raw modes do (`RGB;16B`).
///
/// Bytes after a complete picture are ignored. A picture that breaks off is refused as [`ImageError::Truncated`]
/// rather than given with a grey rest: half a picture stored today is a wrong match tomorrow.
///
/// # Errors
/// See [`ImageError`]; each limit is checked before the allocation it bounds.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Image, ImageError> {
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
    let image = poll.contain(header.format, || match header.format {
        Format::Jpeg => jpeg::decode(&input),
        Format::Png => png::decode(&input),
        _ => raster::decode(&input),
    })?;
    poll.check()?;
    orientation::apply(image, header.orientation)
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
    /// A codec's complaint as an error of ours.
    fn failure(&self, reason: impl std::fmt::Display) -> ImageError {
        if self.ran_out.get() {
            ImageError::truncated(self.header.format, self.bytes)
        } else {
            ImageError::corrupt(self.header.format, reason.to_string())
        }
    }
}
