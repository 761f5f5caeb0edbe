//! TIFF directories (TIFF 6.0, section 2; BigTIFF).

use super::{Fields, Header};
use crate::exif::Orientation;
use crate::{Format, ImageError};

/// Pages counted at most: a directory chain is as long as its author wants, and can loop.
const MAX_PAGES: u32 = 65_536;

mod tag {
    pub const WIDTH: u16 = 256;
    pub const HEIGHT: u16 = 257;
    pub const BITS_PER_SAMPLE: u16 = 258;
    pub const COMPRESSION: u16 = 259;
    pub const PHOTOMETRIC: u16 = 262;
    pub const FILL_ORDER: u16 = 266;
    pub const STRIP_OFFSETS: u16 = 273;
    pub const ORIENTATION: u16 = 274;
    pub const SAMPLES_PER_PIXEL: u16 = 277;
    pub const ROWS_PER_STRIP: u16 = 278;
    pub const STRIP_BYTES: u16 = 279;
    pub const PLANAR: u16 = 284;
    pub const T4_OPTIONS: u16 = 292;
    pub const PREDICTOR: u16 = 317;
    pub const COLOUR_MAP: u16 = 320;
    pub const TILE_WIDTH: u16 = 322;
    pub const TILE_HEIGHT: u16 = 323;
    pub const TILE_OFFSETS: u16 = 324;
    pub const TILE_BYTES: u16 = 325;
    pub const EXTRA_SAMPLES: u16 = 338;
    pub const SAMPLE_FORMAT: u16 = 339;
    pub const JPEG_TABLES: u16 = 347;
    pub const JPEG_STREAM: u16 = 513;
    pub const JPEG_STREAM_BYTES: u16 = 514;
    pub const YCBCR_SUBSAMPLING: u16 = 530;
    pub const XMP: u16 = 700;
}

/// What an entry of a directory points to; read when it is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Array<'a> {
    fields: Fields<'a>,
    kind: u16,
    pub count: u64,
    at: usize,
}

impl<'a> Array<'a> {
    fn size(&self) -> usize {
        match self.kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            _ => 0,
        }
    }

    /// Element `index` of an array of integers.
    pub(crate) fn number(&self, index: u64) -> Option<u64> {
        if index >= self.count {
            return None;
        }
        let size = self.size();
        let at = self.at.checked_add(usize::try_from(index).ok()?.checked_mul(size)?)?;
        match size {
            1 => self.fields.u8(at).map(u64::from),
            2 => self.fields.u16(at).map(u64::from),
            4 => self.fields.u32(at).map(u64::from),
            8 => self.fields.u64(at),
            _ => None,
        }
    }

    /// All bytes, as far as they are there.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        let length = usize::try_from(self.count)
            .unwrap_or(usize::MAX)
            .saturating_mul(self.size());
        self.fields.slice(self.at, length)
    }
}

/// How the first page is stored.
pub(crate) struct Layout<'a> {
    pub width: u64,
    pub height: u64,
    pub bits: u16,
    /// Whether all samples have as many bits.
    pub bits_agree: bool,
    pub samples: u16,
    pub compression: u64,
    /// 0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr, …
    pub photometric: u64,
    /// 1 unsigned, 2 signed, 3 floating point.
    pub sample_format: u64,
    pub predictor: u64,
    /// Whether each sample has strips of its own.
    pub planar: bool,
    /// Whether the lowest bit of a byte comes first.
    pub reversed_bits: bool,
    /// Meaning of the first extra sample: 0 anything, 1 premultiplied alpha, 2 alpha.
    pub extra: Option<u64>,
    /// Columns and rows of a chunk, and whether chunks are tiles.
    pub chunk: (u64, u64),
    pub tiled: bool,
    pub offsets: Option<Array<'a>>,
    pub sizes: Option<Array<'a>>,
    pub colour_map: Option<Array<'a>>,
    /// Columns and rows of luma that share a sample of chroma.
    pub subsampling: (u64, u64),
    pub t4_options: u64,
    pub jpeg_tables: &'a [u8],
    /// A complete JPEG stream of the old style.
    pub jpeg_stream: &'a [u8],
    pub big_endian: bool,
    /// Of the file.
    bytes: u64,
    orientation: u8,
    frames: u32,
}

