//! Any text is a manifest or an error with a message; a manifest is in range and survives being written and read.
#![no_main]

use encoder::{DIMENSIONS, MAX_SIZES, Manifest, SIZES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match Manifest::from_json(text) {
    Ok(manifest) => {
        assert!(DIMENSIONS.contains(&(manifest.dimensions() as u32)));
        assert!((1..=MAX_SIZES).contains(&manifest.input_sizes().len()));
        assert!(manifest.input_sizes().iter().all(|size| SIZES.contains(size)));
        assert!(manifest.std().iter().all(|&std| std > 0.0 && std.is_finite()));
        assert!(manifest.parity().iter().all(|parity| parity.descriptor().len() == manifest.dimensions()));
        assert_eq!(Manifest::from_json(&manifest.to_json()), Ok(manifest));
    }
    Err(error) => {
        assert!(!error.to_string().is_empty());
        assert!(error.to_string().len() < 4096);
    }
});
