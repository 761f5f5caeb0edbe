//! What every test needs: the library, a manifest for a model, images.

use std::path::{Path, PathBuf};

use encoder::{Encoder, EncoderError, Manifest, Provider, RuntimeOptions};
use imaging::Image;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The ONNX Runtime to test with: `COPYMATCH_ONNXRUNTIME`, or the one that `make setup` installs.
pub fn library() -> PathBuf {
    if let Some(path) = std::env::var_os("COPYMATCH_ONNXRUNTIME") {
        return path.into();
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.local/onnxruntime");
    let installed = folder.join("libonnxruntime.so");
    assert!(
        installed.exists(),
        "no ONNX Runtime to test with: run `make setup`, or set COPYMATCH_ONNXRUNTIME to a libonnxruntime.so \
         (looked for {})",
        installed.display()
    );
    installed
}

pub fn options() -> RuntimeOptions {
    RuntimeOptions {
        library: library(),
        provider: Provider::Cpu,
        threads: 1,
        device: 0,
        device_memory: 0,
        fp16: false,
        arena: false,
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A valid manifest for `weights`, as JSON to be changed by the test.
pub fn manifest_json(weights: &[u8], dimensions: usize, sizes: &[u32]) -> Value {
    json!({
        "manifest_version": 1,
        "name": "test-model",
        "version": "1",
        "dimensions": dimensions,
        "input": {
            "name": "image", "sizes": sizes, "layout": "NCHW", "colour": "RGB", "resize": "bilinear",
            "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]
        },
        "output": {"name": "descriptor"},
        "weights_sha256": sha256(weights),
        "licence": "Apache-2.0",
        "source": "written by the test",
        "parity": []
    })
}

pub fn manifest(weights: &[u8], dimensions: usize, sizes: &[u32]) -> Manifest {
    read(&manifest_json(weights, dimensions, sizes))
}

pub fn read(json: &Value) -> Manifest {
    Manifest::from_json(&json.to_string()).expect("a valid manifest")
}

pub fn load(weights: &[u8], manifest: Manifest) -> Result<Encoder, EncoderError> {
    Encoder::load(weights, manifest, &options())
}

/// On four threads, which take a batch of four images at a time.
pub fn load_batching(weights: &[u8], manifest: Manifest) -> Result<Encoder, EncoderError> {
    Encoder::load(
        weights,
        manifest,
        &RuntimeOptions {
            threads: 4,
            ..options()
        },
    )
}

pub fn solid(width: u32, height: u32, colour: [u8; 3]) -> Image {
    Image::new(width, height, colour.repeat((width * height) as usize)).expect("an image")
}

/// An image in which every pixel and channel differs from its neighbours.
pub fn noise(width: u32, height: u32, seed: u32) -> Image {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let pixels = (0..width * height * 3).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Image::new(width, height, pixels.collect()).expect("an image")
}

pub fn unit(values: &[f64]) -> Vec<f64> {
    let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    values.iter().map(|value| value / norm).collect()
}

pub fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(*found) - expected).abs() <= tolerance,
            "component {i}: {found} instead of {expected}"
        );
    }
}
