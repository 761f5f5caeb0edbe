//! JPEGs at reduced size: the right size, the right picture, and never where it must not happen.

mod pictures;

use imaging::{DecodeOptions, Filter, Image, decode, encode_jpeg, resize};
use pictures::{difference, samples, scene};
use proptest::prelude::*;

fn at_least(bytes: &[u8], min_side: u32) -> Image {
    decode(
        bytes,
        &DecodeOptions {
            min_side: Some(min_side),
            ..Default::default()
        },
    )
    .unwrap()
}

fn full(bytes: &[u8]) -> Image {
    decode(bytes, &DecodeOptions::default()).unwrap()
}

#[test]
fn each_scale_shows_the_same_picture() {
    let jpeg = encode_jpeg(&scene(640, 480, 7), 90).unwrap();
    let full = full(&jpeg);
    for (min_side, width, height) in [(240, 640, 480), (120, 160, 120), (60, 80, 60)] {
        let reduced = at_least(&jpeg, min_side);
        assert_eq!((reduced.width(), reduced.height()), (width, height));
        let resized = resize(&full, width, height, Filter::Bicubic).unwrap();
        let (_, mean) = difference(&reduced, &resized);
        assert!(mean < 4.0, "{width}x{height}: mean difference {mean}");
    }
}

#[test]
fn every_coding_can_be_reduced() {
    for (name, jpeg) in [
        ("progressive", samples::JPEG_PROGRESSIVE),
        ("4:2:0", samples::JPEG_420),
        ("4:2:2", samples::JPEG_422),
        ("restarts", samples::JPEG_RESTARTS),
        ("grey", samples::JPEG_GREY),
        ("CMYK", samples::JPEG_CMYK),
    ] {
        let full = full(jpeg);
        for (min_side, width, height) in [(10, 12, 10), (5, 6, 5)] {
            let reduced = at_least(jpeg, min_side);
            assert_eq!((reduced.width(), reduced.height()), (width, height), "{name}");
            let resized = resize(&full, width, height, Filter::Bicubic).unwrap();
            let (_, mean) = difference(&reduced, &resized);
            assert!(mean < 9.0, "{name} at {width}x{height}: mean difference {mean}");
        }
    }
}

#[test]
fn half_size_serves_where_the_full_size_exceeds_the_memory_limit() {
    let jpeg = encode_jpeg(&scene(1600, 1200, 2), 80).unwrap();
    let full_size = imaging::inspect(&jpeg, &imaging::Limits::default())
        .unwrap()
        .decode_memory;
    let limits = imaging::Limits {
        max_memory: full_size - 1,
        ..Default::default()
    };
    let options = DecodeOptions {
        limits,
        min_side: Some(600),
        ..Default::default()
    };
    assert_eq!(decode(&jpeg, &options).unwrap().width(), 800);
    assert!(
        decode(
            &jpeg,
            &DecodeOptions {
                min_side: None,
                ..options
            }
        )
        .is_err()
    );
}

#[test]
fn progressive_and_baseline_of_one_picture_reduce_alike() {
    // The same pixels and tables, so the same coefficients: only their order in the file differs.
    let (progressive, baseline) = (at_least(samples::JPEG_PROGRESSIVE, 10), at_least(samples::JPEG_420, 10));
    assert_eq!(difference(&progressive, &baseline).0, 0);
}

#[test]
fn a_coding_that_cannot_be_reduced_comes_at_full_size() {
    assert_eq!(
        at_least(&imaging::encode_png(&scene(64, 64, 1)).unwrap(), 8).width(),
        64
    );
}

#[test]
fn a_reduced_picture_is_turned_too() {
    let jpeg = encode_jpeg(&scene(320, 160, 3), 90).unwrap();
    let turned = at_least(&pictures::jpeg_with_exif(&jpeg, &pictures::exif(6)), 40);
    assert_eq!((turned.width(), turned.height()), (40, 80));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn sizes_are_halved_rounding_up_and_never_fall_below_what_was_asked(
        width in 1u32..200, height in 1u32..200, min_side in 0u32..220, seed in 0u64..1000,
    ) {
        let jpeg = encode_jpeg(&scene(width, height, seed), 80).unwrap();
        let image = at_least(&jpeg, min_side);
        let size = (image.width(), image.height());
        let shrunk = (0..=3).find(|s| (width.div_ceil(1 << s), height.div_ceil(1 << s)) == size);
        prop_assert!(shrunk.is_some());
        if shrunk != Some(0) {
            prop_assert!(image.width().min(image.height()) >= min_side);
        }
    }
}
