//! JPEG at 1/2, 1/4 or 1/8 of its size, scaled in the frequency domain: every 8 × 8 block is transformed straight to
//! 4 × 4, 2 × 2 or 1 pixel, each the mean of those it stands for, as libjpeg does for Pillow's draft mode.
//! That saves most of the inverse transform, the colour conversion and the memory; what remains is Huffman decoding.
//!
//! Why not the `jpeg-decoder` crate, which can scale: even without its `rayon` feature it starts a thread per colour
//! component for every picture wider than 128 pixels, and a PostgreSQL backend must not start threads. `zune-jpeg`,
//! which decodes at full size here, cannot scale.
//!
//! This is an optimisation only, and behaves like one: whatever is unusual or wrong about a file makes it answer
//! `None`, and the full-size decoder has the last word, so that both give the same errors.

mod colour;
mod frame;
mod huffman;
mod idct;
mod scan;

use super::Input;
use crate::{Format, Image, ImageError};
use frame::Frame;
use scan::Tables;

/// Scans read at most; each costs a walk over the whole picture, whatever its length. The same as `zune-jpeg`'s.
const MAX_SCANS: usize = 100;

/// By how many halvings a `width × height` picture can be shrunk, 3 at most, with both sides staying at least `min_side`.
pub(super) fn halvings(width: u32, height: u32, min_side: u32) -> u32 {
    let shorter = width.min(height);
    (1..=3)
        .rev()
        .find(|&halvings| shorter.div_ceil(1 << halvings) >= min_side.max(1))
        .unwrap_or(0)
}

/// Decodes at `1 / 2^halvings` of the size, rounded up. `None`: let the full-size decoder see to it.
pub(super) fn decode(input: &Input, halvings: u32) -> Result<Option<Image>, ImageError> {
    let Some(mut frame) = read_scans(input, halvings) else {
        // A stop must not be answered by starting the other decoder.
        return input.poll.check().map(|()| None);
    };
    frame.finish_blocks();
    input.poll.check()?;
    let (width, height) = (frame.out_width, frame.out_height);
    let mut pixels = vec![0u8; width as usize * height as usize * 3];
    if !colour::write(&frame, &mut pixels, input.poll) {
        return Err(ImageError::Cancelled);
    }
    Image::new(width, height, pixels).map(Some)
}

/// Walks the markers (ITU-T T.81, annex B) and decodes every scan.
fn read_scans(input: &Input, halvings: u32) -> Option<Frame> {
    let bytes = input.bytes;
    let mut at = 2;
    let mut frame: Option<Frame> = None;
    let mut tables = Tables::default();
    let mut adobe_transform = None;
    let mut scans = 0;
    loop {
        while *bytes.get(at)? != 0xFF {
            at += 1;
        }
        while *bytes.get(at)? == 0xFF {
            at += 1;
        }
        let marker = *bytes.get(at)?;
        at += 1;
        match marker {
            0x00 | 0x01 | 0xD0..=0xD8 => continue,
            0xD9 => break,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let segment = bytes.get(at + 2..at + length)?;
        at += length;
        match marker {
            0xC0..=0xC2 if frame.is_none() => {
                let read = Frame::read(marker == 0xC2, segment, halvings)?;
                let limits = input.options.limits;
                limits
                    .check_memory(Format::Jpeg, read.width, read.height, read.memory())
                    .ok()?;
                frame = Some(read.allocate());
            }
            0xC4 => tables.read_huffman(segment)?,
            0xC0..=0xCF => return None,
            0xDB => tables.read_quantisation(segment)?,
            0xDD => tables.restart_interval = usize::from(u16::from_be_bytes(segment.try_into().ok()?)),
            0xDC => return None,
            0xEE if segment.starts_with(b"Adobe") => adobe_transform = segment.get(11).copied(),
            0xDA => {
                scans += 1;
                if scans > MAX_SCANS {
                    return None;
                }
                let frame = frame.as_mut()?;
                at = scan::decode(frame, &tables, segment, bytes, at, input.poll)?;
            }
            _ => {}
        }
    }
    let mut frame = frame?;
    frame.is_rgb = frame.is_rgb || adobe_transform == Some(0);
    frame.is_complete().then_some(frame)
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
