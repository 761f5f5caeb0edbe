//! WebP's RIFF chunks (RFC 9649).

use super::{Fields, Header, prefix_codes};
use crate::exif::Orientation;
use crate::{Format, ImageError};

/// The decoder allocates a partition of a lossy frame by its 24-bit length before it finds the data missing.
const LOSSY_PARTITION: u64 = 1 << 24;
/// Prefix codes of a further frame: those that need more are not looked at.
pub(crate) const MOST_CODES: u64 = 1 << 24;

pub(super) fn read(bytes: &[u8]) -> Result<Header, ImageError> {
    let fields = Fields::little_endian(bytes);
    let truncated = || ImageError::truncated(Format::WebP, bytes);
    let kind: [u8; 4] = fields.bytes(12).ok_or_else(truncated)?;
    let mut header = Header {
        colour: "YCbCr",
        ..Header::new(Format::WebP, 0, 0)
    };
    let mut codes = 0;
    let mut is_animated = false;
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
            codes = prefix_codes::memory(&bytes[20..], header.width, header.height, false);
        }
        b"VP8X" => {
            let flags = fields.u8(20).ok_or_else(truncated)?;
            header.has_alpha = flags & 0x10 != 0;
            is_animated = flags & 2 != 0;
            header.width = fields.u24(24).ok_or_else(truncated)? + 1;
            header.height = fields.u24(27).ok_or_else(truncated)? + 1;
            codes = read_chunks(bytes, &fields, &mut header);
        }
        _ => {
            let name = String::from_utf8_lossy(&kind).into_owned();
            return Err(ImageError::corrupt(
                Format::WebP,
                format!("its first chunk is {name:?}"),
            ));
        }
    }
    // The largest of three ways, with macroblock padding up to 16 pixels a side:
    //   lossy: planes 1.5, RGB 3 or RGBA 4, and with alpha its own lossless decode 4 + 3;
    //   lossless: RGBA 4, transforms and group numbers up to 1, and RGB 3;
    //   animated: a frame of either kind up to 11, canvas 4, result 3.
    let padded = (u64::from(header.width) + 16) * (u64::from(header.height) + 16);
    let per_pixel = if is_animated { 18 } else { 12 };
    let partition = if header.colour == "YCbCr" { LOSSY_PARTITION } else { 0 };
    header.codec_bytes = per_pixel * padded + partition + codes + 3 * bytes.len() as u64;
    if header.frames > 1 {
        // The best frame so far, and what clears; further frames may be coded otherwise than the first.
        header.animation_bytes = 6 * padded + LOSSY_PARTITION + 2 * MOST_CODES;
    }
    Ok(header)
}

/// Chunks of an extended file: frames, orientation, and how the first picture is coded. Gives the memory that the
/// prefix codes of the first picture take.
fn read_chunks(bytes: &[u8], fields: &Fields, header: &mut Header) -> u64 {
    let mut at = 30;
    let mut animation_frames = 0u32;
    let mut codes = 0u64;
    let mut orientation = Orientation::default();
    while let (Some(kind), Some(length)) = (fields.bytes::<4>(at), fields.u32(at + 4)) {
        let body = at + 8;
        let end = body.saturating_add(length as usize);
        match &kind {
            b"ANMF" => {
                animation_frames = animation_frames.saturating_add(1);
                if animation_frames == 1 {
                    let (width, height) = (
                        fields.u24(body + 6).unwrap_or(0) + 1,
                        fields.u24(body + 9).unwrap_or(0) + 1,
                    );
                    // A frame holds a picture of one or two chunks: alpha and lossy, or lossless.
                    let mut part = body + 16;
                    for _ in 0..2 {
                        let (Some(kind), Some(length)) = (fields.bytes::<4>(part), fields.u32(part + 4)) else {
                            break;
                        };
                        codes += read_picture(&kind, bytes.get(part + 8..).unwrap_or(&[]), width, height, header);
                        part = (part + 8)
                            .saturating_add(length as usize)
                            .saturating_add(length as usize & 1);
                    }
                }
            }
            b"EXIF" => orientation.exif(bytes.get(body..end).unwrap_or(&[])),
            b"XMP " => orientation.xmp(bytes.get(body..end).unwrap_or(&[])),
            kind => {
                let data = bytes.get(body..end.min(bytes.len())).unwrap_or(&[]);
                codes += read_picture(kind, data, header.width, header.height, header);
            }
        }
        at = end.saturating_add(length as usize & 1);
    }
    header.orientation = orientation.get();
    header.frames = animation_frames.max(1);
    codes
}

fn read_picture(kind: &[u8; 4], data: &[u8], width: u32, height: u32, header: &mut Header) -> u64 {
    if kind == b"VP8L" {
        header.colour = "RGB";
    }
    code_memory(kind, data, width, height)
}

/// What the prefix codes of a chunk take.
pub(crate) fn code_memory(kind: &[u8; 4], data: &[u8], width: u32, height: u32) -> u64 {
    match (kind, data) {
        (b"VP8L", _) => prefix_codes::memory(data, width, height, false),
        // Compression method 1 in the lowest two bits.
        (b"ALPH", [flags, stream @ ..]) if flags & 3 == 1 => prefix_codes::memory(stream, width, height, true),
        _ => 0,
    }
}
