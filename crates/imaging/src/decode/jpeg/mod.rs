//! JPEG, by two decoders.
//!
//! [`ordinary`] is `zune-jpeg`: quick (SIMD), and right for the pictures that make up nearly all of what people have.
//! [`own`] reads every Huffman- or arithmetic-coded 8-bit JPEG, at full size or at 1/2, 1/4, 1/8, and gives libjpeg's
//! pixels bit for bit at full size; it is slower there. `zune-jpeg` 0.5.15 decodes some valid files to other pixels
//! without an error (components in scans of their own, luma coarser than chroma, JFIF with an Adobe transform of 0, …):
//! so it is given a file only if the header shows that nothing unusual is in it, and when it refuses one, [`own`] has
//! the last word. tests/test_imaging_parity.py holds both against Pillow over everything that `cjpeg` writes.
//!
//! Why not the `jpeg-decoder` crate, which can scale too: even without its `rayon` feature it starts a thread per
//! colour component for every picture wider than 128 pixels, and a PostgreSQL backend must not start threads.
//!
//! CMYK is read as Adobe stores it, inverted, whether or not its marker is there: Pillow does the same.

mod arithmetic;
mod colour;
mod frame;
mod huffman;
mod idct;
mod marker;
mod ordinary;
mod own;
mod scan;
mod tables;
mod upsample;

pub(super) use colour::{paper, rgb};

use super::Input;
use crate::{Format, Image, ImageError};

/// At a reduced size where the caller allows it, else at full size.
pub(super) fn decode(input: &Input) -> Result<Image, ImageError> {
    let (width, height) = (input.header.width, input.header.height);
    let limits = input.options.limits;
    let check_full_size = || limits.check_memory(Format::Jpeg, width, height, input.header.memory());
    if let Some(min_side) = input.options.min_side {
        let halvings = halvings(width, height, min_side);
        // At half size the scalar code saves less than `zune-jpeg`'s SIMD gains: it is for pictures that are too large
        // for memory otherwise.
        if halvings > 1 || (halvings == 1 && check_full_size().is_err()) {
            return own::decode(&own::Stream::whole(input), halvings);
        }
    }
    check_full_size()?;
    if input.header.is_ordinary {
        match ordinary::decode(input) {
            Ok(image) => return Ok(image),
            Err(error @ (ImageError::Cancelled | ImageError::OutOfMemory { .. })) => return Err(error),
            Err(_) => {
                input.poll.check()?;
                input.ran_out.set(false);
            }
        }
    }
    own::decode(&own::Stream::whole(input), 0)
}

/// A JPEG that is part of another file, of at most the given size. `is_ycbcr`: what that file says
/// about its colours, if it does.
pub(super) fn decode_part(
    input: &Input,
    bytes: &[u8],
    most: (u64, u64),
    is_ycbcr: Option<bool>,
) -> Result<Image, ImageError> {
    own::decode(&own::Stream::part(input, bytes, most, is_ycbcr), 0)
}

/// As [`decode_part`], the samples as they are stored.
pub(super) fn decode_samples(input: &Input, bytes: &[u8], most: (u64, u64)) -> Result<own::Samples, ImageError> {
    own::decode_samples(&own::Stream::part(input, bytes, most, None))
}

/// By how many halvings a `width × height` picture can be shrunk, 3 at most, with both sides
/// staying at least `min_side`.
fn halvings(width: u32, height: u32, min_side: u32) -> u32 {
    let shorter = width.min(height);
    (1..=3)
        .rev()
        .find(|&halvings| shorter.div_ceil(1 << halvings) >= min_side.max(1))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_never_leaves_a_side_shorter_than_asked() {
        assert_eq!(halvings(4000, 3000, 288), 3);
        assert_eq!(halvings(2304, 2304, 288), 3);
        assert_eq!(halvings(2303, 2303, 288), 3, "rounded up: 288");
        assert_eq!(halvings(2296, 4000, 288), 2, "287 would be too short");
        assert_eq!(halvings(4000, 300, 288), 0);
        assert_eq!(halvings(575, 4000, 288), 1);
        assert_eq!(halvings(8, 8, 0), 3);
    }
}
