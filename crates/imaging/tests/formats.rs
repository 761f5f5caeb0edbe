//! What comes out of each format: the pixels that went in, turned, laid over the matte, and described.

mod pictures;

use imaging::{DecodeOptions, Format, Image, ImageError, Limits, decode, encode_jpeg, inspect};
use pictures::{difference, pattern, png, sample_pattern, samples};

fn decoded(bytes: &[u8]) -> Image {
    decode(bytes, &DecodeOptions::default()).unwrap()
}

fn info(bytes: &[u8]) -> imaging::ImageInfo {
    inspect(bytes, &Limits::default()).unwrap()
}

#[test]
fn lossless_formats_give_back_every_pixel() {
    for (width, height) in [(1, 1), (1, 7), (9, 1), (37, 23), (128, 64)] {
        let image = pattern(width, height);
        for (name, bytes) in pictures::lossless_files(&image) {
            assert_eq!(decoded(&bytes), image, "{name} {width}x{height}");
            let info = info(&bytes);
            assert_eq!(
                (info.width, info.height, info.bits_per_channel),
                (width, height, 8),
                "{name}"
            );
        }
    }
}

#[test]
fn lossy_formats_come_close() {
    for (name, bytes) in [
        ("baseline", encode_jpeg(&sample_pattern(), 90).unwrap().as_slice()),
        ("progressive", samples::JPEG_PROGRESSIVE),
        ("4:2:0", samples::JPEG_420),
        ("4:2:2", samples::JPEG_422),
        ("restarts", samples::JPEG_RESTARTS),
        ("cmyk", samples::JPEG_CMYK),
        ("webp", samples::WEBP_LOSSY),
        ("animated webp", samples::WEBP_ANIMATED),
    ] {
        let (_, mean) = difference(&decoded(bytes), &sample_pattern());
        assert!(mean < 7.0, "{name}: mean difference {mean}");
    }
}

#[test]
fn grey_jpeg_gives_equal_channels() {
    let image = decoded(samples::JPEG_GREY);
    assert!(image.pixels().chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]));
    assert_eq!(info(samples::JPEG_GREY).colour, "grey");
}

#[test]
fn gif_gives_back_a_picture_of_few_colours() {
    let levels = [0u8, 85, 170, 255];
    let pixels = (0..64 * 48)
        .flat_map(|i| [levels[i % 4], levels[i / 64 % 4], levels[i / 16 % 4]])
        .collect();
    let image = Image::new(64, 48, pixels).unwrap();
    assert_eq!(decoded(&pictures::gif(&image)), image);
}

/// GIF: canvas 4 × 3; one 2 × 2 frame at (1, 1), entry 0 transparent; a second frame.
fn small_gif() -> Vec<u8> {
    let mut bytes = b"GIF89a\x04\0\x03\0\x80\0\0\x0a\x14\x1e\xc8\xd2\xdc".to_vec();
    for _ in 0..2 {
        bytes.extend(b"\x21\xf9\x04\x01\x00\x00\x00\x00");
        bytes.extend(b"\x2c\x01\0\x01\0\x02\0\x02\0\0");
        // LZW with 2-bit symbols: clear, 1, 0, 1, 1, end in 3 bits each (the table stays below 8 codes but for the
        // last code, which is 4 bits wide).
        bytes.extend(b"\x02\x03\x0c\x12\x05\0");
    }
    bytes.push(0x3B);
    bytes
}

#[test]
fn the_first_gif_frame_lies_in_its_place_on_the_matte() {
    let bytes = small_gif();
    let options = DecodeOptions {
        matte: [1, 2, 3],
        ..DecodeOptions::default()
    };
    let image = decode(&bytes, &options).unwrap();
    let (matte, colour) = ([1u8, 2, 3], [200u8, 210, 220]);
    let pixel = |x: usize, y: usize| &image.pixels()[(y * 4 + x) * 3..][..3];
    assert_eq!(pixel(0, 0), matte, "outside the frame");
    assert_eq!(pixel(1, 1), colour);
    assert_eq!(pixel(2, 1), matte, "transparent inside the frame");
    assert_eq!(pixel(1, 2), colour);
    assert_eq!(pixel(3, 2), matte, "outside the frame");
    let info = info(&bytes);
    assert_eq!((info.frames, info.width, info.height, info.has_alpha), (2, 4, 3, true));
}

#[test]
fn animations_give_their_first_frame_and_their_count() {
    let info = info(samples::WEBP_ANIMATED);
    assert_eq!((info.format, info.frames), (Format::WebP, 3));
    let apng = png::file(&[
        png::header(2, 1, 8, 0, false),
        (b"acTL", [0, 0, 0, 5, 0, 0, 0, 0].to_vec()),
        png::data(&[0, 10, 20]),
    ]);
    assert_eq!(self::info(&apng).frames, 5);
    assert_eq!(decoded(&apng).pixels(), [10, 10, 10, 20, 20, 20]);
}

