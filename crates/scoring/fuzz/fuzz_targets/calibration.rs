//! Any text is a calibration or an error; a calibration scores and judges every pair, in the order of similarity.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scoring::Calibration;

fuzz_target!(|text: &str| match Calibration::from_json(text) {
    Ok(calibration) => {
        for background in [-1.0, 0.0, 0.3, 1.0] {
            let (near, far) = (calibration.stretch(0.9, background), calibration.stretch(0.1, background));
            assert!(near.is_finite() && near > far);
            let (likely, less) = (calibration.probability(0.9, background), calibration.probability(0.1, background));
            assert!((0.0..=1.0).contains(&less) && less <= likely && likely <= 1.0);
            assert!(calibration.verdict(likely) >= calibration.verdict(less));
        }
        let again = Calibration::from_json(&calibration.to_json()).expect("reads back");
        assert_eq!(again.neighbours(), calibration.neighbours());
    }
    Err(error) => assert!(!error.to_string().is_empty()),
});
