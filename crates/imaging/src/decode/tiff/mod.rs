//! TIFF: strips or tiles, one after another, straight into RGB (TIFF 6.0 and its supplements).
//!
//! Read are all photometric interpretations but CIE Lab and the logarithmic ones, samples of 1 to 64 bits, whole or
//! floating, together or in planes of their own, and the compressions that `unpack` names. The `tiff` crate, which
//! `image` uses, knows neither palettes nor planes of CMYK nor floating-point grey, and keeps the whole picture twice.

mod fax;
mod samples;
mod unpack;

use self::samples::{Chunk, Converter};
use super::{Input, jpeg};
use crate::header::tiff::{Layout, layout};
use crate::{Format, Image, ImageError, buffers};

pub(super) fn decode(input: &Input) -> Result<Image, ImageError> {
    let layout = layout(input.bytes)?;
    check(&layout)?;
    let (width, height) = (input.header.width, input.header.height);
    let mut picture = Picture {
        width: width as usize,
        height: height as usize,
        pixels: buffers::zeroed(width as usize * height as usize * 3)?,
    };
    if layout.compression == 6 {
        // The old style, in the one form that says all: a complete stream.
        if !layout.jpeg_stream.starts_with(&[0xFF, 0xD8]) {
            return Err(ImageError::unsupported(Format::Tiff, "old-style JPEG compression"));
        }
        let part =
            jpeg::decode_part(input, layout.jpeg_stream, (layout.width, layout.height), None).map_err(as_tiff)?;
        picture.place(&part, 0, 0);
        return Image::new(width, height, picture.pixels);
    }
    let mut converter = Converter::new(&layout, input.options.matte)?;
    if converter.needs_range() && layout.compression != 7 {
        for_each_chunk(input, &layout, |chunk, _| converter.widen_range(chunk))?;
    }
    if is_colour_jpeg(&layout) {
        for (index, (left, top)) in places(&layout).enumerate() {
            input.poll.check()?;
            let stream = jpeg_stream(&layout, stored(input, &layout, index as u64)?)?;
            let part =
                jpeg::decode_part(input, &stream, layout.chunk, Some(layout.photometric == 6)).map_err(as_tiff)?;
            picture.place(&part, left, top);
        }
    } else {
        let mut row = buffers::zeroed(layout.chunk.0 as usize * 3)?;
        for_each_chunk(input, &layout, |chunk, (left, top)| {
            for y in 0..chunk.rows.min(picture.height - top) {
                if y % 64 == 0 {
                    input.poll.check()?;
                }
                converter.row(chunk, y, &mut row);
                picture.place_row(&row, left, top + y);
            }
            Ok(())
        })?;
    }
    Image::new(width, height, picture.pixels)
}

/// The TIFF is what the user has: an error of a stream within names it.
fn as_tiff(error: ImageError) -> ImageError {
    match error {
        ImageError::Corrupt { reason, .. } => ImageError::corrupt(Format::Tiff, format!("JPEG within: {reason}")),
        ImageError::Unsupported { feature, .. } => {
            ImageError::unsupported(Format::Tiff, format!("JPEG within: {feature}"))
        }
        ImageError::Truncated { bytes, .. } => {
            ImageError::corrupt(Format::Tiff, format!("JPEG within: it ends after {bytes} bytes"))
        }
        other => other,
    }
}

struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// Lays a row of RGB at (left, top); what is beyond the edge is padding.
    fn place_row(&mut self, row: &[u8], left: usize, top: usize) {
        if top >= self.height || left >= self.width {
            return;
        }
        let count = (row.len() / 3).min(self.width - left);
        let at = (top * self.width + left) * 3;
        self.pixels[at..at + count * 3].copy_from_slice(&row[..count * 3]);
    }

    fn place(&mut self, part: &Image, left: usize, top: usize) {
        let stride = part.width() as usize * 3;
        for (y, row) in part.pixels().chunks_exact(stride).enumerate() {
            self.place_row(row, left, top + y);
        }
    }
}

