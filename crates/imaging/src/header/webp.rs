//! WebP's RIFF chunks (RFC 9649).

use super::{Fields, Header};
use crate::{Format, ImageError, exif};

pub(super) fn read(bytes: &[u8]) -> Result<Header, ImageError> {
    let fields = Fields::little_endian(bytes);
    let truncated = || ImageError::truncated(Format::WebP, bytes);
    let kind: [u8; 4] = fields.bytes(12).ok_or_else(truncated)?;
    let mut header = Header {
        format: Format::WebP,
        width: 0,
        height: 0,
        orientation: 1,
        frames: 1,
        bits_per_channel: 8,
        has_alpha: false,
        colour: "YCbCr",
        codec_bytes: 0,
        conversion_bytes: 0,
    };
    match &kind {
        b"VP8 " => {
            if fields.bytes(23).ok_or_else(truncated)? != [0x9D, 0x01, 0x2A] {
                return Err(ImageError::corrupt(Format::WebP, "its VP8 frame has no start code"));
            }
            header.width = u32::from(fields.u16(26).ok_or_else(truncated)? & 0x3FFF);
            header.height = u32::from(fields.u16(28).ok_or_else(truncated)? & 0x3FFF);
        }
        b"VP8L" => {
            if fields.u8(20).ok_or_else(truncated)? != 0x2F {
                return Err(ImageError::corrupt(Format::WebP, "its lossless frame has no signature"));
            }
            let packed = fields.u32(21).ok_or_else(truncated)?;
            header.width = (packed & 0x3FFF) + 1;
            header.height = ((packed >> 14) & 0x3FFF) + 1;
            header.has_alpha = packed >> 28 & 1 != 0;
            header.colour = "RGB";
        }
        b"VP8X" => {
            let flags = fields.u8(20).ok_or_else(truncated)?;
            header.has_alpha = flags & 0x10 != 0;
            header.width = fields.u24(24).ok_or_else(truncated)? + 1;
            header.height = fields.u24(27).ok_or_else(truncated)? + 1;
            read_chunks(bytes, &fields, &mut header);
        }
        _ => {
            let name = String::from_utf8_lossy(&kind).into_owned();
            return Err(ImageError::corrupt(Format::WebP, format!("its first chunk is {name:?}")));
        }
    }
    let pixels = u64::from(header.width) * u64::from(header.height);
    // The largest of three ways, with the macroblock padding of 16 pixels a side:
    //   lossy: planes 1.5, macroblock records, RGBA 4, and with alpha its own lossless decode 4 + 1 + 1;
    //   lossless: RGBA 4, transforms and entropy image up to 1, and RGB 3;
    //   animated: a frame of either kind, canvas 4, result 4.
    let padded = (u64::from(header.width) + 16) * (u64::from(header.height) + 16);
    let per_pixel = if header.frames > 1 || header.colour == "animation" { 16 } else { 12 };
    header.codec_bytes = per_pixel * padded.max(pixels) + 3 * bytes.len() as u64;
    Ok(header)
}

/// Chunks of an extended file: frames, orientation, and how the first picture is coded.
fn read_chunks(bytes: &[u8], fields: &Fields, header: &mut Header) {
    let mut at = 30;
    let mut animation_frames = 0u32;
    while let (Some(kind), Some(length)) = (fields.bytes::<4>(at), fields.u32(at + 4)) {
        let body = at + 8;
        let end = body.saturating_add(length as usize);
        match &kind {
            b"ANMF" => {
                if animation_frames == 0 && fields.bytes(body + 16) == Some(*b"VP8L") {
                    header.colour = "RGB";
                }
                animation_frames = animation_frames.saturating_add(1);
            }
            b"VP8L" => header.colour = "RGB",
            b"EXIF" => header.orientation = bytes.get(body..end).map_or(1, exif::orientation),
            _ => {}
        }
        at = end.saturating_add(length as usize & 1);
    }
    header.frames = animation_frames.max(1);
}
