//! Pictures the tests make, and files around them. Nothing here comes from anyone else's photographs.
#![allow(dead_code)]

pub mod png;
#[rustfmt::skip]
pub mod samples;

use image::codecs::{bmp::BmpEncoder, gif::GifEncoder, tiff::TiffEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder};
use imaging::Image;

/// A pseudo-random sequence that is the same everywhere (xorshift64*).
pub struct Sequence(u64);

impl Sequence {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// A picture with the statistics of a photograph: noise whose amplitude halves with each octave of frequency (the 1/f
/// spectrum of natural scenes), a few hard-edged objects, and a little sensor noise.
pub fn scene(width: u32, height: u32, seed: u64) -> Image {
    let mut random = Sequence::new(seed);
    let (w, h) = (width as usize, height as usize);
    let mut levels = vec![0f32; w * h * 3];
    let mut cell = (w.max(h) / 2).max(1);
    let mut amplitude = 60.0;
    while cell >= 2 && amplitude > 2.0 {
        let (columns, rows) = (w / cell + 2, h / cell + 2);
        let grid: Vec<f32> = (0..columns * rows * 3)
            .map(|_| (random.unit() - 0.5) * amplitude)
            .collect();
        for y in 0..h {
            let (row, fy) = (y / cell, (y % cell) as f32 / cell as f32);
            for x in 0..w {
                let (column, fx) = (x / cell, (x % cell) as f32 / cell as f32);
                for channel in 0..3 {
                    let at = |dx: usize, dy: usize| grid[((row + dy) * columns + column + dx) * 3 + channel];
                    let above = at(0, 0) * (1.0 - fx) + at(1, 0) * fx;
                    let below = at(0, 1) * (1.0 - fx) + at(1, 1) * fx;
                    levels[(y * w + x) * 3 + channel] += above * (1.0 - fy) + below * fy;
                }
            }
        }
        cell /= 2;
        amplitude *= 0.7;
    }
    for _ in 0..12 {
        let (cx, cy) = (random.below(w) as f32, random.below(h) as f32);
        let radius = (0.03 + 0.15 * random.unit()) * w.min(h) as f32;
        let colour = [0, 1, 2].map(|_| (random.unit() - 0.5) * 160.0);
        let (top, bottom) = ((cy - radius).max(0.0) as usize, ((cy + radius) as usize).min(h));
        for y in top..bottom {
            let half = (radius * radius - (y as f32 - cy).powi(2)).max(0.0).sqrt();
            for x in (cx - half).max(0.0) as usize..((cx + half) as usize).min(w) {
                for channel in 0..3 {
                    let level = &mut levels[(y * w + x) * 3 + channel];
                    *level = *level * 0.3 + colour[channel];
                }
            }
        }
    }
    let pixels = levels
        .into_iter()
        .map(|level| (128.0 + level + (random.unit() - 0.5) * 6.0).clamp(0.0, 255.0) as u8);
    Image::new(width, height, pixels.collect()).unwrap()
}

/// The pattern of tests/make_samples.py.
pub fn pattern(width: u32, height: u32) -> Image {
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let in_box = (height / 4..height / 2).contains(&y) && (width / 4..width / 2).contains(&x);
            for channel in 0..3u32 {
                let wave = (f64::from(x * (channel + 1) + y * (3 - channel)) / 13.0).sin();
                let level = (128.0 + 90.0 * wave).round().clamp(0.0, 255.0) as u8;
                pixels.push(if in_box {
                    [230, 210, 40][channel as usize]
                } else {
                    level
                });
            }
        }
    }
    Image::new(width, height, pixels).unwrap()
}

/// The pattern at the size of the samples.
pub fn sample_pattern() -> Image {
    pattern(48, 40)
}

/// The same picture in every lossless coding: (name, bytes).
pub fn lossless_files(image: &Image) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("png", imaging::encode_png(image).unwrap()),
        ("interlaced png", png::rgb(image, true)),
        ("bmp", bmp(image)),
        ("tiff", tiff(image)),
        ("webp", webp(image)),
    ]
}

