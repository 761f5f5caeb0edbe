//! The model that the product carries.

use std::path::{Path, PathBuf};

use encoder::{Encoder, Manifest, Pattern, waves_v1};
use imaging::Image;

use crate::setup::options;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/default")
        .join(name)
}

#[test]
fn the_built_in_model_loads_and_reproduces_its_recorded_descriptor() {
    let json = std::fs::read_to_string(file("manifest.json")).expect("models/default/manifest.json");
    let weights = std::fs::read(file("model.onnx")).expect("models/default/model.onnx");
    let manifest = Manifest::from_json(&json).expect("a valid manifest");
    let recorded = manifest.parity().first().expect("a recorded descriptor").clone();
    assert_eq!(recorded.pattern(), Pattern::WavesV1);
    assert!(
        recorded.tolerance() <= 0.01,
        "a tolerance of {} would prove nothing",
        recorded.tolerance()
    );

    let mut encoder = Encoder::load(&weights, manifest, &options()).expect("loads and passes its parity check");
    let (width, height, pixels) = waves_v1();
    let picture = Image::new(width, height, pixels).expect("an image");
    let found = encoder.embed(&[picture], &|| false).expect("embeds").concat();
    let product: f32 = found.iter().zip(recorded.descriptor()).map(|(a, b)| a * b).sum();
    assert!(product > 0.999, "cosine {product}");
}
