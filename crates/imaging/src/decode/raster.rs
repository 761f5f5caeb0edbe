//! WebP, GIF, BMP and TIFF through the `image` crate.

use image::codecs::{bmp::BmpDecoder, gif::GifDecoder, tiff::TiffDecoder, webp::WebPDecoder};
use image::{ColorType, ImageDecoder, ImageError as CodecError};

use super::{Input, matte};
use crate::poll::Source;
use crate::{Format, Image, ImageError};

pub(super) fn decode(input: &Input) -> Result<Image, ImageError> {
    let source = Source::new(input.bytes, input.poll, input.ran_out);
    match input.header.format {
        Format::WebP => read(input, WebPDecoder::new(source)),
        Format::Gif => read(input, GifDecoder::new(source)),
        Format::Bmp => read(input, BmpDecoder::new(source)),
        _ => read(input, TiffDecoder::new(source)),
    }
}

fn read<D: ImageDecoder>(input: &Input, decoder: Result<D, CodecError>) -> Result<Image, ImageError> {
    let mut decoder = decoder.map_err(|error| failure(input, error))?;
    let (width, height) = decoder.dimensions();
    if (width, height) != (input.header.width, input.header.height) {
        return Err(ImageError::corrupt(
            input.header.format,
            format!(
                "its parts give different sizes, {}x{} and {width}x{height}",
                input.header.width, input.header.height
            ),
        ));
    }
    let colour = decoder.color_type();
    let total = decoder.total_bytes();
    let conversion = if colour.channel_count() < 3 {
        3 * input.header.pixels()
    } else {
        0
    };
    let needed = total.saturating_add(conversion);
    input
        .options
        .limits
        .check_memory(input.header.format, width, height, needed)?;
    let mut limits = image::Limits::no_limits();
    limits.max_image_width = Some(width);
    limits.max_image_height = Some(height);
    // The buffer below is ours; the rest is what the codec may use beside it.
    limits.max_alloc = Some(input.options.limits.max_memory - total);
    decoder.set_limits(limits).map_err(|error| failure(input, error))?;

    let mut pixels = vec![0u8; usize::try_from(total).map_err(|_| input.failure("it is larger than memory"))?];
    decoder.read_image(&mut pixels).map_err(|error| failure(input, error))?;
    Image::new(width, height, to_rgb(pixels, colour, input.options.matte))
}

/// 16-bit samples (native byte order, as `image` gives them) keep their upper 8 bits; floating-point ones are taken as
/// 0 to 1.
fn to_rgb(mut pixels: Vec<u8>, colour: ColorType, background: [u8; 3]) -> Vec<u8> {
    match colour.bytes_per_pixel() / colour.channel_count() {
        2 => narrow(&mut pixels, 2, |sample| {
            (u16::from_ne_bytes([sample[0], sample[1]]) >> 8) as u8
        }),
        4 => narrow(&mut pixels, 4, |sample| {
            let value = f32::from_ne_bytes([sample[0], sample[1], sample[2], sample[3]]);
            // A NaN becomes 0: `as` saturates.
            (value.clamp(0.0, 1.0) * 255.0).round() as u8
        }),
        _ => {}
    }
    match colour.channel_count() {
        3 => pixels,
        4 => matte::rgba_to_rgb(pixels, background),
        channels => {
            let channels = usize::from(channels);
            let mut rgb = vec![0u8; pixels.len() / channels * 3];
            matte::write_rgb(&pixels, channels, background, &mut rgb);
            rgb
        }
    }
}

/// Samples of `size` bytes to one byte each, in place.
fn narrow(pixels: &mut Vec<u8>, size: usize, convert: impl Fn(&[u8]) -> u8) {
    let count = pixels.len() / size;
    for index in 0..count {
        pixels[index] = convert(&pixels[index * size..index * size + size]);
    }
    pixels.truncate(count);
    pixels.shrink_to_fit();
}

fn failure(input: &Input, error: CodecError) -> ImageError {
    let format = input.header.format;
    match error {
        CodecError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::truncated(format, input.bytes)
        }
        CodecError::Limits(_) => ImageError::TooMuchMemory {
            format,
            width: input.header.width,
            height: input.header.height,
            needed: input.options.limits.max_memory.saturating_add(1),
            limit: input.options.limits.max_memory,
        },
        CodecError::Unsupported(error) => ImageError::unsupported(format, error.to_string()),
        other => input.failure(other),
    }
}
