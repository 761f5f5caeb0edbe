//! WebP: its container and animations here (RFC 9649), lossy pictures by `vp8`, lossless ones
//! by the `image-webp` crate.

use image_webp::{DecodingError, WebPDecoder};

use super::animation::Chooser;
use super::{Input, matte, vp8};
use crate::header::{Fields, MOST_PREFIX_CODES, code_memory};
use crate::poll::Source;
use crate::{Format, Image, ImageError, buffers};

pub(super) fn decode(input: &Input) -> Result<(Image, u32), ImageError> {
    let size = (input.header.width, input.header.height);
    // A file without extensions is one chunk of its own.
    let file = Chunks::of(input.bytes.get(12..).unwrap_or(&[]));
    let is_extended = input.bytes.get(12..16) == Some(b"VP8X");
    if !is_extended || input.bytes.get(20).is_none_or(|flags| flags & 2 == 0) {
        let has_alpha = input.header.has_alpha;
        let picture = picture(input, file, size, has_alpha)?;
        return Ok((Image::new(size.0, size.1, picture.into_rgb(input.options.matte))?, 1));
    }

    let mut canvas = buffers::zeroed::<u8>(size.0 as usize * size.1 as usize * 4)?;
    let mut shown = buffers::zeroed(size.0 as usize * size.1 as usize * 3)?;
    let mut chooser = Chooser::new(input, size);
    let mut clear = None;
    let frames = file.filter(|(kind, _)| kind == b"ANMF");
    for (number, (_, data)) in frames.enumerate() {
        let result = Part::read(data, size)
            .ok_or_else(|| broken(input, data))
            .and_then(|part| lay(input, &mut canvas, &part, clear.take(), number > 0).map(|()| part));
        match result {
            Ok(part) => clear = part.is_cleared.then_some(part.place),
            Err(error @ (ImageError::Cancelled | ImageError::OutOfMemory { .. })) => return Err(error),
            Err(error) if number == 0 => return Err(error),
            // What is wrong with a later frame is no reason to refuse the ones before it.
            Err(_) => break,
        }
        matte::write_rgb(&canvas, 4, input.options.matte, &mut shown);
        if !input.looks_further() {
            return Ok((Image::new(size.0, size.1, shown)?, 1));
        }
        if !chooser.offer(&shown)? {
            break;
        }
    }
    input.poll.check()?;
    let chosen = chooser.chosen();
    chosen.unwrap_or_else(|| Err(ImageError::truncated(Format::WebP, input.bytes)))
}

/// The error for what does not hold together: at the end of the file it is truncated.
fn broken(input: &Input, part: &[u8]) -> ImageError {
    let end = input.bytes.as_ptr_range().end;
    if part.as_ptr_range().end == end {
        ImageError::truncated(Format::WebP, input.bytes)
    } else {
        ImageError::corrupt(Format::WebP, "a frame does not hold together")
    }
}

/// The chunks of a RIFF file: name and data, as far as they are there.
#[derive(Clone, Copy)]
struct Chunks<'a>(&'a [u8]);

impl<'a> Chunks<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let fields = Fields::little_endian(self.0);
        let (kind, length) = (fields.bytes(0)?, fields.u32(4)? as usize);
        let data = fields.slice(8, length);
        self.0 = self.0.get(8 + data.len() + (length & 1)..).unwrap_or(&[]);
        Some((kind, data))
    }
}

/// A decoded picture, 3 or 4 bytes a pixel.
struct Picture {
    pixels: Vec<u8>,
    has_alpha: bool,
}

impl Picture {
    fn into_rgb(self, background: [u8; 3]) -> Vec<u8> {
        if self.has_alpha {
            matte::rgba_to_rgb(self.pixels, background)
        } else {
            self.pixels
        }
    }
}

