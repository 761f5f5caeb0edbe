//! Any text: refused with an error, or a vector that survives being written and read again.
#![no_main]

use half::f16;
use libfuzzer_sys::fuzz_target;
use vectors::{Element, MAX_DIMENSIONS, format_text, parse_text};

fn check<E: Element>(text: &[u8]) {
    match parse_text::<E>(text) {
        Ok(elements) => {
            assert!((1..=MAX_DIMENSIONS).contains(&elements.len()));
            assert!(elements.iter().all(|element| element.is_finite()));
            let written = format_text(&elements);
            assert_eq!(parse_text::<E>(written.as_bytes()).as_ref(), Ok(&elements), "{written}");
        }
        Err(error) => assert!(error.to_string().len() < 2000),
    }
}

fuzz_target!(|text: &[u8]| {
    check::<f32>(text);
    check::<f16>(text);
});