/// Reads the first directory.
pub(crate) fn layout(bytes: &[u8]) -> Result<Layout<'_>, ImageError> {
    let truncated = || ImageError::truncated(Format::Tiff, bytes);
    let file = File::open(bytes).ok_or_else(truncated)?;
    let mut layout = Layout {
        width: 0,
        height: 0,
        bits: 1,
        bits_agree: true,
        samples: 1,
        compression: 1,
        photometric: 1,
        sample_format: 1,
        predictor: 1,
        planar: false,
        reversed_bits: false,
        extra: None,
        chunk: (0, 0),
        tiled: false,
        offsets: None,
        sizes: None,
        colour_map: None,
        subsampling: (2, 2),
        t4_options: 0,
        jpeg_tables: &[],
        jpeg_stream: &[],
        big_endian: bytes.starts_with(b"MM"),
        bytes: bytes.len() as u64,
        orientation: 1,
        frames: 1,
    };
    let mut orientation = None;
    let mut xmp = Orientation::default();
    let mut rows_per_strip = u64::MAX;
    let mut tile = (0, 0);
    let mut jpeg = (0, None);
    for entry in 0..file.entries(file.first).ok_or_else(truncated)? {
        let (tag, array) = file.entry(file.first, entry).ok_or_else(truncated)?;
        // An entry that nobody here needs may point anywhere.
        let value = array.number(0).unwrap_or(0);
        let small = u16::try_from(value).unwrap_or(u16::MAX);
        match tag {
            tag::WIDTH => layout.width = value,
            tag::HEIGHT => layout.height = value,
            tag::BITS_PER_SAMPLE => {
                layout.bits = small;
                layout.bits_agree = (1..array.count.min(16)).all(|index| array.number(index) == Some(value));
            }
            tag::COMPRESSION => layout.compression = value,
            tag::PHOTOMETRIC => layout.photometric = value,
            tag::FILL_ORDER => layout.reversed_bits = value == 2,
            tag::STRIP_OFFSETS => layout.offsets = Some(array),
            tag::STRIP_BYTES => layout.sizes = Some(array),
            tag::TILE_OFFSETS => {
                layout.offsets = Some(array);
                layout.tiled = true;
            }
            tag::TILE_BYTES => layout.sizes = Some(array),
            tag::ORIENTATION => orientation = u8::try_from(value).ok().filter(|value| (1..=8).contains(value)),
            tag::SAMPLES_PER_PIXEL => layout.samples = small,
            tag::ROWS_PER_STRIP => rows_per_strip = value,
            tag::PLANAR => layout.planar = value == 2,
            tag::T4_OPTIONS => layout.t4_options = value,
            tag::PREDICTOR => layout.predictor = value,
            tag::COLOUR_MAP => layout.colour_map = Some(array),
            tag::TILE_WIDTH => tile.0 = value,
            tag::TILE_HEIGHT => tile.1 = value,
            tag::EXTRA_SAMPLES => layout.extra = Some(value),
            tag::SAMPLE_FORMAT => layout.sample_format = value,
            tag::JPEG_TABLES => layout.jpeg_tables = array.bytes(),
            tag::JPEG_STREAM => jpeg.0 = value,
            tag::JPEG_STREAM_BYTES => jpeg.1 = Some(value),
            tag::YCBCR_SUBSAMPLING => layout.subsampling = (value, array.number(1).unwrap_or(0)),
            tag::XMP => xmp.xmp(array.bytes()),
            _ => {}
        }
    }
    if layout.samples == 1 {
        layout.planar = false;
    }
    layout.chunk = if layout.tiled {
        tile
    } else {
        (layout.width, rows_per_strip.min(layout.height))
    };
    layout.orientation = orientation.unwrap_or_else(|| xmp.get());
    if jpeg.0 != 0 {
        let length = jpeg
            .1
            .and_then(|length| usize::try_from(length).ok())
            .unwrap_or(usize::MAX);
        let at = usize::try_from(jpeg.0).unwrap_or(usize::MAX);
        layout.jpeg_stream = file.fields.slice(at, length);
    }
    let mut at = file.first;
    // Directories may point backwards: only the count bounds the walk.
    while let Some(next) = file.next(at)
        && next != 0
        && layout.frames < MAX_PAGES
        && file.entries(next).is_some_and(|entries| entries > 0)
    {
        layout.frames += 1;
        at = next;
    }
    Ok(layout)
}