#[test]
fn exif_orientation_is_applied_exactly_once_in_every_container() {
    let image = pattern(6, 4);
    // Pixel (x, y) as shown, from the stored picture: EXIF 2.32, where row 0 and column 0 are.
    let shown = |orientation: u16, x: u32, y: u32| -> (u32, u32) {
        let (w, h) = (image.width() - 1, image.height() - 1);
        match orientation {
            2 => (w - x, y),
            3 => (w - x, h - y),
            4 => (x, h - y),
            5 => (y, x),
            6 => (y, h - x),
            7 => (w - y, h - x),
            8 => (w - y, x),
            _ => (x, y),
        }
    };
    for orientation in 1..=8 {
        let block = pictures::exif(orientation);
        let rows = png::rows(6, 4, 3, image.pixels(), false);
        let files = [
            (
                "png",
                png::file(&[
                    png::header(6, 4, 8, 2, false),
                    (b"eXIf", block.clone()),
                    png::data(&rows),
                ]),
            ),
            ("webp", pictures::webp_with_exif(&pictures::webp(&image), 6, 4, &block)),
            ("tiff", pictures::tiff_with_orientation(&image, orientation)),
        ];
        for (name, bytes) in files {
            let turned = decoded(&bytes);
            let info = info(&bytes);
            assert_eq!((info.width, info.height), (turned.width(), turned.height()), "{name}");
            assert_eq!(u16::from(info.orientation), orientation, "{name}");
            for y in 0..turned.height() {
                for x in 0..turned.width() {
                    let (sx, sy) = shown(orientation, x, y);
                    let at = |image: &Image, x: u32, y: u32| {
                        let at = ((y * image.width() + x) * 3) as usize;
                        image.pixels()[at..at + 3].to_vec()
                    };
                    assert_eq!(at(&turned, x, y), at(&image, sx, sy), "{name} {orientation} at {x},{y}");
                }
            }
        }
        let jpeg = encode_jpeg(&pattern(16, 8), 90).unwrap();
        let plain = decoded(&jpeg);
        let turned = decoded(&pictures::jpeg_with_exif(&jpeg, &block));
        let (sx, sy) = match orientation {
            2 => (15, 0),
            3 | 7 => (15, 7),
            4 | 6 => (0, 7),
            8 => (15, 0),
            _ => (0, 0),
        };
        assert_eq!(
            turned.pixels()[..3],
            plain.pixels()[(sy * 16 + sx) * 3..][..3],
            "jpeg {orientation}"
        );
    }
}

#[test]
fn a_malformed_exif_block_does_not_cost_the_picture() {
    let jpeg = encode_jpeg(&sample_pattern(), 90).unwrap();
    let plain = decoded(&jpeg);
    let looping = b"II\x2a\0\x00\0\0\0".to_vec();
    let endless = [b"MM\0\x2a\0\0\0\x08\xff\xff".as_slice(), &[0x11; 40]].concat();
    for block in [
        vec![],
        vec![0; 3],
        looping,
        endless,
        b"II\x2a\0\xff\xff\xff\xff".to_vec(),
    ] {
        assert_eq!(decoded(&pictures::jpeg_with_exif(&jpeg, &block)), plain);
    }
}

#[test]
fn transparency_shows_the_matte() {
    let bytes = png::palette(4, 1, &[[255, 0, 0, 255], [0, 255, 0, 51], [0, 0, 255, 0]]);
    let image = decode(
        &bytes,
        &DecodeOptions {
            matte: [100, 100, 100],
            ..Default::default()
        },
    )
    .unwrap();
    assert_eq!(image.pixels(), [255, 0, 0, 80, 131, 80, 100, 100, 100, 255, 0, 0]);
    assert!(info(&bytes).has_alpha);
    let grey = png::file(&[png::header(2, 1, 8, 4, false), png::data(&[0, 200, 255, 200, 0])]);
    assert_eq!(
        decoded(&grey).pixels(),
        [200, 200, 200, 255, 255, 255],
        "the default matte is white"
    );
}

#[test]
fn alpha_of_a_lossy_webp_fades_to_the_matte() {
    let image = decoded(samples::WEBP_LOSSY_ALPHA);
    let left = &image.pixels()[..3];
    assert_eq!(left, [255, 255, 255], "transparent at the left edge");
    let row = 48 * 3;
    let opaque = sample_pattern();
    for y in 0..40 {
        for channel in 0..3 {
            let at = y * row + 47 * 3 + channel;
            assert!(
                image.pixels()[at].abs_diff(opaque.pixels()[at]) < 40,
                "opaque at the right edge"
            );
        }
    }
}

