//! PNG chunks (ISO/IEC 15948, sections 5 and 11; APNG's `acTL` is in its third edition).

use super::{Fields, Header, area};
use crate::exif::Orientation;
use crate::{Format, ImageError};

/// Keyword of an iTXt chunk that holds XMP, and its flag for no compression.
const XMP_TEXT: &[u8] = b"XML:com.adobe.xmp\0\0";

pub(super) fn read(bytes: &[u8]) -> Result<Header, ImageError> {
    let fields = Fields::big_endian(bytes);
    let truncated = || ImageError::truncated(Format::Png, bytes);
    if fields.bytes(12).ok_or_else(truncated)? != *b"IHDR" || fields.u32(8) != Some(13) {
        return Err(ImageError::corrupt(
            Format::Png,
            "its first chunk is not a 13-byte IHDR",
        ));
    }
    let width = fields.u32(16).ok_or_else(truncated)?;
    let height = fields.u32(20).ok_or_else(truncated)?;
    let bits = fields.u8(24).ok_or_else(truncated)?;
    let colour_type = fields.u8(25).ok_or_else(truncated)?;
    let interlaced = fields.u8(28).ok_or_else(truncated)? != 0;
    let (colour, mut has_alpha, channels) = match (colour_type, bits) {
        (0, 1 | 2 | 4 | 8 | 16) => ("grey", false, 1),
        (2, 8 | 16) => ("RGB", false, 3),
        (3, 1 | 2 | 4 | 8) => ("palette", false, 1),
        (4, 8 | 16) => ("grey", true, 2),
        (6, 8 | 16) => ("RGB", true, 4),
        _ => {
            return Err(ImageError::corrupt(
                Format::Png,
                format!("colour type {colour_type} with {bits} bits"),
            ));
        }
    };

    let mut frames = 1;
    let mut orientation = Orientation::default();
    let mut at = 33;
    // What follows is optional: where it breaks off, the decoder decides whether the picture is complete.
    while let (Some(length), Some(kind)) = (fields.u32(at), fields.bytes::<4>(at + 4)) {
        let body = at + 8;
        let end = body.saturating_add(length as usize);
        match &kind {
            b"tRNS" => has_alpha = true,
            b"acTL" => frames = fields.u32(body).unwrap_or(1).max(1),
            b"eXIf" => orientation.exif(bytes.get(body..end).unwrap_or(&[])),
            b"iTXt" => {
                // Compressed ones are left alone: nobody writes XMP so, and nothing is unpacked here.
                if let Some(packet) = bytes.get(body..end).and_then(|text| text.strip_prefix(XMP_TEXT)) {
                    orientation.xmp(packet);
                }
            }
            b"IEND" => break,
            _ => {}
        }
        at = end.saturating_add(4);
    }

    let pixels = area(width, height);
    let row = u64::from(width) * channels * u64::from(bits.max(8)) / 8;
    // 8-bit samples as expanded: palette to RGB or RGBA, grey and transparent colours to a channel more.
    let expanded = match (colour_type, has_alpha) {
        (0, false) => 1,
        (0, true) | (4, _) => 2,
        (2, false) | (3, false) => 3,
        _ => 4,
    };
    // Row by row into RGB; an interlaced picture is gathered whole first.
    let whole = if interlaced { expanded * pixels } else { 0 };
    // Canvas, the canvas before, a frame and the best one so far.
    let animation_bytes = if frames > 1 { (4 + 4 + 4 + 3) * pixels } else { 0 };
    Ok(Header {
        orientation: orientation.get(),
        frames,
        bits_per_channel: if colour_type == 3 { 8 } else { bits },
        has_alpha,
        colour,
        codec_bytes: 3 * pixels + whole + 8 * row + expanded * u64::from(width),
        animation_bytes,
        ..Header::new(Format::Png, width, height)
    })
}
