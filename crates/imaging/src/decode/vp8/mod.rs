//! The lossy pictures of WebP: VP8 key frames (RFC 6386), with the colours and the upsampling of libwebp, to the bit.
//!
//! Why not `image-webp`, which reads everything else here: its VP8 decoder takes seconds for a large picture and asks
//! nobody in between whether the result is still wanted.

mod bits;
mod filter;
mod predict;
mod rgb;
mod tables;
mod tokens;
mod transform;

use self::bits::Bits;
use self::filter::Strength;
use self::tokens::{Contexts, Probabilities, Steps};
use crate::poll::Poll;
use crate::{Format, ImageError, buffers};

/// The three planes of a decoded frame, padded to whole macroblocks.
pub(super) struct Frame {
    width: usize,
    height: usize,
    planes: [Plane; 3],
}

struct Plane {
    stride: usize,
    samples: Vec<u8>,
}

impl Plane {
    fn new(stride: usize, rows: usize) -> Result<Self, ImageError> {
        Ok(Self {
            stride,
            samples: buffers::zeroed(stride * rows)?,
        })
    }
}

fn corrupt(reason: &str) -> ImageError {
    ImageError::corrupt(Format::WebP, reason)
}

/// Decodes a key frame of the given size.
pub(super) fn decode(bytes: &[u8], (width, height): (u32, u32), poll: &Poll) -> Result<Frame, ImageError> {
    let ends = || corrupt("its VP8 frame ends too early");
    let head: &[u8; 10] = bytes.get(..10).and_then(|head| head.try_into().ok()).ok_or_else(ends)?;
    let tag = u32::from_le_bytes([head[0], head[1], head[2], 0]);
    if tag & 1 != 0 || head[3..6] != [0x9D, 0x01, 0x2A] {
        return Err(corrupt("its VP8 frame is no key frame"));
    }
    let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3FFF);
    if (side(head[6], head[7]), side(head[8], head[9])) != (width, height) {
        return Err(corrupt("its VP8 frame has another size than it says"));
    }
    let rest = &bytes[10..];
    let first = rest.get(..(tag >> 5) as usize).ok_or_else(ends)?;
    let mut bits = Bits::new(first);
    let header = Header::read(&mut bits);
    let mut partitions = partitions(&rest[first.len()..], header.partitions).ok_or_else(ends)?;

    let (columns, rows) = (width.div_ceil(16) as usize, height.div_ceil(16) as usize);
    let mut frame = Frame {
        width: width as usize,
        height: height as usize,
        planes: [
            Plane::new(16 * columns, 16 * rows)?,
            Plane::new(8 * columns, 8 * rows)?,
            Plane::new(8 * columns, 8 * rows)?,
        ],
    };
    let mut strengths: Vec<Strength> = buffers::with_room(columns * rows)?;
    let mut above = vec![Contexts::default(); columns];
    // Modes of the subblocks above, four to a macroblock.
    let mut modes_above = vec![predict::B_DC; 4 * columns];
    for row in 0..rows {
        poll.check()?;
        let count = partitions.len();
        let partition = &mut partitions[row % count];
        let mut left = Contexts::default();
        let mut modes_left = [predict::B_DC; 4];
        for column in 0..columns {
            let mode = header.read_mode(&mut bits, &mut modes_above[4 * column..4 * column + 4], &mut modes_left);
            let steps = &header.steps[mode.segment];
            let mut coefficients = [[0i32; 16]; 25];
            let mut filled = [false; 25];
            let has_coefficients = if mode.skipped {
                above[column].skip(mode.subblocks.is_none());
                left.skip(mode.subblocks.is_none());
                false
            } else {
                tokens::read(
                    partition,
                    &header.probabilities,
                    steps,
                    mode.subblocks.is_none(),
                    (&mut above[column], &mut left),
                    &mut coefficients,
                    &mut filled,
                )
            };
            predict::macroblock(
                &mut frame,
                (column, row),
                (columns, rows),
                &mode,
                &coefficients,
                &filled,
            );
            let is_inner = has_coefficients || mode.subblocks.is_some();
            strengths.push(header.strength(&mode, is_inner));
        }
        if bits.ran_dry() || partition.ran_dry() {
            return Err(ends());
        }
    }
    filter::frame(&mut frame, header.is_simple, columns, &strengths, poll)?;
    Ok(frame)
}

/// The partitions that hold the coefficients: three bytes of length for each but the last, then their data.
fn partitions(bytes: &[u8], count: usize) -> Option<Vec<Bits<'_>>> {
    let (lengths, mut data) = bytes.split_at_checked(3 * (count - 1))?;
    let mut partitions = Vec::with_capacity(count);
    for length in lengths.chunks_exact(3) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], 0]) as usize;
        // A partition that is cut off runs dry where it is read.
        let (partition, rest) = data.split_at(length.min(data.len()));
        partitions.push(Bits::new(partition));
        data = rest;
    }
    partitions.push(Bits::new(data));
    Some(partitions)
}