#[test]
fn sixteen_bit_samples_keep_their_upper_eight() {
    let image = sample_pattern();
    for interlaced in [false, true] {
        let bytes = png::deep(&image, interlaced);
        assert_eq!(decoded(&bytes), image);
        assert_eq!(info(&bytes).bits_per_channel, 16);
    }
    let grey_alpha = png::file(&[png::header(1, 1, 16, 4, false), png::data(&[0, 0xAB, 0xFF, 0xFF, 0xFF])]);
    assert_eq!(decoded(&grey_alpha).pixels(), [0xAB; 3]);
    let mut deep_tiff = Vec::new();
    for &level in image.pixels() {
        deep_tiff.extend([!level, level]);
    }
    let entries = [
        (256, 4, 48),
        (257, 4, 40),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 2),
        (277, 3, 3),
        (278, 4, 40),
        (279, 4, 11_520),
    ];
    let bytes = pictures::tiff_raw(&entries, &deep_tiff);
    // One value stands for all three samples' bits in many a writer's files; the decoder wants them all.
    match decode(&bytes, &DecodeOptions::default()) {
        Ok(decoded) => assert_eq!(decoded, image),
        Err(error) => assert!(matches!(
            error,
            ImageError::Unsupported { .. } | ImageError::Corrupt { .. }
        )),
    }
}

#[test]
fn low_bit_depths_spread_over_the_whole_range() {
    for (bits, levels) in [(1u8, 2u32), (2, 4), (4, 16)] {
        let bytes = png::file(&[
            png::header(levels, 1, bits, 0, false),
            png::data(&{
                let mut row = vec![0u8];
                let per_byte = 8 / u32::from(bits);
                for start in (0..levels).step_by(per_byte as usize) {
                    row.push((0..per_byte).fold(0, |byte, i| byte << bits | ((start + i) % levels) as u8));
                }
                row
            }),
        ]);
        let expected: Vec<u8> = (0..levels).flat_map(|i| [(i * 255 / (levels - 1)) as u8; 3]).collect();
        assert_eq!(decoded(&bytes).pixels(), expected, "{bits} bits");
    }
}

#[test]
fn bytes_after_a_complete_picture_are_ignored() {
    for (name, mut bytes) in pictures::one_of_each() {
        let plain = decoded(&bytes);
        bytes.extend(b"trailing garbage \xff\xd8\xff\xd9 and more");
        assert_eq!(decoded(&bytes), plain, "{name}");
    }
}

#[test]
fn a_jpeg_that_breaks_off_is_refused_not_filled_with_grey() {
    for jpeg in [
        encode_jpeg(&pictures::scene(160, 120, 1), 85).unwrap().as_slice(),
        samples::JPEG_PROGRESSIVE,
        samples::JPEG_RESTARTS,
        samples::JPEG_CMYK,
    ] {
        for min_side in [None, Some(10)] {
            let options = DecodeOptions {
                min_side,
                ..Default::default()
            };
            for cut in (4..jpeg.len() - 3).step_by(jpeg.len() / 60 + 1).chain([jpeg.len() - 4]) {
                let error = decode(&jpeg[..cut], &options).unwrap_err();
                assert_eq!(
                    error,
                    ImageError::Truncated {
                        format: Format::Jpeg,
                        bytes: cut as u64
                    }
                );
            }
        }
    }
}

#[test]
fn a_jpeg_that_lacks_its_end_marker_and_nothing_else_is_complete() {
    for jpeg in [
        encode_jpeg(&pictures::scene(160, 120, 1), 85).unwrap().as_slice(),
        samples::JPEG_PROGRESSIVE,
        samples::JPEG_RESTARTS,
        samples::JPEG_CMYK,
    ] {
        let whole = decoded(jpeg);
        for cut in 1..=2 {
            let (most, _) = difference(&decoded(&jpeg[..jpeg.len() - cut]), &whole);
            assert!(most <= 4, "another decoder may round otherwise: {most}");
        }
    }
}

#[test]
fn what_is_no_image_is_named() {
    let limits = Limits::default();
    assert_eq!(inspect(b"", &limits), Err(ImageError::Empty));
    for (bytes, words) in [
        (b"hello world, this is text".as_slice(), "starting with 68 65 6c 6c 6f"),
        (b"\0\0\0\x20ftypavif....", "AVIF"),
        (b"<svg xmlns=...", "SVG"),
        (b"%PDF-1.4", "PDF"),
        (b"\\x89504e47", "hexadecimal text"),
        (b"\x01", "1 byte starting with 01"),
        (b"BMW is a car maker and no bitmap", "42 4d 57"),
    ] {
        let error = decode(bytes, &DecodeOptions::default()).unwrap_err();
        assert!(matches!(error, ImageError::UnknownFormat { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.hint().contains("JPEG"), "{}", error.hint());
    }
}

#[test]
fn a_jpeg_of_an_unsupported_coding_is_named() {
    let jpeg = encode_jpeg(&sample_pattern(), 90).unwrap();
    let sof = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    for (marker, words) in [(0xC3, "lossless"), (0xCB, "lossless"), (0xC5, "hierarchical")] {
        let mut changed = jpeg.clone();
        changed[sof + 1] = marker;
        let error = decode(&changed, &DecodeOptions::default()).unwrap_err();
        assert!(matches!(error, ImageError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}
