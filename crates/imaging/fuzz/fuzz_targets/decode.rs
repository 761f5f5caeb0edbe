//! Any bytes: an image or an error, within the limits. The first byte chooses whether a JPEG may be reduced.
#![no_main]

use imaging::{DecodeOptions, Limits, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else {
        return;
    };
    let limits = Limits {
        max_bytes: 1 << 20,
        max_pixels: 1 << 20,
        max_memory: 16 << 20,
    };
    let min_side = (choice & 1 == 1).then_some(u32::from(choice >> 1));
    if let Ok(image) = decode(
        bytes,
        &DecodeOptions {
            limits,
            min_side,
            ..Default::default()
        },
    ) {
        assert_eq!(
            image.pixels().len() as u64,
            u64::from(image.width()) * u64::from(image.height()) * 3
        );
        assert!(u64::from(image.width()) * u64::from(image.height()) <= limits.max_pixels);
    }
});