pub(super) fn read(bytes: &[u8]) -> Result<Header, ImageError> {
    let layout = layout(bytes)?;
    let pixels = layout.width.saturating_mul(layout.height);
    let colour = match layout.photometric {
        0 | 1 | 4 => "grey",
        3 => "palette",
        5 => "CMYK",
        6 => "YCbCr",
        _ => "RGB",
    };
    let side = |length: u64| u32::try_from(length).unwrap_or(u32::MAX);
    Ok(Header {
        orientation: layout.orientation,
        frames: layout.frames,
        bits_per_channel: u8::try_from(layout.bits).unwrap_or(u8::MAX),
        has_alpha: layout.alpha().is_some(),
        colour,
        // The picture, and a chunk of it as stored and as unpacked.
        codec_bytes: pixels.saturating_mul(3).saturating_add(layout.chunk_memory()),
        ..Header::new(Format::Tiff, side(layout.width), side(layout.height))
    })
}

impl Layout<'_> {
    /// Samples of a pixel that are colour: the others are extra.
    pub(crate) fn colour_samples(&self) -> u16 {
        match self.photometric {
            2 | 6 | 8 => 3,
            5 => 4,
            _ => 1,
        }
    }

    /// Whether there is alpha, and then whether colours are multiplied with it. A fourth sample that nobody explains is
    /// alpha, as other readers have it.
    pub(crate) fn alpha(&self) -> Option<bool> {
        if self.samples <= self.colour_samples() || self.photometric == 3 {
            return None;
        }
        match self.extra {
            Some(1) => Some(true),
            Some(2) => Some(false),
            None if self.photometric == 2 => Some(false),
            _ => None,
        }
    }

    /// Bytes of a row of a chunk, of all samples or of one where they lie apart.
    pub(crate) fn row_bytes(&self) -> u64 {
        let samples = if self.planar { 1 } else { u64::from(self.samples) };
        let bits = self
            .chunk
            .0
            .saturating_mul(samples)
            .saturating_mul(u64::from(self.bits));
        bits.div_ceil(8)
    }

    /// Upper bound, in bytes, of what decoding holds beside the picture.
    fn chunk_memory(&self) -> u64 {
        let planes = if self.planar { u64::from(self.samples) } else { 1 };
        let unpacked = self.row_bytes().saturating_mul(self.chunk.1).saturating_mul(planes);
        // A chunk that is a JPEG: its stream made whole, planes of up to four components padded to whole MCUs with
        // their coefficients, and its pixels.
        let jpeg = if matches!(self.compression, 6 | 7) {
            // A stream of the old style is the whole picture.
            let (width, height) = if self.compression == 6 {
                (self.width, self.height)
            } else {
                self.chunk
            };
            let padded = (width.saturating_add(31)).saturating_mul(height.saturating_add(31));
            padded.saturating_mul(20).saturating_add(self.bytes)
        } else {
            0
        };
        let reversed = if self.reversed_bits {
            unpacked.saturating_add(1 << 16)
        } else {
            0
        };
        unpacked
            .saturating_add(reversed)
            .saturating_add(jpeg)
            .saturating_add(self.row_bytes())
            .saturating_add(self.chunk.0.max(self.width).saturating_mul(32))
            .saturating_add(1 << 18)
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

    /// Tag of an entry, and its values: in the entry itself where they fit, else behind the offset.
    fn entry(&self, directory: usize, entry: usize) -> Option<(u16, Array<'a>)> {
        let (head, step, inline) = if self.big { (8, 20, 8) } else { (2, 12, 4) };
        let at = directory.checked_add(head)?.checked_add(entry.checked_mul(step)?)?;
        let tag = self.fields.u16(at)?;
        let kind = self.fields.u16(at + 2)?;
        let count = if self.big {
            self.fields.u64(at + 4)?
        } else {
            u64::from(self.fields.u32(at + 4)?)
        };
        let mut array = Array {
            fields: self.fields,
            kind,
            count,
            at: at + if self.big { 12 } else { 8 },
        };
        if count.saturating_mul(array.size() as u64) > inline {
            array.at = if self.big {
                usize::try_from(self.fields.u64(array.at)?).unwrap_or(usize::MAX)
            } else {
                self.fields.u32(array.at)? as usize
            };
        }
        Some((tag, array))
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
