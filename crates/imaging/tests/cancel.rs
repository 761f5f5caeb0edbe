//! Cancellation: decoding ends soon after `should_stop` says so, wherever it is.

mod pictures;

use std::cell::Cell;

use imaging::{DecodeOptions, Filter, ImageError, decode, encode_jpeg, encode_png};
use pictures::scene;

/// Polls a decode makes when it is never stopped.
fn polls(bytes: &[u8], min_side: Option<u32>) -> usize {
    let polls = Cell::new(0);
    let should_stop = || {
        polls.set(polls.get() + 1);
        false
    };
    decode(
        bytes,
        &DecodeOptions {
            min_side,
            should_stop: &should_stop,
            ..Default::default()
        },
    )
    .unwrap();
    polls.get()
}

/// Stops at poll `at`; gives the number of polls after that.
fn polls_after_stop(bytes: &[u8], min_side: Option<u32>, at: usize) -> usize {
    let polls = Cell::new(0);
    let should_stop = || {
        polls.set(polls.get() + 1);
        polls.get() >= at
    };
    let result = decode(
        bytes,
        &DecodeOptions {
            min_side,
            should_stop: &should_stop,
            ..Default::default()
        },
    );
    assert_eq!(result.unwrap_err(), ImageError::Cancelled);
    polls.get() - at
}

#[test]
fn a_stop_at_any_poll_ends_the_decode_there() {
    let image = scene(900, 700, 5);
    let jpeg = encode_jpeg(&image, 92).unwrap();
    for (name, bytes, min_side) in [
        ("jpeg", jpeg.clone(), None),
        ("reduced jpeg", jpeg, Some(100)),
        ("png", encode_png(&image).unwrap(), None),
        ("interlaced png", pictures::png::rgb(&image, true), None),
        ("bmp", pictures::bmp(&image), None),
        ("tiff", pictures::tiff(&image), None),
        ("gif", pictures::gif(&image), None),
        ("webp", pictures::webp(&image), None),
    ] {
        let whole = polls(&bytes, min_side);
        assert!(whole >= 5, "{name} is polled only {whole} times");
        for at in [1, 2, whole / 2, whole - 1, whole] {
            assert_eq!(
                polls_after_stop(&bytes, min_side, at.max(1)),
                0,
                "{name}, stopped at poll {at} of {whole}"
            );
        }
    }
}

#[test]
fn a_large_jpeg_is_polled_all_along() {
    let image = scene(2000, 1500, 2);
    let jpeg = encode_jpeg(&image, 90).unwrap();
    assert!(polls(&jpeg, None) >= jpeg.len() / 20_000, "once per 16 KiB or so");
    assert!(polls(&jpeg, Some(100)) >= 1500 / 16, "once per row of blocks");
}

#[test]
fn resizing_and_measuring_end_when_told_to() {
    let image = scene(1600, 1200, 4);
    let stop = || true;
    for filter in [Filter::Nearest, Filter::Bilinear, Filter::Lanczos] {
        let result = imaging::resize_until(&image, 300, 200, filter, &stop);
        assert_eq!(result, Err(ImageError::Cancelled));
    }
    assert_eq!(imaging::detail_until(&image, &stop), Err(ImageError::Cancelled));
}

#[test]
fn a_panic_in_should_stop_is_the_callers_and_comes_back_to_him() {
    let jpeg = encode_jpeg(&scene(300, 200, 1), 90).unwrap();
    let polls = Cell::new(0);
    let should_stop = || {
        polls.set(polls.get() + 1);
        assert!(polls.get() < 3, "the caller's own reason");
        false
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        decode(
            &jpeg,
            &DecodeOptions {
                should_stop: &should_stop,
                ..Default::default()
            },
        )
    }));
    let panic = outcome.unwrap_err();
    assert!(
        panic
            .downcast_ref::<&str>()
            .is_some_and(|text| text.contains("the caller's own reason"))
    );
}
