//! Windows and OS/2 bitmaps, row by row into RGB.

use super::{Input, matte};
use crate::header::bmp::{Compression, Layout, layout};
use crate::{Format, Image, ImageError, buffers};

/// Rows between two polls.
const POLL_ROWS: usize = 64;

pub(super) fn decode(input: &Input) -> Result<Image, ImageError> {
    let layout = layout(input.bytes)?;
    let (width, height) = (input.header.width as usize, input.header.height as usize);
    let mut pixels = buffers::zeroed(width * height * 3)?;
    let data = input.bytes.get(layout.data..).unwrap_or(&[]);
    match layout.compression {
        Compression::None | Compression::Masks => rows(input, &layout, data, &mut pixels)?,
        Compression::Runs => runs(input, &layout, data, &mut pixels)?,
    }
    Image::new(input.header.width, input.header.height, pixels)
}

/// Where row `row` of the file lies in the picture: files go upwards as a rule.
fn target_row(layout: &Layout, row: usize, height: usize) -> usize {
    if layout.top_down { row } else { height - 1 - row }
}

fn rows(input: &Input, layout: &Layout, data: &[u8], pixels: &mut [u8]) -> Result<(), ImageError> {
    let (width, height) = (input.header.width as usize, input.header.height as usize);
    let bits = usize::from(layout.bits);
    // Rows are padded to whole words of 32 bits; the padding of the last one may be left out.
    let used = (width * bits).div_ceil(8);
    let stride = used.next_multiple_of(4);
    let row_at = |row: usize| {
        data.get(row * stride..row * stride + used)
            .ok_or_else(|| ImageError::truncated(Format::Bmp, input.bytes))
    };
    // Alpha that is nowhere set was never meant: such pictures are shown opaque.
    let alpha = layout.channels[3];
    let mut has_alpha = false;
    if alpha.is_some() {
        for row in 0..height {
            if row % POLL_ROWS == 0 {
                input.poll.check()?;
            }
            has_alpha |= row_at(row)?
                .chunks_exact(bits / 8)
                .any(|pixel| alpha.level(word(pixel)) != 0);
            if has_alpha {
                break;
            }
        }
    }
    let plain = layout.compression == Compression::None;
    for row in 0..height {
        if row % POLL_ROWS == 0 {
            input.poll.check()?;
        }
        let source = row_at(row)?;
        let start = target_row(layout, row, height) * width * 3;
        let (target, _) = pixels[start..start + width * 3].as_chunks_mut::<3>();
        match bits {
            24 => {
                for (to, from) in target.iter_mut().zip(source.chunks_exact(3)) {
                    *to = [from[2], from[1], from[0]];
                }
            }
            32 if plain => {
                for (to, from) in target.iter_mut().zip(source.chunks_exact(4)) {
                    *to = [from[2], from[1], from[0]];
                }
            }
            16 | 32 => {
                for (to, from) in target.iter_mut().zip(source.chunks_exact(bits / 8)) {
                    let value = word(from);
                    let [red, green, blue] = [0, 1, 2].map(|channel| layout.channels[channel].level(value));
                    *to = [red, green, blue];
                    if has_alpha {
                        let alpha = alpha.level(value);
                        for (value, &matte) in to.iter_mut().zip(&input.options.matte) {
                            *value = matte::over(*value, matte, alpha);
                        }
                    }
                }
            }
            _ => {
                let mask = ((1u32 << bits) - 1) as u8;
                for (x, to) in target.iter_mut().enumerate() {
                    let bit = x * bits;
                    let index = source[bit / 8] >> (8 - bits - bit % 8) & mask;
                    *to = layout.colour(usize::from(index));
                }
            }
        }
    }
    Ok(())
}

fn word(pixel: &[u8]) -> u32 {
    pixel.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

/// Run-length coded indices of 4 or 8 bits, and OS/2's of 24: pairs of a count and a value; a count of zero escapes.
/// What no run reaches is colour 0.
fn runs(input: &Input, layout: &Layout, data: &[u8], pixels: &mut [u8]) -> Result<(), ImageError> {
    let (width, height) = (input.header.width as usize, input.header.height as usize);
    let truncated = || ImageError::truncated(Format::Bmp, input.bytes);
    let background = if layout.bits == 24 { [0; 3] } else { layout.colour(0) };
    pixels.as_chunks_mut::<3>().0.fill(background);
    let (mut at, mut x, mut y) = (0, 0, 0);
    let mut steps = 0usize;
    let mut put = |x: &mut usize, y: usize, colour: [u8; 3]| {
        if *x < width && y < height {
            let start = (target_row(layout, y, height) * width + *x) * 3;
            pixels[start..start + 3].copy_from_slice(&colour);
        }
        *x += 1;
    };
    let triple = |at: usize| data.get(at..at + 3).map(|b| [b[2], b[1], b[0]]);
    loop {
        steps += 1;
        if steps.is_multiple_of(1 << 14) {
            input.poll.check()?;
        }
        let count = usize::from(*data.get(at).ok_or_else(truncated)?);
        let value = *data.get(at + 1).ok_or_else(truncated)?;
        if count > 0 {
            match layout.bits {
                24 => {
                    let colour = triple(at + 1).ok_or_else(truncated)?;
                    (0..count).for_each(|_| put(&mut x, y, colour));
                    at += 4;
                    continue;
                }
                4 => {
                    for pixel in 0..count {
                        let index = if pixel % 2 == 0 { value >> 4 } else { value & 15 };
                        put(&mut x, y, layout.colour(usize::from(index)));
                    }
                }
                _ => {
                    let colour = layout.colour(usize::from(value));
                    (0..count).for_each(|_| put(&mut x, y, colour));
                }
            }
            at += 2;
            continue;
        }
        at += 2;
        match value {
            0 => (x, y) = (0, y + 1),
            1 => return Ok(()),
            2 => {
                x += usize::from(*data.get(at).ok_or_else(truncated)?);
                y += usize::from(*data.get(at + 1).ok_or_else(truncated)?);
                at += 2;
            }
            literal => {
                let count = usize::from(literal);
                for pixel in 0..count {
                    let colour = match layout.bits {
                        24 => triple(at + 3 * pixel).ok_or_else(truncated)?,
                        4 => {
                            let byte = *data.get(at + pixel / 2).ok_or_else(truncated)?;
                            layout.colour(usize::from(if pixel % 2 == 0 { byte >> 4 } else { byte & 15 }))
                        }
                        _ => layout.colour(usize::from(*data.get(at + pixel).ok_or_else(truncated)?)),
                    };
                    put(&mut x, y, colour);
                }
                // Padded to whole words of 16 bits.
                at += (count * usize::from(layout.bits)).div_ceil(8).next_multiple_of(2);
            }
        }
        if y >= height && data.len() <= at {
            return Ok(());
        }
    }
}
