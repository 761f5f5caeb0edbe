//! Windows bitmap headers: BITMAPCOREHEADER to BITMAPV5HEADER.

use super::{Fields, Header, area};
use crate::{Format, ImageError};

pub(super) fn read(bytes: &[u8]) -> Result<Header, ImageError> {
    let fields = Fields::little_endian(bytes);
    let truncated = || ImageError::truncated(Format::Bmp, bytes);
    let header_bytes = fields.u32(14).ok_or_else(truncated)?;
    let (width, height, bits) = if header_bytes == 12 {
        let width = i32::from(fields.u16(18).ok_or_else(truncated)?);
        (
            width,
            i32::from(fields.u16(20).ok_or_else(truncated)?),
            fields.u16(24).ok_or_else(truncated)?,
        )
    } else {
        let width = fields.u32(18).ok_or_else(truncated)?.cast_signed();
        (
            width,
            fields.u32(22).ok_or_else(truncated)?.cast_signed(),
            fields.u16(28).ok_or_else(truncated)?,
        )
    };
    if width <= 0 || height == 0 || height == i32::MIN {
        return Err(ImageError::corrupt(
            Format::Bmp,
            format!("its header gives a size of {width}x{height} pixels"),
        ));
    }
    // A fourth mask exists from BITMAPV3HEADER on.
    let has_alpha = bits >= 16 && header_bytes >= 56 && fields.u32(66).is_some_and(|mask| mask != 0);
    let (width, height) = (width.unsigned_abs(), height.unsigned_abs());
    let pixels = area(width, height);
    Ok(Header {
        format: Format::Bmp,
        width,
        height,
        orientation: 1,
        frames: 1,
        bits_per_channel: if bits == 16 { 5 } else { 8 },
        has_alpha,
        colour: if bits <= 8 { "palette" } else { "RGB" },
        codec_bytes: 4 * pixels + 16 * u64::from(width),
        // RGBA becomes RGB in place, but giving the rest back may copy it.
        conversion_bytes: 7 * pixels,
    })
}