/// The picture that some of `chunks` hold.
fn picture(
    input: &Input,
    chunks: Chunks,
    (width, height): (u32, u32),
    uses_alpha: bool,
) -> Result<Picture, ImageError> {
    let mut alpha = None;
    let count = width as usize * height as usize;
    for (kind, data) in chunks {
        match &kind {
            b"ALPH" => alpha = Some(data),
            b"VP8L" => {
                let pixels = lossless(input, data, (width, height), uses_alpha)?;
                return Ok(Picture {
                    pixels,
                    has_alpha: uses_alpha,
                });
            }
            b"VP8 " => {
                let frame = vp8::decode(data, (width, height), input.poll).map_err(|error| match error {
                    ImageError::Corrupt { .. } if data.as_ptr_range().end == input.bytes.as_ptr_range().end => {
                        ImageError::truncated(Format::WebP, input.bytes)
                    }
                    other => other,
                })?;
                let Some(alpha) = alpha.filter(|_| uses_alpha) else {
                    let mut pixels = buffers::zeroed(3 * count)?;
                    frame.write::<3>(&mut pixels, input.poll)?;
                    return Ok(Picture {
                        pixels,
                        has_alpha: false,
                    });
                };
                let mut pixels = buffers::zeroed(4 * count)?;
                frame.write::<4>(&mut pixels, input.poll)?;
                drop(frame);
                lay_alpha(input, alpha, (width, height), &mut pixels)?;
                return Ok(Picture {
                    pixels,
                    has_alpha: true,
                });
            }
            _ => {}
        }
    }
    Err(ImageError::truncated(Format::WebP, input.bytes))
}

/// A lossless stream through `image-webp`, as a file of its own: RGBA, or RGB where alpha means nothing.
fn lossless(input: &Input, stream: &[u8], size: (u32, u32), uses_alpha: bool) -> Result<Vec<u8>, ImageError> {
    let says_alpha = stream.get(4).is_some_and(|flags| flags & 0x10 != 0);
    let mut file = buffers::with_room(stream.len() + 21)?;
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(stream.len() as u32 + 12 + (stream.len() as u32 & 1)).to_le_bytes());
    file.extend_from_slice(b"WEBPVP8L");
    file.extend_from_slice(&(stream.len() as u32).to_le_bytes());
    file.extend_from_slice(stream);
    if stream.len() % 2 == 1 {
        file.push(0);
    }
    let source = Source::new(&file, input.poll, input.ran_out);
    let mut decoder = WebPDecoder::new(source).map_err(|error| failure(input, error))?;
    if decoder.dimensions() != size {
        let (width, height) = decoder.dimensions();
        return Err(ImageError::corrupt(
            Format::WebP,
            format!(
                "its parts give different sizes, {}x{} and {width}x{height}",
                size.0, size.1
            ),
        ));
    }
    let total = decoder
        .output_buffer_size()
        .ok_or_else(|| input.failure("it is larger than memory"))?;
    let mut pixels = buffers::zeroed(total)?;
    decoder.read_image(&mut pixels).map_err(|error| failure(input, error))?;
    input.poll.check()?;
    match (says_alpha, uses_alpha) {
        (true, false) => {
            // The container has the last word on whether there is alpha.
            let count = total / 4;
            for index in 0..count {
                pixels.copy_within(4 * index..4 * index + 3, 3 * index);
            }
            pixels.truncate(3 * count);
            Ok(pixels)
        }
        (false, true) => {
            let mut with_alpha = buffers::zeroed::<u8>(total / 3 * 4)?;
            let (to, _) = with_alpha.as_chunks_mut::<4>();
            for (to, from) in to.iter_mut().zip(pixels.as_chunks::<3>().0) {
                *to = [from[0], from[1], from[2], 255];
            }
            Ok(with_alpha)
        }
        _ => Ok(pixels),
    }
}