/// What no part of this module could read, and what contradicts itself.
fn check(layout: &Layout) -> Result<(), ImageError> {
    let unsupported = |feature: String| Err(ImageError::unsupported(Format::Tiff, feature));
    let corrupt = |reason: String| Err(ImageError::corrupt(Format::Tiff, reason));
    match layout.photometric {
        0..=6 => {}
        8 => return unsupported("CIE Lab colours".into()),
        other => return unsupported(format!("photometric interpretation {other}")),
    }
    let (bits, samples) = (layout.bits, layout.samples);
    let fits = match layout.sample_format {
        3 => matches!(bits, 16 | 32 | 64),
        _ => matches!(bits, 1..=16 | 32 | 64),
    };
    if !layout.bits_agree || !fits {
        let kind = if layout.sample_format == 3 {
            "floating-point "
        } else {
            ""
        };
        let unlike = if layout.bits_agree {
            ""
        } else {
            ", and of other numbers"
        };
        return unsupported(format!("{kind}samples of {bits} bits{unlike}"));
    }
    if samples < layout.colour_samples() || samples > 64 {
        return corrupt(format!("it has {samples} samples a pixel"));
    }
    if layout.chunk.0 == 0 || layout.chunk.1 == 0 || layout.chunk.0 > 1 << 24 || layout.chunk.1 > 1 << 24 {
        return corrupt(format!("its parts have {}x{} pixels", layout.chunk.0, layout.chunk.1));
    }
    if layout.photometric == 3 && (bits > 8 || layout.colour_map.is_none()) {
        return unsupported(format!("a palette of {bits} bits"));
    }
    if is_subsampled(layout) && (bits != 8 || samples != 3 || layout.planar || layout.predictor != 1) {
        return unsupported("subsampled YCbCr in an unusual form".into());
    }
    if layout.predictor == 2 && !matches!(bits, 8 | 16 | 32 | 64) || layout.predictor == 3 && layout.sample_format != 3
    {
        return unsupported(format!("predictor {} of {bits} bits", layout.predictor));
    }
    if !matches!(layout.predictor, 1..=3) {
        return unsupported(format!("predictor {}", layout.predictor));
    }
    Ok(())
}

/// Whether JPEG streams hold whole pixels in the colours that JPEG itself knows.
fn is_colour_jpeg(layout: &Layout) -> bool {
    let known = matches!((layout.photometric, layout.samples), (1, 1) | (2 | 6, 3));
    layout.compression == 7 && known && (layout.samples == 1 || !layout.planar)
}

/// Whether luma and chroma lie in blocks of unlike numbers, as YCbCr does without JPEG.
fn is_subsampled(layout: &Layout) -> bool {
    layout.photometric == 6 && layout.compression != 7 && layout.subsampling != (1, 1)
}

/// Where the chunks lie, row by row: (left, top).
fn places(layout: &Layout) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (across, down) = (layout.chunk.0 as usize, layout.chunk.1 as usize);
    let (width, height) = (layout.width as usize, layout.height as usize);
    (0..height)
        .step_by(down)
        .flat_map(move |top| (0..width).step_by(across).map(move |left| (left, top)))
}

/// The stored bytes of a chunk.
fn stored<'a>(input: &Input<'a>, layout: &Layout<'a>, index: u64) -> Result<&'a [u8], ImageError> {
    let missing = || ImageError::corrupt(Format::Tiff, format!("it does not say where its part {index} is"));
    let at = layout
        .offsets
        .and_then(|offsets| offsets.number(index))
        .ok_or_else(missing)?;
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    let bytes = input.bytes;
    let rest = bytes.get(at..).filter(|rest| !rest.is_empty());
    let rest = rest.ok_or_else(|| ImageError::truncated(Format::Tiff, bytes))?;
    // Some writers leave the sizes out: then a chunk's own end counts.
    match layout.sizes.and_then(|sizes| sizes.number(index)) {
        None | Some(0) => Ok(rest),
        Some(size) => {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            rest.get(..size)
                .ok_or_else(|| ImageError::truncated(Format::Tiff, bytes))
        }
    }
}

