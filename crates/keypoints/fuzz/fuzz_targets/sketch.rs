//! Any bytes are a sketch or an error; comparing a query with a sketch ends with evidence or an error. The checksum is
//! put right first, so that the fuzzer reaches what is behind it.
#![no_main]

use imaging::Image;
use keypoints::{Query, Sketch};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

fn query() -> &'static Query {
    static QUERY: OnceLock<Query> = OnceLock::new();
    QUERY.get_or_init(|| {
        let pixels = (0..96 * 96 * 3u32).map(|n| ((n / 24).wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        Query::of(&Image::new(96, 96, pixels).expect("fits"), &|| false).expect("not cancelled")
    })
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 })
    })
}

fuzz_target!(|bytes: &[u8]| {
    let mut whole = bytes.to_vec();
    whole.extend_from_slice(&crc32(bytes).to_le_bytes());
    for bytes in [bytes, &whole] {
        match Sketch::parse(bytes) {
            Ok(sketch) => {
                assert!(sketch.to_bytes().len() == bytes.len());
                if let Ok(evidence) = query().compare(&sketch) {
                    assert!((0.0..=1.0).contains(&evidence.agreement()) && (0.0..=1.0).contains(&evidence.area()));
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