/// Alpha of a lossy picture: raw, or the green of a lossless stream without header; then unfiltered.
fn lay_alpha(input: &Input, chunk: &[u8], size: (u32, u32), pixels: &mut [u8]) -> Result<(), ImageError> {
    let (&flags, data) = chunk.split_first().ok_or_else(|| broken(input, chunk))?;
    let (width, count) = (size.0 as usize, size.0 as usize * size.1 as usize);
    let (targets, _) = pixels.as_chunks_mut::<4>();
    match flags & 3 {
        0 => {
            let raw = data.get(..count).ok_or_else(|| broken(input, chunk))?;
            targets.iter_mut().zip(raw).for_each(|(to, &alpha)| to[3] = alpha);
        }
        1 => {
            let packed = (size.0 - 1) | (size.1 - 1) << 14;
            let mut stream = buffers::with_room(data.len() + 5)?;
            stream.push(0x2F);
            stream.extend_from_slice(&packed.to_le_bytes());
            stream.extend_from_slice(data);
            let green = lossless(input, &stream, size, false)?;
            for (to, from) in targets.iter_mut().zip(green.as_chunks::<3>().0) {
                to[3] = from[1];
            }
        }
        _ => {
            return Err(ImageError::corrupt(
                Format::WebP,
                "its alpha has an unknown compression",
            ));
        }
    }
    // Each value is the difference from a neighbour: to the left, above, or both less the corner.
    let filter = flags >> 2 & 3;
    for at in 0..if filter == 0 { 0 } else { count } {
        let (x, y) = (at % width, at / width);
        if x == 0 && y % 64 == 0 {
            input.poll.check()?;
        }
        let alpha = |back: usize| targets[at - back][3];
        let guess = match (x, y, filter) {
            (0, 0, _) => 0,
            (_, 0, _) => alpha(1),
            (0, _, _) => alpha(width),
            (_, _, 1) => alpha(1),
            (_, _, 2) => alpha(width),
            _ => (i32::from(alpha(1)) + i32::from(alpha(width)) - i32::from(alpha(width + 1))).clamp(0, 255) as u8,
        };
        targets[at][3] = targets[at][3].wrapping_add(guess);
    }
    Ok(())
}

/// A frame of an animation.
struct Part<'a> {
    /// Left, top, width, height.
    place: [u32; 4],
    blends: bool,
    /// Whether its place is cleared before the next frame.
    is_cleared: bool,
    chunks: Chunks<'a>,
}

impl<'a> Part<'a> {
    fn read(data: &'a [u8], (width, height): (u32, u32)) -> Option<Self> {
        let fields = Fields::little_endian(data);
        let place = [
            2 * fields.u24(0)?,
            2 * fields.u24(3)?,
            fields.u24(6)? + 1,
            fields.u24(9)? + 1,
        ];
        let flags = fields.u8(15)?;
        (place[0] + place[2] <= width && place[1] + place[3] <= height).then_some(Self {
            place,
            blends: flags & 2 == 0,
            is_cleared: flags & 1 != 0,
            chunks: Chunks::of(&data[16..]),
        })
    }
}

/// Lays a frame on the canvas, RGBA, after clearing what an earlier one leaves behind. A further frame's codes may not
/// take more memory than is set aside for them.
fn lay(
    input: &Input,
    canvas: &mut [u8],
    part: &Part,
    clear: Option<[u32; 4]>,
    is_further: bool,
) -> Result<(), ImageError> {
    let [left, top, width, height] = part.place.map(|side| side as usize);
    if is_further {
        let codes: u64 = part
            .chunks
            .map(|(kind, data)| code_memory(&kind, data, part.place[2], part.place[3]))
            .sum();
        if codes > MOST_PREFIX_CODES {
            return Err(ImageError::corrupt(Format::WebP, "a frame needs too much memory"));
        }
    }
    let frame = picture(input, part.chunks, (part.place[2], part.place[3]), true)?;
    let stride = input.header.width as usize;
    if let Some([left, top, width, height]) = clear.map(|place| place.map(|side| side as usize)) {
        for y in top..top + height {
            canvas[(y * stride + left) * 4..][..width * 4].fill(0);
        }
    }
    let channels = if frame.has_alpha { 4 } else { 3 };
    for (y, row) in frame.pixels.chunks_exact(width * channels).enumerate().take(height) {
        let (target, _) = canvas[((top + y) * stride + left) * 4..][..width * 4].as_chunks_mut::<4>();
        for (to, from) in target.iter_mut().zip(row.chunks_exact(channels)) {
            let pixel = [from[0], from[1], from[2], if channels == 4 { from[3] } else { 255 }];
            *to = if part.blends { matte::blend(pixel, *to) } else { pixel };
        }
    }
    input.poll.check()
}

fn failure(input: &Input, error: DecodingError) -> ImageError {
    match error {
        DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::truncated(Format::WebP, input.bytes)
        }
        DecodingError::UnsupportedFeature(feature) => ImageError::unsupported(Format::WebP, feature),
        other => input.failure(other),
    }
}
