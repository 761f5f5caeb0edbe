//! GIF blocks (GIF89a specification, sections 17–26).

use super::{Fields, Header, area};
use crate::{Format, ImageError};

const EXTENSION: u8 = 0x21;
const IMAGE: u8 = 0x2C;
const GRAPHIC_CONTROL: u8 = 0xF9;

pub(super) fn read(bytes: &[u8]) -> Result<Header, ImageError> {
    let fields = Fields::little_endian(bytes);
    let truncated = || ImageError::truncated(Format::Gif, bytes);
    let width = u32::from(fields.u16(6).ok_or_else(truncated)?);
    let height = u32::from(fields.u16(8).ok_or_else(truncated)?);
    let flags = fields.u8(10).ok_or_else(truncated)?;

    let mut at = 13 + colour_table(flags);
    let mut frames = 0u32;
    let mut transparent = false;
    let mut first = None;
    // A GIF that breaks off after its first frame is still worth counting.
    while let Some(block) = fields.u8(at) {
        match block {
            EXTENSION => {
                if fields.u8(at + 1) == Some(GRAPHIC_CONTROL) && frames == 0 {
                    transparent = fields.u8(at + 3).is_some_and(|flags| flags & 1 != 0);
                }
                at = skip_sub_blocks(&fields, at + 2);
            }
            IMAGE => {
                let (Some(left), Some(top), Some(frame_width), Some(frame_height), Some(flags)) = (
                    fields.u16(at + 1),
                    fields.u16(at + 3),
                    fields.u16(at + 5),
                    fields.u16(at + 7),
                    fields.u8(at + 9),
                ) else {
                    break;
                };
                first.get_or_insert((left, top, u32::from(frame_width), u32::from(frame_height)));
                frames = frames.saturating_add(1);
                at = skip_sub_blocks(&fields, at + 10 + colour_table(flags) + 1);
            }
            _ => break,
        }
    }
    let Some((left, top, frame_width, frame_height)) = first else {
        return Err(if at >= bytes.len() {
            truncated()
        } else {
            ImageError::corrupt(Format::Gif, "it holds no frame")
        });
    };
    // A frame that reaches beyond the canvas widens it, as in other readers.
    let (right, bottom) = (u32::from(left) + frame_width, u32::from(top) + frame_height);
    let (width, height) = (width.max(right), height.max(bottom));
    let covers = (left, top) == (0, 0) && (frame_width, frame_height) == (width, height);
    let (pixels, frame_pixels) = (area(width, height), area(frame_width, frame_height));
    Ok(Header {
        frames,
        has_alpha: transparent || !covers,
        colour: "palette",
        frame_pixels: if frames > 1 { pixels } else { frame_pixels },
        // The canvas, and the frame's palette indices.
        codec_bytes: 3 * pixels + frame_pixels,
        // What lay under a frame, the indices of larger ones, and the best one so far.
        animation_bytes: if frames > 1 { (3 + 2 + 3) * pixels } else { 0 },
        ..Header::new(Format::Gif, width, height)
    })
}

fn colour_table(flags: u8) -> usize {
    if flags & 0x80 != 0 { 3 << ((flags & 7) + 1) } else { 0 }
}

/// The position after a chain of length-prefixed blocks that ends with an empty one.
fn skip_sub_blocks(fields: &Fields, mut at: usize) -> usize {
    while let Some(length) = fields.u8(at) {
        at += 1 + usize::from(length);
        if length == 0 {
            break;
        }
    }
    at
}
