//! The background and calibration that the product carries belong together and to the built-in model.

use std::path::{Path, PathBuf};

use scoring::{Background, Calibration};
use serde_json::Value;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/default")
        .join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file(name)).expect(name)).expect("JSON")
}

#[test]
fn the_built_in_background_is_valid_and_as_long_as_the_models_descriptors() {
    let background = Background::parse(&std::fs::read(file("background.bin")).expect("background.bin")).expect("valid");
    let manifest = json("manifest.json");
    assert_eq!(Some(background.dimensions() as u64), manifest["dimensions"].as_u64());
    assert!(background.rows() >= 1000, "{} rows", background.rows());
    // The recorded parity descriptor is a unit vector of this model.
    let values = manifest["parity"][0]["descriptor"]
        .as_array()
        .expect("a recorded descriptor");
    let query: Vec<f32> = values
        .iter()
        .map(|value| value.as_f64().expect("a number") as f32)
        .collect();
    let mean = background.mean_top_k(&query, 5).expect("a descriptor");
    assert!(mean > 0.0 && mean < 1.0, "{mean}");
}

#[test]
fn the_built_in_calibration_is_valid_beside_its_evidence() {
    let mut record = json("calibration.json");
    record.as_object_mut().expect("an object").remove("evidence");
    let calibration = Calibration::from_json(&record.to_string()).expect("valid");
    // An exact copy is a copy, a picture like any other is none.
    let [low, high] = calibration.clamp();
    assert_eq!(calibration.verdict(calibration.probability(1.0, low)).name(), "copy");
    assert_eq!(
        calibration.verdict(calibration.probability(low, high)).name(),
        "different"
    );
}
