//! Any bytes: a description or an error. What can be decoded must have been described, with the same size.
#![no_main]

use imaging::{DecodeOptions, Limits, decode, inspect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        max_bytes: 1 << 20,
        max_pixels: 1 << 16,
        max_memory: 16 << 20,
    };
    let information = inspect(bytes, &limits);
    if let Ok(image) = decode(
        bytes,
        &DecodeOptions {
            limits,
            ..Default::default()
        },
    ) {
        let information = information.expect("what decodes can be inspected");
        assert_eq!((information.width, information.height), (image.width(), image.height()));
        assert!((1..=8).contains(&information.orientation));
    }
});
