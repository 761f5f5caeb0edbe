//! Any message: refused with an error, or a vector that is written back as the same bytes and can be computed with.
#![no_main]

use half::f16;
use libfuzzer_sys::fuzz_target;
use vectors::{Element, encode_binary, parse_binary};

fn check<E: Element>(message: &[u8]) {
    if let Ok(elements) = parse_binary::<E>(message, None) {
        assert_eq!(encode_binary(&elements), message);
        assert!(elements.iter().all(|element| element.is_finite()));
        let _ = vectors::l2_distance(&elements, &elements);
        let _ = vectors::cosine_distance(&elements, &elements);
        let _ = vectors::l1_distance(&elements, &elements);
        let _ = vectors::normalize(&elements);
        let _ = vectors::multiply(&elements, &elements);
        let _ = vectors::binary_quantize(&elements);
    }
}

fuzz_target!(|message: &[u8]| {
    check::<f32>(message);
    check::<f16>(message);
});
