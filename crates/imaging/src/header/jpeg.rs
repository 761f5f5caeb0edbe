//! JPEG markers (ITU-T T.81, annex B): up to the first scan, and from there the number of scans.

use super::{Fields, Header, area};
use crate::exif::{Orientation, XMP};
use crate::{Format, ImageError};

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const DQT: u8 = 0xDB;
const APP0: u8 = 0xE0;
const APP1: u8 = 0xE1;
const APP14: u8 = 0xEE;

/// Scans that a picture of any size may have.
pub(crate) const MAX_SCANS: u64 = 1000;
/// Scans that any picture may have, whatever its size; and how many pixels all further ones may walk over together.
/// Each scan costs a walk over the whole picture, whatever its length.
const FREE_SCANS: u64 = 100;
const MAX_SCANNED_PIXELS: u64 = 4_000_000_000;

pub(super) fn read(bytes: &[u8]) -> Result<Header, ImageError> {
    let fields = Fields::big_endian(bytes);
    let truncated = || ImageError::truncated(Format::Jpeg, bytes);
    let mut at = 2;
    let mut orientation = Orientation::default();
    let mut signs = Signs::default();
    let mut frame: Option<Frame> = None;
    loop {
        // Between segments libjpeg skips whatever is not a marker; cameras rely on it.
        while fields.u8(at).ok_or_else(truncated)? != 0xFF {
            at += 1;
        }
        while fields.u8(at).ok_or_else(truncated)? == 0xFF {
            at += 1;
        }
        let marker = fields.u8(at).ok_or_else(truncated)?;
        at += 1;
        match marker {
            0x00 | 0x01 | SOI | 0xD0..=0xD7 => continue,
            EOI => return Err(ImageError::corrupt(Format::Jpeg, "it ends without a picture")),
            _ => {}
        }
        let length = usize::from(fields.u16(at).ok_or_else(truncated)?);
        if length < 2 {
            return Err(ImageError::corrupt(
                Format::Jpeg,
                format!("segment 0xFF{marker:02X} has length {length}"),
            ));
        }
        let body = at + 2;
        let segment = bytes.get(body..at + length).ok_or_else(truncated)?;
        at += length;
        match marker {
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                if frame.is_some() {
                    return Err(ImageError::unsupported(
                        Format::Jpeg,
                        "hierarchical coding (several frames)",
                    ));
                }
                frame = Some(Frame::read(marker, segment)?);
            }
            APP0 if segment.starts_with(b"JFIF\0") => signs.jfif = true,
            // The first EXIF block counts, as in Pillow.
            APP1 if segment.starts_with(b"Exif\0\0") => orientation.exif(segment),
            APP1 if segment.starts_with(XMP) => orientation.xmp(&segment[XMP.len()..]),
            APP14 if segment.starts_with(b"Adobe") => signs.adobe_transform = segment.get(11).copied(),
            DQT => signs.wide_quantisation |= segment.first().is_some_and(|kind| kind >> 4 != 0),
            SOS => {
                let frame =
                    frame.ok_or_else(|| ImageError::corrupt(Format::Jpeg, "a scan comes before the frame header"))?;
                let scans = Scans::read(&frame, segment, bytes, at);
                if scans.count > FREE_SCANS
                    && scans.count.saturating_mul(area(frame.width, frame.height)) > MAX_SCANNED_PIXELS
                    || scans.count > MAX_SCANS
                {
                    return Err(too_many_scans(scans.count, frame.width, frame.height));
                }
                return Ok(frame.header(orientation.get(), &signs, &scans));
            }
            _ => {}
        }
    }
}

/// The error for a picture that would be walked over too often.
pub(crate) fn too_many_scans(count: u64, width: u32, height: u32) -> ImageError {
    ImageError::unsupported(
        Format::Jpeg,
        format!("{count} scans in a picture of {width}x{height} pixels"),
    )
}

/// What the markers say about colours and tables.
#[derive(Default)]
struct Signs {
    jfif: bool,
    adobe_transform: Option<u8>,
    /// Quantisation steps of 16 bits.
    wide_quantisation: bool,
}

/// How the picture is cut into scans.
struct Scans {
    count: u64,
    /// Whether the first scan holds all components, in the order of the frame.
    first_is_whole: bool,
    /// Whether an end marker follows; only looked for where there are further scans.
    is_ended: bool,
}

impl Scans {
    /// `first` is the first scan's header, and `at` where its data start.
    fn read(frame: &Frame, first: &[u8], bytes: &[u8], at: usize) -> Self {
        let selectors = first
            .get(1..)
            .unwrap_or(&[])
            .chunks_exact(2)
            .map(|selector| selector[0]);
        let first_is_whole = first.first().map(|&count| usize::from(count)) == Some(frame.components.len())
            && selectors
                .take(frame.components.len())
                .eq(frame.components.iter().map(|component| component.id));
        let (further, is_ended) = if first_is_whole && !frame.progressive {
            (0, true)
        } else {
            further_scans(bytes, at)
        };
        Self {
            count: 1 + further,
            first_is_whole,
            is_ended,
        }
    }
}

/// Scans whose headers come at or after `at`, and whether an end marker comes behind them.
fn further_scans(bytes: &[u8], mut at: usize) -> (u64, bool) {
    let mut count = 0;
    while let Some(found) = bytes
        .get(at..)
        .and_then(|rest| rest.iter().position(|&byte| byte == 0xFF))
    {
        at += found + 1;
        match bytes.get(at) {
            Some(&SOS) => count += 1,
            Some(&EOI) => return (count, true),
            _ => {}
        }
    }
    (count, false)
}

