//! The bare session: `bare MODEL_FOLDER LIBONNXRUNTIME PROVIDER IMAGES BATCH…` prints, for each batch, images a second
//! of ONNX Runtime on ready-made tensors, one thread; nothing of copymatch's but the session's settings.
//! scripts/gpu-check.sh runs it.

use std::path::PathBuf;
use std::time::Instant;

use encoder::{Element, Encoder, Layout, Manifest, RuntimeOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, library, provider, images, batches @ ..] = arguments.as_slice() else {
        return Err("usage: bare MODEL_FOLDER LIBONNXRUNTIME PROVIDER IMAGES BATCH…".into());
    };
    let (model, images) = (PathBuf::from(model), images.parse::<usize>()?);
    let manifest = Manifest::from_json(&std::fs::read_to_string(model.join("manifest.json"))?)?;
    let weights = std::fs::read(model.join("model.onnx"))?;
    let side = manifest.input_sizes().iter().copied().max().unwrap_or(224) as usize;
    let (layout, element) = (manifest.layout(), manifest.element());
    let options = RuntimeOptions {
        library: library.into(),
        provider: provider.parse()?,
        threads: 1,
        device: 0,
        device_memory: 0,
        fp16: false,
        arena: false,
    };
    let mut encoder = Encoder::load(&weights, manifest, &options)?;
    for batch in batches {
        let batch: usize = batch.parse()?;
        let shape = match layout {
            Layout::Nchw => [batch, 3, side, side],
            Layout::Nhwc => [batch, side, side, 3],
        };
        let values = shape.iter().product::<usize>();
        let floats: Vec<f32> = (0..values).map(|i| (i % 509) as f32 / 509.0 - 0.5).collect();
        let bytes: Vec<u8> = match element {
            Element::Uint8 => (0..values).map(|i| (i % 251) as u8).collect(),
            _ => Vec::new(),
        };
        let tensor = match element {
            Element::Uint8 => bytes.as_slice(),
            _ => bytemuck::cast_slice(&floats),
        };
        for _ in 0..3 {
            encoder.run(shape, tensor)?;
        }
        let runs = (images / batch).max(1);
        let started = Instant::now();
        for _ in 0..runs {
            encoder.run(shape, tensor)?;
        }
        let rate = (runs * batch) as f64 / started.elapsed().as_secs_f64();
        println!("{batch} {rate:.1} {}", encoder.provider());
    }
    Ok(())
}
