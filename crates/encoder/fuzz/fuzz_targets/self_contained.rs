//! The walk over a model's bytes ends for any bytes, without a panic and without deep recursion.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(reason) = encoder::check_self_contained(bytes) {
        assert!(!reason.is_empty());
    }
});