/// Unpacks chunk after chunk and hands each to `work` with its place.
fn for_each_chunk(
    input: &Input,
    layout: &Layout,
    mut work: impl FnMut(&Chunk, (usize, usize)) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let planes = if layout.planar { usize::from(layout.samples) } else { 1 };
    let columns = layout.chunk.0 as usize;
    let subsampled = is_subsampled(layout);
    let row_bytes = if subsampled {
        // Blocks of luma with one pair of chroma behind each.
        let (across, down) = layout.subsampling;
        if !matches!(across, 1 | 2 | 4) || !matches!(down, 1 | 2 | 4) {
            return Err(ImageError::corrupt(
                Format::Tiff,
                format!("its chroma is subsampled {across}x{down}"),
            ));
        }
        columns.div_ceil(across as usize) * (across * down + 2) as usize
    } else {
        layout.row_bytes() as usize
    };
    let lines = |rows: usize| {
        if subsampled {
            rows.div_ceil(layout.subsampling.1 as usize)
        } else {
            rows
        }
    };
    let most = lines(layout.chunk.1 as usize) * row_bytes;
    let mut unpacked: Vec<Vec<u8>> = (0..planes).map(|_| buffers::zeroed(most)).collect::<Result<_, _>>()?;
    let chunks = places(layout).count() as u64;
    for (index, (left, top)) in places(layout).enumerate() {
        // The last strip holds the rows that are left; a tile is always whole.
        let rows = if layout.tiled {
            layout.chunk.1 as usize
        } else {
            (layout.chunk.1 as usize).min(layout.height as usize - top)
        };
        let length = lines(rows) * row_bytes;
        for (plane, buffer) in unpacked.iter_mut().enumerate() {
            input.poll.check()?;
            let packed = stored(input, layout, index as u64 + plane as u64 * chunks)?;
            if layout.compression == 7 {
                jpeg_samples(input, layout, packed, row_bytes, &mut buffer[..length])?;
            } else {
                unpack::chunk(input, layout, packed, (columns, rows), row_bytes, &mut buffer[..length])?;
            }
        }
        let chunk = Chunk {
            planes: &unpacked,
            columns,
            rows,
            row_bytes,
        };
        work(&chunk, (left, top))?;
    }
    Ok(())
}

/// Inks, an alpha, a plane of its own: samples of a JPEG stream that mean what TIFF says.
fn jpeg_samples(
    input: &Input,
    layout: &Layout,
    packed: &[u8],
    row_bytes: usize,
    target: &mut [u8],
) -> Result<(), ImageError> {
    let samples = if layout.planar { 1 } else { usize::from(layout.samples) };
    if layout.photometric == 6 || layout.bits != 8 {
        return Err(ImageError::unsupported(
            Format::Tiff,
            "JPEG compression in an unusual form",
        ));
    }
    let stream = jpeg_stream(layout, packed)?;
    let part = jpeg::decode_samples(input, &stream, layout.chunk).map_err(as_tiff)?;
    if part.count != samples {
        return Err(ImageError::corrupt(
            Format::Tiff,
            format!("its JPEG parts have {} samples a pixel, not {samples}", part.count),
        ));
    }
    let rows = part.values.chunks_exact(part.width * part.count);
    for (to, row) in target.chunks_exact_mut(row_bytes).zip(rows.take(part.height)) {
        let length = row.len().min(to.len());
        to[..length].copy_from_slice(&row[..length]);
    }
    Ok(())
}

/// A chunk's JPEG stream made whole: the tables that all chunks share go first.
fn jpeg_stream(layout: &Layout, chunk: &[u8]) -> Result<Vec<u8>, ImageError> {
    let chunk = chunk
        .strip_prefix(&[0xFF, 0xD8])
        .ok_or_else(|| ImageError::corrupt(Format::Tiff, "a JPEG part does not start as one"))?;
    let tables = layout.jpeg_tables.strip_prefix(&[0xFF, 0xD8]).unwrap_or(&[]);
    let tables = tables.strip_suffix(&[0xFF, 0xD9]).unwrap_or(tables);
    let mut stream = buffers::with_room(2 + tables.len() + chunk.len())?;
    stream.extend_from_slice(&[0xFF, 0xD8]);
    stream.extend_from_slice(tables);
    stream.extend_from_slice(chunk);
    Ok(stream)
}
