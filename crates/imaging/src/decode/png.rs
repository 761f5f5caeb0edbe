//! PNG through the `png` crate, row by row straight into RGB: no second full-size buffer, and a poll per row.

use png::{BlendOp, DecodingError, DisposeOp, Reader, Transformations};

use super::animation::Chooser;
use super::{Input, matte};
use crate::poll::Source;
use crate::{Format, Image, ImageError, buffers};

pub(super) fn decode(input: &Input) -> Result<(Image, u32), ImageError> {
    let image = default_image(input)?;
    if !input.looks_further() {
        return Ok((image, 1));
    }
    let mut chooser = Chooser::new(input, (image.width(), image.height()));
    if chooser.offer(image.pixels())? {
        drop(image);
        // What is wrong with a later frame is no reason to refuse the ones before it.
        match further_frames(input, &mut chooser) {
            Err(error @ (ImageError::Cancelled | ImageError::OutOfMemory { .. })) => return Err(error),
            Ok(()) | Err(_) => input.poll.check()?,
        }
        let chosen = chooser.chosen();
        return chosen.unwrap_or_else(|| Err(input.failure("it holds no frame")));
    }
    Ok((image, 1))
}

fn reader<'a>(input: &Input<'a>) -> Result<Reader<Source<'a>>, ImageError> {
    let source = Source::new(input.bytes, input.poll, input.ran_out);
    let limits = png::Limits {
        bytes: usize::try_from(input.options.limits.max_memory).unwrap_or(usize::MAX),
    };
    let mut decoder = png::Decoder::new_with_limits(source, limits);
    // Neither changes a pixel, and both may be compressed: nothing is unpacked that nobody reads.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    decoder.read_info().map_err(|error| failure(input, error))
}

/// Lays the frames of an APNG on one another (its third edition, sections 11.3.4 and 13.2) and shows each, from the
/// second picture of the file on.
fn further_frames(input: &Input, chooser: &mut Chooser) -> Result<(), ImageError> {
    let (width, height) = (input.header.width as usize, input.header.height as usize);
    let mut reader = reader(input)?;
    let channels = reader.output_color_type().0.samples();
    let mut frame = buffers::zeroed(width * height * channels)?;
    let mut canvas = buffers::zeroed::<u8>(width * height * 4)?;
    let mut shown = buffers::zeroed(width * height * 3)?;
    let mut is_first = true;
    loop {
        let output = match reader.next_frame(&mut frame) {
            Ok(output) => output,
            Err(_) => return Ok(()),
        };
        input.poll.check()?;
        let control = reader.info().frame_control().copied();
        let Some(control) = control else {
            // The default image is no part of the animation.
            is_first = false;
            continue;
        };
        let size = (output.width as usize, output.height as usize);
        let (left, top) = (control.x_offset as usize, control.y_offset as usize);
        if left + size.0 > width || top + size.1 > height {
            return Ok(());
        }
        let dispose = if is_first && control.dispose_op == DisposeOp::Previous {
            DisposeOp::Background
        } else {
            control.dispose_op
        };
        let before = match dispose {
            DisposeOp::Previous => Some(buffers::copy(&canvas)?),
            _ => None,
        };
        for y in 0..size.1 {
            let from = &frame[y * output.line_size..][..size.0 * channels];
            let at = ((top + y) * width + left) * 4;
            let (to, _) = canvas[at..at + size.0 * 4].as_chunks_mut::<4>();
            for (to, from) in to.iter_mut().zip(from.chunks_exact(channels)) {
                let pixel = match from {
                    &[grey] => [grey, grey, grey, 255],
                    &[grey, alpha] => [grey, grey, grey, alpha],
                    &[red, green, blue] => [red, green, blue, 255],
                    &[red, green, blue, alpha, ..] => [red, green, blue, alpha],
                    [] => [0; 4],
                };
                *to = match control.blend_op {
                    BlendOp::Source => pixel,
                    BlendOp::Over => matte::blend(pixel, *to),
                };
            }
        }
        if !is_first {
            matte::write_rgb(&canvas, 4, input.options.matte, &mut shown);
            if !chooser.offer(&shown)? {
                return Ok(());
            }
        }
        is_first = false;
        match (dispose, before) {
            (_, Some(before)) => canvas = before,
            (DisposeOp::Background, _) => {
                for y in 0..size.1 {
                    let at = ((top + y) * width + left) * 4;
                    canvas[at..at + size.0 * 4].fill(0);
                }
            }
            _ => {}
        }
    }
}

fn default_image(input: &Input) -> Result<Image, ImageError> {
    let (width, height) = (input.header.width as usize, input.header.height as usize);
    let mut reader = reader(input)?;
    let channels = reader.output_color_type().0.samples();
    let (claimed, row_bytes) = (reader.info().size(), width * channels);
    if claimed != (input.header.width, input.header.height) || reader.output_line_size(claimed.0) != Some(row_bytes) {
        return Err(ImageError::corrupt(
            Format::Png,
            "its chunks contradict each other about the size",
        ));
    }

    let mut pixels = buffers::zeroed(width * height * 3)?;
    if reader.info().interlaced {
        let mut whole = buffers::zeroed(row_bytes * height)?;
        reader.next_frame(&mut whole).map_err(|error| failure(input, error))?;
        matte::write_rgb(&whole, channels, input.options.matte, &mut pixels);
    } else {
        for target in pixels.chunks_exact_mut(width * 3) {
            let row = reader.next_row().map_err(|error| failure(input, error))?;
            let row = row.ok_or_else(|| input.failure("it has fewer rows than its header says"))?;
            matte::write_rgb(row.data(), channels, input.options.matte, target);
            if input.poll.stopped() {
                return Err(ImageError::Cancelled);
            }
        }
    }
    Image::new(input.header.width, input.header.height, pixels)
}

fn failure(input: &Input, error: DecodingError) -> ImageError {
    match error {
        DecodingError::LimitsExceeded => ImageError::TooMuchMemory {
            format: Format::Png,
            width: input.header.width,
            height: input.header.height,
            needed: input.options.limits.max_memory.saturating_add(1),
            limit: input.options.limits.max_memory,
        },
        DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::truncated(Format::Png, input.bytes)
        }
        DecodingError::Format(error) => input.failure(in_words(&error.to_string())),
        other => input.failure(other),
    }
}

/// The crate prints checksum errors as its own data structures.
fn in_words(error: &str) -> String {
    if error.starts_with("CRC error") {
        return "a checksum is wrong: the bytes of a chunk were changed".into();
    }
    if error.contains("Adler32") {
        return "the checksum of its pixels is wrong".into();
    }
    error.into()
}
