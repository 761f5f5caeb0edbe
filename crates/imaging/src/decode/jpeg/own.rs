//! Any Huffman- or arithmetic-coded JPEG of 8 bits a sample, sequential or progressive, at full
//! size or at 1/2, 1/4, 1/8.
//!
//! A reduced size is made in the frequency domain: every 8 × 8 block is transformed straight to 4 × 4, 2 × 2 or 1
//! pixel, each the mean of those it stands for, as libjpeg does for Pillow's draft mode. That saves most of the inverse
//! transform, the colour conversion and the memory; what remains is entropy decoding.
//!
//! What libjpeg warns of and reads is read: odd spectral bounds of a sequential scan, unknown Adobe transforms, garbage
//! between markers, a missing end marker. What it fills with grey or guesses (missing or contradictory scan data) is an
//! error here.

use super::colour;
use super::frame::Frame;
use super::marker::next_marker;
use super::scan;
use super::tables::Tables;
use crate::decode::Input;
use crate::header::MAX_SCANS;
use crate::poll::Poll;
use crate::{Format, Image, ImageError, Limits};

/// A JPEG stream and what it may cost.
pub(super) struct Stream<'a> {
    bytes: &'a [u8],
    limits: Limits,
    poll: &'a Poll<'a>,
    /// The size that the limits were checked for: exactly this one, or at most.
    size: (u64, u64),
    is_part: bool,
    /// Whether the picture will be turned, which takes a second buffer.
    turned: bool,
    /// What the file around the stream says about its colours.
    is_ycbcr: Option<bool>,
}

impl<'a> Stream<'a> {
    pub(super) fn whole(input: &Input<'a>) -> Self {
        Self {
            bytes: input.bytes,
            limits: input.options.limits,
            poll: input.poll,
            size: (u64::from(input.header.width), u64::from(input.header.height)),
            is_part: false,
            turned: input.header.is_transposed(),
            is_ycbcr: None,
        }
    }

    pub(super) fn part(input: &Input<'a>, bytes: &'a [u8], most: (u64, u64), is_ycbcr: Option<bool>) -> Self {
        Self {
            bytes,
            limits: input.options.limits,
            poll: input.poll,
            size: most,
            is_part: true,
            turned: false,
            is_ycbcr,
        }
    }
}

/// Decodes at `1 / 2^halvings` of the size, rounded up.
pub(super) fn decode(input: &Stream, halvings: u32) -> Result<Image, ImageError> {
    let mut frame = read_scans(input, halvings)?;
    frame.finish_blocks(input.poll)?;
    let (width, height) = (frame.out_width, frame.out_height);
    let mut pixels = crate::buffers::zeroed(width as usize * height as usize * 3)?;
    colour::write(&frame, &mut pixels, input.poll)?;
    Image::new(width, height, pixels)
}

/// Samples as a JPEG has them: what they mean says the file around it.
pub(in crate::decode) struct Samples {
    pub width: usize,
    pub height: usize,
    /// Of a pixel.
    pub count: usize,
    pub values: Vec<u8>,
}

/// Decodes at full size, without a change of colours.
pub(super) fn decode_samples(input: &Stream) -> Result<Samples, ImageError> {
    let mut frame = read_scans(input, 0)?;
    frame.finish_blocks(input.poll)?;
    let (width, height) = (frame.out_width as usize, frame.out_height as usize);
    let count = frame.components.len();
    let mut values = crate::buffers::zeroed(width * height * count)?;
    colour::write_samples(&frame, &mut values, input.poll)?;
    Ok(Samples {
        width,
        height,
        count,
        values,
    })
}

/// Walks the markers (ITU-T T.81, annex B) and decodes every scan.
fn read_scans(input: &Stream, halvings: u32) -> Result<Frame, ImageError> {
    let bytes = input.bytes;
    let corrupt = |reason: &str| ImageError::corrupt(Format::Jpeg, reason);
    let truncated = || ImageError::truncated(Format::Jpeg, bytes);
    let mut at = 2;
    let mut frame: Option<Frame> = None;
    let mut tables = Tables::default();
    let mut markers = colour::Markers::default();
    let mut scans = 0;
    let mut ended = false;
    while let Some((marker, behind)) = next_marker(bytes, at) {
        at = behind;
        match marker {
            0x00 | 0x01 | 0xD0..=0xD8 => continue,
            0xD9 => {
                ended = true;
                break;
            }
            _ => {}
        }
        // A segment that breaks off behind complete scans costs nothing; the completeness of the frame is judged below.
        let Some(segment) = segment(bytes, at) else { break };
        at += segment.len() + 2;
        match marker {
            0xC4 => tables
                .read_huffman(segment)
                .ok_or_else(|| corrupt("a table of Huffman codes is not valid"))?,
            0xCC => tables
                .read_conditioning(segment)
                .ok_or_else(|| corrupt("a table of arithmetic conditioning is not valid"))?,
            0xC0..=0xCF => {
                if frame.is_some() {
                    return Err(ImageError::unsupported(
                        Format::Jpeg,
                        "hierarchical coding (several frames)",
                    ));
                }
                let read = Frame::read(marker, segment, halvings)?;
                let size = (u64::from(read.width), u64::from(read.height));
                let fits = input.is_part && size.0 <= input.size.0 && size.1 <= input.size.1;
                if !fits && size != input.size {
                    return Err(corrupt("its frame headers give different sizes"));
                }
                let needed = read.memory(input.turned);
                input
                    .limits
                    .check_memory(Format::Jpeg, read.width, read.height, needed)?;
                frame = Some(read.allocate()?);
            }
            0xDB => tables
                .read_quantisation(segment)
                .ok_or_else(|| corrupt("a quantisation table is not valid"))?,
            0xDD => {
                let interval = segment
                    .try_into()
                    .map_err(|_| corrupt("a restart interval is not valid"))?;
                tables.restart_interval = usize::from(u16::from_be_bytes(interval));
            }
            0xE0 if segment.starts_with(b"JFIF\0") => markers.jfif = true,
            0xEE if segment.starts_with(b"Adobe") && segment.len() >= 12 => markers.adobe = Some(segment[11]),
            0xDA => {
                let frame = frame
                    .as_mut()
                    .ok_or_else(|| corrupt("a scan comes before the frame header"))?;
                scans += 1;
                if scans > MAX_SCANS {
                    return Err(crate::header::too_many_scans(scans, frame.width, frame.height));
                }
                at = scan::decode(frame, &tables, segment, bytes, at, input.poll)?;
            }
            _ => {}
        }
    }
    let mut frame = frame.ok_or_else(truncated)?;
    if !frame.every_component_came() || (!ended && !frame.every_bit_came()) {
        return Err(if ended {
            corrupt("a colour component is missing")
        } else {
            truncated()
        });
    }
    frame.colours = markers.colours(&frame, input.is_ycbcr);
    Ok(frame)
}

/// What follows the two length bytes at `at`.
fn segment(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    bytes.get(at + 2..at + length)
}
