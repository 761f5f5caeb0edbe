//! PNG through the `png` crate, row by row straight into RGB: no second full-size buffer, and a poll per row.

use png::{DecodingError, Transformations};

use super::{Input, matte};
use crate::poll::Source;
use crate::{Format, Image, ImageError};

pub(super) fn decode(input: &Input) -> Result<Image, ImageError> {
    let (width, height) = (input.header.width as usize, input.header.height as usize);
    let source = Source::new(input.bytes, input.poll, input.ran_out);
    let limits = png::Limits {
        bytes: usize::try_from(input.options.limits.max_memory).unwrap_or(usize::MAX),
    };
    let mut decoder = png::Decoder::new_with_limits(source, limits);
    // Neither changes a pixel, and both may be compressed: nothing is unpacked that nobody reads.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(|error| failure(input, error))?;
    let channels = reader.output_color_type().0.samples();
    let (claimed, row_bytes) = (reader.info().size(), width * channels);
    if claimed != (input.header.width, input.header.height) || reader.output_line_size(claimed.0) != Some(row_bytes) {
        return Err(ImageError::corrupt(
            Format::Png,
            "its chunks contradict each other about the size",
        ));
    }

    let mut pixels = vec![0u8; width * height * 3];
    if reader.info().interlaced {
        let mut whole = vec![0u8; row_bytes * height];
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
        other => input.failure(other),
    }
}
