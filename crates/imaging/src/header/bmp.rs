//! Bitmap headers: Windows' BITMAPCOREHEADER to BITMAPV5HEADER, and those of OS/2.

use super::{Fields, Header, area};
use crate::{Format, ImageError};

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Compression {
    None,
    Runs,
    /// Channels lie where masks say.
    Masks,
}

/// The bits of a channel in a pixel's word.
#[derive(Clone, Copy)]
pub(crate) struct Channel {
    shift: u32,
    most: u32,
}

impl Channel {
    fn of(mask: u32) -> Self {
        let shift = if mask == 0 { 0 } else { mask.trailing_zeros() };
        Self {
            shift,
            most: mask >> shift,
        }
    }

    pub(crate) fn is_some(self) -> bool {
        self.most > 0
    }

    /// The channel at 8 bits, 0 where the mask is empty.
    pub(crate) fn level(self, word: u32) -> u8 {
        if self.most == 0 {
            return 0;
        }
        let value = word >> self.shift & self.most;
        (u64::from(value) * 255 / u64::from(self.most)) as u8
    }
}

/// How the picture is stored.
pub(crate) struct Layout<'a> {
    width: u32,
    height: u32,
    pub top_down: bool,
    pub bits: u16,
    pub compression: Compression,
    /// Red, green, blue, alpha.
    pub channels: [Channel; 4],
    palette: &'a [u8],
    /// Bytes of a colour of the palette: 3 in the oldest files.
    entry: usize,
    /// Where the pixels start.
    pub data: usize,
}

impl Layout<'_> {
    /// A colour of the palette; black beyond its end.
    pub(crate) fn colour(&self, index: usize) -> [u8; 3] {
        let at = index * self.entry;
        let bytes = self.palette.get(at..at + 3);
        bytes.map_or([0; 3], |bytes| [bytes[2], bytes[1], bytes[0]])
    }
}

pub(crate) fn layout(bytes: &[u8]) -> Result<Layout<'_>, ImageError> {
    let fields = Fields::little_endian(bytes);
    let truncated = || ImageError::truncated(Format::Bmp, bytes);
    let unsupported = |feature: String| ImageError::unsupported(Format::Bmp, feature);
    let data = fields.u32(10).ok_or_else(truncated)? as usize;
    let header = fields.u32(14).ok_or_else(truncated)? as usize;
    let oldest = header == 12;
    let (width, height, bits) = if oldest {
        (
            i32::from(fields.u16(18).ok_or_else(truncated)?),
            i32::from(fields.u16(20).ok_or_else(truncated)?),
            fields.u16(24).ok_or_else(truncated)?,
        )
    } else {
        (
            fields.u32(18).ok_or_else(truncated)?.cast_signed(),
            fields.u32(22).ok_or_else(truncated)?.cast_signed(),
            fields.u16(28).ok_or_else(truncated)?,
        )
    };
    if width <= 0 || height == 0 || height == i32::MIN {
        return Err(ImageError::corrupt(
            Format::Bmp,
            format!("its header gives a size of {width}x{height} pixels"),
        ));
    }
    let code = if header >= 40 {
        fields.u32(30).ok_or_else(truncated)?
    } else {
        0
    };
    // OS/2's second header gives 3 and 4 another meaning.
    let is_os2 = header == 64;
    let compression = match (code, bits) {
        (0, 1 | 2 | 4 | 8 | 24) => Compression::None,
        (0, 32) => Compression::None,
        (0, 16) => Compression::Masks,
        (1, 8) | (2, 4) => Compression::Runs,
        (4, 24) if is_os2 => Compression::Runs,
        (3 | 6, 16 | 32) if !is_os2 => Compression::Masks,
        (3, 1) if is_os2 => return Err(unsupported("Huffman coding of OS/2".into())),
        (4, _) => return Err(unsupported("JPEG within".into())),
        (5, _) => return Err(unsupported("PNG within".into())),
        _ => return Err(unsupported(format!("compression {code} of {bits} bits"))),
    };
    let masked = code == 3 || code == 6;
    let mask = |index: usize| fields.u32(54 + 4 * index).ok_or_else(truncated);
    let masks = if compression != Compression::Masks {
        [0; 4]
    } else if masked {
        // A fourth mask exists from BITMAPV3HEADER on, and where the compression says so.
        let alpha = if header >= 56 || code == 6 { mask(3)? } else { 0 };
        [mask(0)?, mask(1)?, mask(2)?, alpha]
    } else {
        [0x7C00, 0x03E0, 0x001F, 0]
    };
    // Behind a header of 40 bytes come the masks, if any; then the palette.
    let behind = 14
        + header
        + if header == 40 && masked {
            if code == 6 { 16 } else { 12 }
        } else {
            0
        };
    let entry = if oldest { 3 } else { 4 };
    let colours = match if header >= 40 { fields.u32(46).unwrap_or(0) } else { 0 } {
        0 => 256,
        used => used.min(256) as usize,
    };
    let palette = if bits <= 8 {
        let length = (colours.min(1 << bits) * entry).min(data.saturating_sub(behind));
        fields.slice(behind, length)
    } else {
        &[]
    };
    Ok(Layout {
        width: width.unsigned_abs(),
        height: height.unsigned_abs(),
        top_down: height < 0,
        bits,
        compression,
        channels: masks.map(Channel::of),
        palette,
        entry,
        data,
    })
}

pub(super) fn read(bytes: &[u8]) -> Result<Header, ImageError> {
    let layout = layout(bytes)?;
    let has_alpha = layout.channels[3].is_some();
    Ok(Header {
        has_alpha,
        bits_per_channel: if layout.bits == 16 { 5 } else { 8 },
        colour: if layout.bits <= 8 { "palette" } else { "RGB" },
        codec_bytes: 3 * area(layout.width, layout.height),
        ..Header::new(Format::Bmp, layout.width, layout.height)
    })
}
