//! Any bytes are a background or an error; a background answers a unit query with a number that a mean can be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scoring::Background;

fuzz_target!(|bytes: &[u8]| match Background::parse(bytes) {
    Ok(background) => {
        assert!(background.rows() > 0 && background.rows() * background.dimensions() <= bytes.len());
        let mut query = vec![0.0; background.dimensions()];
        query[0] = 1.0;
        let k = background.rows().min(5);
        let mean = background.mean_top_k(&query, k).expect("a unit query and enough rows");
        assert!(mean.abs() <= 1.05, "{mean}");
        assert!(background.mean_top_k(&query, background.rows() + 1).is_err());
    }
    Err(error) => assert!(!error.to_string().is_empty()),
});