/// RFC 6386, sections 9 and 19.2.
struct Header {
    segments: Option<Segments>,
    is_simple: bool,
    level: i32,
    sharpness: i32,
    /// Changes of the filter's level: of key frames, and of macroblocks predicted by subblocks.
    level_changes: [i32; 2],
    partitions: usize,
    steps: [Steps; 4],
    probabilities: Probabilities,
    /// Probability that a macroblock has coefficients, where it is said.
    skip: Option<u8>,
}

#[derive(Default)]
struct Segments {
    /// Probabilities of a macroblock's segment, where each says its own.
    map: Option<[u8; 3]>,
    is_absolute: bool,
    quantiser: [i32; 4],
    level: [i32; 4],
}

/// How a macroblock is predicted.
struct Mode {
    segment: usize,
    skipped: bool,
    luma: u8,
    /// Modes of the 16 subblocks, where luma is predicted by these.
    subblocks: Option<[u8; 16]>,
    chroma: u8,
}

impl Header {
    fn read(bits: &mut Bits) -> Self {
        // Colour space and clamping: WebP knows one of each.
        bits.number(2);
        let segments = bits.flag().then(|| {
            let has_map = bits.flag();
            let mut segments = Segments::default();
            if bits.flag() {
                segments.is_absolute = bits.flag();
                segments.quantiser = std::array::from_fn(|_| bits.optional(7));
                segments.level = std::array::from_fn(|_| bits.optional(6));
            }
            if has_map {
                segments.map = Some(std::array::from_fn(|_| {
                    if bits.flag() { bits.number(8) as u8 } else { 255 }
                }));
            }
            segments
        });
        let is_simple = bits.flag();
        let level = bits.number(6) as i32;
        let sharpness = bits.number(3) as i32;
        let mut level_changes = [0; 2];
        // Four for kinds of frames, of which there is one here; four for kinds of prediction, likewise.
        if bits.flag() && bits.flag() {
            let changes: [i32; 8] = std::array::from_fn(|_| bits.optional(6));
            level_changes = [changes[0], changes[4]];
        }
        let partitions = 1 << bits.number(2);
        let base = bits.number(7) as i32;
        let changes: [i32; 5] = std::array::from_fn(|_| bits.optional(4));
        let steps = std::array::from_fn(|segment| {
            let index = match &segments {
                Some(segments) if segments.is_absolute => segments.quantiser[segment],
                Some(segments) => base + segments.quantiser[segment],
                None => base,
            };
            Steps::new(index, changes)
        });
        // Whether the probabilities outlive the frame.
        bits.flag();
        let probabilities = tokens::read_probabilities(bits);
        let skip = bits.flag().then(|| bits.number(8) as u8);
        Self {
            segments,
            is_simple,
            level,
            sharpness,
            level_changes,
            partitions,
            steps,
            probabilities,
            skip,
        }
    }

    /// Sections 10 and 11.
    fn read_mode(&self, bits: &mut Bits, above: &mut [u8], left: &mut [u8; 4]) -> Mode {
        let segment = match self.segments.as_ref().and_then(|segments| segments.map) {
            Some([first, low, high]) => {
                if bits.decide(first) {
                    2 + usize::from(bits.decide(high))
                } else {
                    usize::from(bits.decide(low))
                }
            }
            None => 0,
        };
        let skipped = self.skip.is_some_and(|probability| bits.decide(probability));
        let mut subblocks = None;
        let luma = if !bits.decide(145) {
            let mut modes = [0; 16];
            for (y, left) in left.iter_mut().enumerate() {
                for (x, above) in above.iter_mut().enumerate() {
                    let mode =
                        predict::read_subblock_mode(bits, &tables::SUBBLOCK_MODES[*above as usize][*left as usize]);
                    modes[4 * y + x] = mode;
                    (*above, *left) = (mode, mode);
                }
            }
            subblocks = Some(modes);
            predict::DC
        } else {
            let mode = if bits.decide(156) {
                if bits.decide(128) { predict::TM } else { predict::H }
            } else if bits.decide(163) {
                predict::V
            } else {
                predict::DC
            };
            above.fill(predict::as_subblock(mode));
            left.fill(predict::as_subblock(mode));
            mode
        };
        let chroma = if !bits.decide(142) {
            predict::DC
        } else if !bits.decide(114) {
            predict::V
        } else if bits.decide(183) {
            predict::TM
        } else {
            predict::H
        };
        Mode {
            segment,
            skipped,
            luma,
            subblocks,
            chroma,
        }
    }

    /// Section 9.6 and 15.4.
    fn strength(&self, mode: &Mode, is_inner: bool) -> Strength {
        let mut level = match &self.segments {
            Some(segments) if segments.is_absolute => segments.level[mode.segment],
            Some(segments) => self.level + segments.level[mode.segment],
            None => self.level,
        };
        level = level.clamp(0, 63) + self.level_changes[0];
        if mode.subblocks.is_some() {
            level += self.level_changes[1];
        }
        Strength::new(level.clamp(0, 63), self.sharpness, is_inner)
    }
}
