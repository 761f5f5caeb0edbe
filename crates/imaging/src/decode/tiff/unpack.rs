//! A chunk's bytes out of their compression: none, CCITT RLE, fax of groups 3 and 4, LZW, Deflate, PackBits; and the
//! predictors of LZW and Deflate undone.

use flate2::{Decompress, FlushDecompress, Status};
use weezl::{BitOrder, LzwStatus};

use super::fax;
use crate::decode::Input;
use crate::header::tiff::Layout;
use crate::{Format, ImageError, buffers};

/// Bytes unpacked between two polls.
const STEP: usize = 1 << 20;

/// Fills `target`, the rows of a chunk of `size` (columns, rows), from `packed`.
pub(super) fn chunk(
    input: &Input,
    layout: &Layout,
    packed: &[u8],
    size: (usize, usize),
    row_bytes: usize,
    target: &mut [u8],
) -> Result<(), ImageError> {
    let turned;
    let packed = if layout.reversed_bits {
        // No more than what a chunk may take: what lies behind it is not its own.
        let mut copy = buffers::copy(&packed[..packed.len().min(target.len().saturating_add(1 << 16))])?;
        copy.iter_mut().for_each(|byte| *byte = byte.reverse_bits());
        turned = copy;
        &turned
    } else {
        packed
    };
    match layout.compression {
        1 => {
            let bytes = packed.get(..target.len()).ok_or_else(incomplete)?;
            target.copy_from_slice(bytes);
        }
        2..=4 => {
            if layout.bits != 1 || (layout.samples != 1 && !layout.planar) {
                return Err(ImageError::unsupported(Format::Tiff, "fax compression of colours"));
            }
            let coding = match layout.compression {
                2 => fax::Coding::Rows,
                3 if layout.t4_options & 1 != 0 => fax::Coding::Group3Mixed,
                3 => fax::Coding::Group3,
                _ => fax::Coding::Group4,
            };
            fax::decode(packed, coding, size, row_bytes, target, input.poll)?;
        }
        5 => lzw(input, packed, target)?,
        8 | 32_946 => deflate(input, packed, target)?,
        32_773 => packbits(packed, target).ok_or_else(incomplete)?,
        other => {
            let name = match other {
                34_661 => "JBIG",
                34_712 | 33_003 | 33_005 => "JPEG 2000",
                34_925 => "LZMA",
                50_000 => "Zstandard",
                50_001 => "WebP",
                50_002 => "JPEG XL",
                34_676 | 34_677 => "SGI Log",
                34_887 => "LERC",
                32_809 => "ThunderScan",
                32_766 => "NeXT",
                _ => "an unknown",
            };
            return Err(ImageError::unsupported(
                Format::Tiff,
                format!("{name} compression (number {other})"),
            ));
        }
    }
    if layout.predictor == 1 || !matches!(layout.compression, 5 | 8 | 32_946) {
        return Ok(());
    }
    let step = if layout.planar { 1 } else { usize::from(layout.samples) };
    for (number, row) in target.chunks_exact_mut(row_bytes).enumerate() {
        if number % 256 == 0 {
            input.poll.check()?;
        }
        match (layout.predictor, layout.bits) {
            (3, bits) => floating(row, step, usize::from(bits / 8), layout.big_endian)?,
            (_, 8) => {
                for at in step..row.len() {
                    row[at] = row[at].wrapping_add(row[at - step]);
                }
            }
            (_, bits) => {
                let size = usize::from(bits / 8);
                for at in (step * size..row.len() + 1 - size).step_by(size) {
                    add(row, at, at - step * size, size, layout.big_endian);
                }
            }
        }
    }
    Ok(())
}

fn incomplete() -> ImageError {
    ImageError::corrupt(Format::Tiff, "a part of it ends too early")
}

/// Adds the number of `size` bytes at `from` to that at `at`.
fn add(row: &mut [u8], at: usize, from: usize, size: usize, big_endian: bool) {
    let mut carry = 0u16;
    for index in 0..size {
        let index = if big_endian { size - 1 - index } else { index };
        carry += u16::from(row[at + index]) + u16::from(row[from + index]);
        row[at + index] = carry as u8;
        carry >>= 8;
    }
}

/// Predictor 3: the highest bytes of all samples first, then the next ones, each as the difference from the one before.
fn floating(row: &mut [u8], step: usize, size: usize, big_endian: bool) -> Result<(), ImageError> {
    for at in step..row.len() {
        row[at] = row[at].wrapping_add(row[at - step]);
    }
    let apart = buffers::copy(row)?;
    let count = row.len() / size;
    for (sample, to) in row.chunks_exact_mut(size).enumerate() {
        for (index, byte) in to.iter_mut().enumerate() {
            let place = if big_endian { index } else { size - 1 - index };
            *byte = apart[place * count + sample];
        }
    }
    Ok(())
}

fn lzw(input: &Input, mut packed: &[u8], target: &mut [u8]) -> Result<(), ImageError> {
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
    let mut filled = 0;
    while filled < target.len() {
        input.poll.check()?;
        let end = (filled + STEP).min(target.len());
        let result = decoder.decode_bytes(packed, &mut target[filled..end]);
        packed = &packed[result.consumed_in..];
        filled += result.consumed_out;
        match result.status {
            Ok(LzwStatus::Ok) => {}
            Ok(LzwStatus::Done | LzwStatus::NoProgress) if filled < target.len() && result.consumed_out == 0 => {
                return Err(incomplete());
            }
            Ok(_) => {}
            Err(_) => return Err(ImageError::corrupt(Format::Tiff, "its LZW data are not valid")),
        }
    }
    Ok(())
}

fn deflate(input: &Input, mut packed: &[u8], target: &mut [u8]) -> Result<(), ImageError> {
    let mut decoder = Decompress::new(true);
    let mut filled = 0;
    while filled < target.len() {
        input.poll.check()?;
        let end = (filled + STEP).min(target.len());
        let before = (decoder.total_in(), decoder.total_out());
        let status = decoder.decompress(packed, &mut target[filled..end], FlushDecompress::None);
        let (read, written) = (decoder.total_in() - before.0, decoder.total_out() - before.1);
        packed = &packed[read as usize..];
        filled += written as usize;
        match status {
            Err(_) => return Err(ImageError::corrupt(Format::Tiff, "its Deflate data are not valid")),
            Ok(Status::StreamEnd) if filled < target.len() => return Err(incomplete()),
            Ok(_) if read == 0 && written == 0 => return Err(incomplete()),
            Ok(_) => {}
        }
    }
    Ok(())
}

fn packbits(mut packed: &[u8], target: &mut [u8]) -> Option<()> {
    let mut filled = 0;
    while filled < target.len() {
        let (&head, rest) = packed.split_first()?;
        packed = rest;
        let room = &mut target[filled..];
        match head {
            0..=127 => {
                let count = usize::from(head) + 1;
                let bytes = packed.get(..count.min(room.len()))?;
                room[..bytes.len()].copy_from_slice(bytes);
                packed = &packed[count.min(packed.len())..];
                filled += bytes.len();
            }
            128 => {}
            129..=255 => {
                let count = (257 - usize::from(head)).min(room.len());
                let (&byte, rest) = packed.split_first()?;
                packed = rest;
                room[..count].fill(byte);
                filled += count;
            }
        }
    }
    Some(())
}
