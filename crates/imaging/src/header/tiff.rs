//! TIFF directories (TIFF 6.0, section 2; BigTIFF).

use super::{Fields, Header};
use crate::{Format, ImageError};

/// Pages counted at most: a directory chain is as long as its author wants, and can loop.
const MAX_PAGES: u32 = 65_536;

const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS_PER_SAMPLE: u16 = 258;
const PHOTOMETRIC: u16 = 262;
const ORIENTATION: u16 = 274;
const SAMPLES_PER_PIXEL: u16 = 277;
const TILE_WIDTH: u16 = 322;
const TILE_HEIGHT: u16 = 323;
const EXTRA_SAMPLES: u16 = 338;

pub(super) fn read(bytes: &[u8]) -> Result<Header, ImageError> {
    let file = File::open(bytes).ok_or_else(|| ImageError::truncated(Format::Tiff, bytes))?;
    let truncated = || ImageError::truncated(Format::Tiff, bytes);
    let mut page = Page {
        bits: 1,
        samples: 1,
        orientation: 1,
        ..Page::default()
    };
    let entries = file.entries(file.first).ok_or_else(truncated)?;
    for entry in 0..entries {
        let (tag, value) = file.entry(file.first, entry).ok_or_else(truncated)?;
        page.set(tag, value);
    }
    let mut frames = 1;
    let mut at = file.first;
    // Directories may point backwards: only the count bounds the walk.
    while let Some(next) = file.next(at)
        && next != 0
        && frames < MAX_PAGES
        && file.entries(next).is_some_and(|entries| entries > 0)
    {
        frames += 1;
        at = next;
    }

    let pixels = page.width.saturating_mul(page.height);
    let colour = match page.photometric {
        0 | 1 => "grey",
        3 => "palette",
        5 => "CMYK",
        6 => "YCbCr",
        _ => "RGB",
    };
    let sample_bytes = u64::from(page.bits).div_ceil(8).clamp(1, 8);
    let stored = pixels.saturating_mul(u64::from(page.samples.clamp(1, 16)) * sample_bytes);
    let chunk = page
        .tile
        .saturating_mul(u64::from(page.samples.clamp(1, 16)) * sample_bytes);
    Ok(Header {
        format: Format::Tiff,
        width: u32::try_from(page.width).unwrap_or(u32::MAX),
        height: u32::try_from(page.height).unwrap_or(u32::MAX),
        orientation: if (1..=8).contains(&page.orientation) {
            page.orientation as u8
        } else {
            1
        },
        frames,
        bits_per_channel: u8::try_from(page.bits).unwrap_or(u8::MAX),
        has_alpha: page.extra_samples,
        colour,
        // Samples as read, as handed over, and the strip or tile being read.
        codec_bytes: stored
            .saturating_mul(2)
            .saturating_add(chunk)
            .saturating_add(bytes.len() as u64),
        // Grey becomes RGB in a second buffer; the others shrink in place.
        conversion_bytes: stored.saturating_add(pixels.saturating_mul(3)),
    })
}

#[derive(Default)]
struct Page {
    width: u64,
    height: u64,
    bits: u16,
    samples: u16,
    photometric: u64,
    orientation: u64,
    tile: u64,
    extra_samples: bool,
}

impl Page {
    fn set(&mut self, tag: u16, value: u64) {
        let small = u16::try_from(value).unwrap_or(u16::MAX);
        match tag {
            WIDTH => self.width = value,
            HEIGHT => self.height = value,
            BITS_PER_SAMPLE => self.bits = small,
            PHOTOMETRIC => self.photometric = value,
            ORIENTATION => self.orientation = value,
            SAMPLES_PER_PIXEL => self.samples = small,
            TILE_WIDTH => self.tile = value,
            TILE_HEIGHT => self.tile = self.tile.saturating_mul(value),
            EXTRA_SAMPLES => self.extra_samples = matches!(value, 1 | 2),
            _ => {}
        }
    }
}

struct File<'a> {
    fields: Fields<'a>,
    big: bool,
    first: usize,
}

impl<'a> File<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        let fields = if bytes.starts_with(b"II") {
            Fields::little_endian(bytes)
        } else {
            Fields::big_endian(bytes)
        };
        let big = fields.u16(2)? == 43;
        let first = if big {
            usize::try_from(fields.u64(8)?).ok()?
        } else {
            fields.u32(4)? as usize
        };
        Some(Self { fields, big, first })
    }

    fn entries(&self, directory: usize) -> Option<usize> {
        if self.big {
            usize::try_from(self.fields.u64(directory)?).ok()
        } else {
            self.fields.u16(directory).map(usize::from)
        }
    }

    /// Tag and first value of an entry: the value itself where it fits into the entry, else the first one behind the
    /// offset.
    fn entry(&self, directory: usize, entry: usize) -> Option<(u16, u64)> {
        let (head, step, inline) = if self.big { (8, 20, 8) } else { (2, 12, 4) };
        let at = directory.checked_add(head)?.checked_add(entry.checked_mul(step)?)?;
        let tag = self.fields.u16(at)?;
        let kind = self.fields.u16(at + 2)?;
        let count = if self.big {
            self.fields.u64(at + 4)?
        } else {
            u64::from(self.fields.u32(at + 4)?)
        };
        let mut value_at = at + if self.big { 12 } else { 8 };
        let size: u64 = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 13 => 4,
            16..=18 => 8,
            _ => return Some((tag, 0)),
        };
        if count.saturating_mul(size) > inline {
            value_at = if self.big {
                usize::try_from(self.fields.u64(value_at)?).ok()?
            } else {
                self.fields.u32(value_at)? as usize
            };
        }
        let value = match size {
            1 => self.fields.u8(value_at).map(u64::from),
            2 => self.fields.u16(value_at).map(u64::from),
            4 => self.fields.u32(value_at).map(u64::from),
            _ => self.fields.u64(value_at),
        };
        // An entry that nobody here needs may point anywhere; the decoder judges the ones it needs.
        Some((tag, value.unwrap_or(0)))
    }

    fn next(&self, directory: usize) -> Option<usize> {
        let entries = self.entries(directory)?;
        if self.big {
            let at = directory.checked_add(8)?.checked_add(entries.checked_mul(20)?)?;
            usize::try_from(self.fields.u64(at)?).ok()
        } else {
            self.fields
                .u32(directory.checked_add(2 + entries * 12)?)
                .map(|next| next as usize)
        }
    }
}