struct Component {
    id: u8,
    horizontal: u8,
    vertical: u8,
}

struct Frame {
    width: u32,
    height: u32,
    progressive: bool,
    arithmetic: bool,
    components: Vec<Component>,
}

impl Frame {
    fn read(marker: u8, segment: &[u8]) -> Result<Self, ImageError> {
        let fields = Fields::big_endian(segment);
        let short = || ImageError::corrupt(Format::Jpeg, "its frame header is too short");
        let process = match marker {
            0xC0..=0xC2 | 0xC9 | 0xCA => None,
            0xC3 | 0xCB => Some("lossless coding"),
            _ => Some("hierarchical coding"),
        };
        if let Some(process) = process {
            return Err(ImageError::unsupported(Format::Jpeg, process));
        }
        let precision = fields.u8(0).ok_or_else(short)?;
        if precision != 8 {
            return Err(ImageError::unsupported(
                Format::Jpeg,
                format!("{precision} bits a sample"),
            ));
        }
        let height = u32::from(fields.u16(1).ok_or_else(short)?);
        let width = u32::from(fields.u16(3).ok_or_else(short)?);
        if height == 0 {
            return Err(ImageError::unsupported(
                Format::Jpeg,
                "a height that is given after the first scan (DNL)",
            ));
        }
        let count = fields.u8(5).ok_or_else(short)?;
        if !matches!(count, 1 | 3 | 4) {
            return Err(ImageError::unsupported(
                Format::Jpeg,
                format!("{count} colour components"),
            ));
        }
        let mut components = Vec::with_capacity(usize::from(count));
        for component in 0..usize::from(count) {
            let id = fields.u8(6 + component * 3).ok_or_else(short)?;
            let factors = fields.u8(6 + component * 3 + 1).ok_or_else(short)?;
            let (horizontal, vertical) = (factors >> 4, factors & 15);
            if !(1..=4).contains(&horizontal) || !(1..=4).contains(&vertical) {
                return Err(ImageError::corrupt(
                    Format::Jpeg,
                    format!("component {component} has sampling factors {horizontal}x{vertical}"),
                ));
            }
            components.push(Component {
                id,
                horizontal,
                vertical,
            });
        }
        Ok(Self {
            width,
            height,
            progressive: matches!(marker, 0xC2 | 0xCA),
            arithmetic: matches!(marker, 0xC9 | 0xCA),
            components,
        })
    }

    /// Whether `zune-jpeg` may have it: everything about it is as most encoders write it.
    fn is_ordinary(&self, signs: &Signs, scans: &Scans) -> bool {
        let usual_sampling = match self.components.as_slice() {
            [grey] => (grey.horizontal, grey.vertical) == (1, 1),
            [luma, chroma @ ..] => {
                matches!((luma.horizontal, luma.vertical), (1 | 2, 1) | (2, 2))
                    && chroma.iter().all(|c| (c.horizontal, c.vertical) == (1, 1))
            }
            [] => false,
        };
        let usual_colours = match self.components.as_slice() {
            [_] => true,
            [a, b, c] => matches!(signs.adobe_transform, None | Some(1)) && [a.id, b.id, c.id] != *b"RGB",
            _ => false,
        };
        // Chroma of two columns is not interpolated; and where scans may be missing, they must be counted.
        let large = self.width >= 16 && self.height >= 16;
        usual_sampling
            && usual_colours
            && large
            && scans.first_is_whole
            && scans.is_ended
            && !self.arithmetic
            && !signs.wide_quantisation
    }

    fn header(&self, orientation: u8, signs: &Signs, scans: &Scans) -> Header {
        let ids = self.components.iter().map(|component| component.id);
        let colour = match (self.components.len(), signs.adobe_transform) {
            (1, _) => "grey",
            (3, _) if signs.jfif => "YCbCr",
            (3, Some(0)) => "RGB",
            (3, None) if ids.eq(*b"RGB") => "RGB",
            (3, _) => "YCbCr",
            (_, None | Some(0)) => "CMYK",
            _ => "YCCK",
        };
        let pixels = area(self.width, self.height);
        let horizontal = u64::from(self.components.iter().map(|c| c.horizontal).max().unwrap_or(1));
        let vertical = u64::from(self.components.iter().map(|c| c.vertical).max().unwrap_or(1));
        let columns = u64::from(self.width).div_ceil(8 * horizontal);
        let rows = u64::from(self.height).div_ceil(8 * vertical);
        let blocks: u64 = self
            .components
            .iter()
            .map(|c| u64::from(c.horizontal) * u64::from(c.vertical))
            .sum();
        let blocks = columns * rows * blocks;
        // The quick decoder: coefficients of the whole picture, 2 bytes each, when it is progressive; and of one row of
        // blocks per component coefficients, upsampled samples and scratch, 2 bytes each.
        let row_samples = columns * horizontal * 8 * vertical * 8;
        let row_buffers = row_samples * 2 * (self.components.len() as u64 * 4 + 8);
        let quick = row_buffers + if self.progressive { blocks * 128 } else { 0 };
        // Our own, which may have the last word: every sample; and where coefficients are gathered these too, with a
        // record for each block.
        let own = blocks
            * if self.progressive || self.arithmetic {
                64 + 128 + 8
            } else {
                64
            };
        Header {
            orientation,
            colour,
            codec_bytes: 3 * pixels + quick.max(own),
            is_ordinary: self.is_ordinary(signs, scans),
            ..Header::new(Format::Jpeg, self.width, self.height)
        }
    }
}
