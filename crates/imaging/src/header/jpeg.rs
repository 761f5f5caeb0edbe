//! JPEG markers up to the first scan (ITU-T T.81, annex B).

use super::{Fields, Header, area};
use crate::{Format, ImageError, exif};

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const APP1: u8 = 0xE1;
const APP14: u8 = 0xEE;

pub(super) fn read(bytes: &[u8]) -> Result<Header, ImageError> {
    let fields = Fields::big_endian(bytes);
    let truncated = || ImageError::truncated(Format::Jpeg, bytes);
    let mut at = 2;
    let mut orientation = None;
    let mut adobe_transform = None;
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
            // The first EXIF block counts, as in Pillow.
            APP1 if orientation.is_none() && segment.starts_with(b"Exif\0\0") => {
                orientation = Some(exif::orientation(segment));
            }
            APP14 if segment.starts_with(b"Adobe") => adobe_transform = segment.get(11).copied(),
            SOS => {
                let frame =
                    frame.ok_or_else(|| ImageError::corrupt(Format::Jpeg, "a scan comes before the frame header"))?;
                let components_in_scan = segment.first().copied().unwrap_or(0);
                return Ok(frame.header(orientation.unwrap_or(1), adobe_transform, components_in_scan));
            }
            _ => {}
        }
        at += length;
    }
}

struct Frame {
    width: u32,
    height: u32,
    progressive: bool,
    /// (horizontal, vertical) sampling factors.
    sampling: Vec<(u8, u8)>,
}

impl Frame {
    fn read(marker: u8, segment: &[u8]) -> Result<Self, ImageError> {
        let fields = Fields::big_endian(segment);
        let short = || ImageError::corrupt(Format::Jpeg, "its frame header is too short");
        let process = match marker {
            0xC0..=0xC2 => None,
            0xC3 => Some("lossless coding"),
            0xC9..=0xCB | 0xCD..=0xCF => Some("arithmetic coding"),
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
        let components = fields.u8(5).ok_or_else(short)?;
        if !matches!(components, 1 | 3 | 4) {
            return Err(ImageError::unsupported(
                Format::Jpeg,
                format!("{components} colour components"),
            ));
        }
        let mut sampling = Vec::with_capacity(usize::from(components));
        for component in 0..usize::from(components) {
            let factors = fields.u8(6 + component * 3 + 1).ok_or_else(short)?;
            let (horizontal, vertical) = (factors >> 4, factors & 15);
            if !(1..=4).contains(&horizontal) || !(1..=4).contains(&vertical) {
                return Err(ImageError::corrupt(
                    Format::Jpeg,
                    format!("component {component} has sampling factors {horizontal}x{vertical}"),
                ));
            }
            sampling.push((horizontal, vertical));
        }
        Ok(Self {
            width,
            height,
            progressive: marker == 0xC2,
            sampling,
        })
    }

    fn header(&self, orientation: u8, adobe_transform: Option<u8>, components_in_scan: u8) -> Header {
        let colour = match (self.sampling.len(), adobe_transform) {
            (1, _) => "grey",
            (3, Some(0)) => "RGB",
            (3, _) => "YCbCr",
            (_, Some(2)) => "YCCK",
            _ => "CMYK",
        };
        let pixels = area(self.width, self.height);
        let horizontal = u64::from(self.sampling.iter().map(|s| s.0).max().unwrap_or(1));
        let vertical = u64::from(self.sampling.iter().map(|s| s.1).max().unwrap_or(1));
        let columns = u64::from(self.width).div_ceil(8 * horizontal);
        let rows = u64::from(self.height).div_ceil(8 * vertical);
        // Coefficients of the whole picture are kept, 2 bytes each, when a component comes in more than one scan
        // (progressive) or components come one after another.
        let whole = self.progressive || usize::from(components_in_scan) < self.sampling.len();
        let coefficients: u64 = if whole {
            let blocks: u64 = self.sampling.iter().map(|s| u64::from(s.0) * u64::from(s.1)).sum();
            columns * rows * blocks * 64 * 2
        } else {
            0
        };
        // One row of blocks per component: coefficients, upsampled samples and scratch, 2 bytes each.
        let row_samples = columns * horizontal * 8 * vertical * 8;
        let row_buffers = row_samples * 2 * (self.sampling.len() as u64 * 4 + 8);
        Header {
            format: Format::Jpeg,
            width: self.width,
            height: self.height,
            orientation,
            frames: 1,
            bits_per_channel: 8,
            has_alpha: false,
            colour,
            codec_bytes: 3 * pixels + coefficients + row_buffers,
            conversion_bytes: 0,
        }
    }
}