/// One small file of every coding that is supported, for corpora.
pub fn one_of_each() -> Vec<(&'static str, Vec<u8>)> {
    let image = sample_pattern();
    let mut files = lossless_files(&image);
    files.push(("jpeg", imaging::encode_jpeg(&image, 85).unwrap()));
    files.push(("gif", gif(&image)));
    files.push(("16-bit png", png::deep(&image, false)));
    files.push(("16-bit interlaced png", png::deep(&image, true)));
    files.push((
        "palette png",
        png::palette(48, 40, &[[255, 0, 0, 255], [0, 255, 0, 40], [0, 0, 255, 0]]),
    ));
    for (name, bytes) in [
        ("progressive jpeg", samples::JPEG_PROGRESSIVE),
        ("4:2:0 jpeg", samples::JPEG_420),
        ("4:2:2 jpeg", samples::JPEG_422),
        ("jpeg with restarts", samples::JPEG_RESTARTS),
        ("grey jpeg", samples::JPEG_GREY),
        ("cmyk jpeg", samples::JPEG_CMYK),
        ("lossy webp", samples::WEBP_LOSSY),
        ("lossy webp with alpha", samples::WEBP_LOSSY_ALPHA),
        ("animated webp", samples::WEBP_ANIMATED),
    ] {
        files.push((name, bytes.to_vec()));
    }
    files
}

pub fn bmp(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(BmpEncoder::new(&mut bytes), image);
    bytes
}

pub fn tiff(image: &Image) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    write(TiffEncoder::new(&mut bytes), image);
    bytes.into_inner()
}

pub fn webp(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(WebPEncoder::new_lossless(&mut bytes), image);
    bytes
}

fn write(encoder: impl ImageEncoder, image: &Image) {
    encoder
        .write_image(image.pixels(), image.width(), image.height(), ExtendedColorType::Rgb8)
        .unwrap();
}

pub fn gif(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    encoder
        .encode(image.pixels(), image.width(), image.height(), ExtendedColorType::Rgb8)
        .unwrap();
    drop(encoder);
    bytes
}

/// An EXIF block (TIFF header and one directory) that says nothing but the orientation.
pub fn exif(orientation: u16) -> Vec<u8> {
    let mut block = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01".to_vec();
    block.extend(orientation.to_be_bytes());
    block.extend([0; 6]);
    block
}

/// A JPEG with `block` as its APP1 EXIF segment.
pub fn jpeg_with_exif(jpeg: &[u8], block: &[u8]) -> Vec<u8> {
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend([0xFF, 0xE1]);
    bytes.extend((block.len() as u16 + 8).to_be_bytes());
    bytes.extend(b"Exif\0\0");
    bytes.extend(block);
    bytes.extend(&jpeg[2..]);
    bytes
}

/// A simple WebP (one VP8L or VP8 chunk) rewrapped as an extended one with an EXIF chunk.
pub fn webp_with_exif(webp: &[u8], width: u32, height: u32, block: &[u8]) -> Vec<u8> {
    let mut body = b"WEBPVP8X\x0a\0\0\0\x08\0\0\0".to_vec();
    body.extend(&(width - 1).to_le_bytes()[..3]);
    body.extend(&(height - 1).to_le_bytes()[..3]);
    body.extend(&webp[12..]);
    body.extend(b"EXIF");
    body.extend((block.len() as u32).to_le_bytes());
    body.extend(block);
    if block.len() % 2 == 1 {
        body.push(0);
    }
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// Uncompressed little-endian TIFF of one strip, with an orientation.
pub fn tiff_with_orientation(image: &Image, orientation: u16) -> Vec<u8> {
    tiff_raw(
        &[
            (256, 4, image.width()),
            (257, 4, image.height()),
            (258, 3, 8),
            (259, 3, 1),
            (262, 3, 2),
            (274, 3, u32::from(orientation)),
            (277, 3, 3),
            (278, 4, image.height()),
            (279, 4, image.pixels().len() as u32),
        ],
        image.pixels(),
    )
}

/// A TIFF of these entries (tag, type, value; StripOffsets is added) and this strip.
pub fn tiff_raw(entries: &[(u16, u16, u32)], strip: &[u8]) -> Vec<u8> {
    let mut bytes = b"II\x2a\0\x08\0\0\0".to_vec();
    let mut entries = entries.to_vec();
    let strip_at = 8 + 2 + (entries.len() + 1) * 12 + 4;
    entries.push((273, 4, strip_at as u32));
    entries.sort();
    bytes.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(strip);
    bytes
}

/// Largest and mean absolute difference of two pictures of the same size.
pub fn difference(a: &Image, b: &Image) -> (u8, f64) {
    assert_eq!((a.width(), a.height()), (b.width(), b.height()));
    let differences = || a.pixels().iter().zip(b.pixels()).map(|(a, b)| a.abs_diff(*b));
    let mean = differences().map(f64::from).sum::<f64>() / a.pixels().len() as f64;
    (differences().max().unwrap(), mean)
}
