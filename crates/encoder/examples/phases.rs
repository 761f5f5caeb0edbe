//! Where the milliseconds of one embedding go: `phases MODEL_FOLDER LIBONNXRUNTIME IMAGE…` prints, for each file, the
//! median milliseconds of decoding in full and at reduced scale, of the whole embedding of the decoded picture, and of
//! its resizing alone.

use std::path::PathBuf;
use std::time::Instant;

use encoder::{Encoder, Manifest, Provider, RuntimeOptions};
use imaging::{DecodeOptions, Filter, Limits, decode, resize};

const ROUNDS: usize = 15;

fn median(mut work: impl FnMut() -> Result<(), Box<dyn std::error::Error>>) -> Result<f64, Box<dyn std::error::Error>> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(model), Some(library)) = (arguments.next(), arguments.next()) else {
        return Err("usage: phases MODEL_FOLDER LIBONNXRUNTIME IMAGE…".into());
    };
    let manifest = Manifest::from_json(&std::fs::read_to_string(model.join("manifest.json"))?)?;
    let side = manifest.input_sizes().iter().copied().max().unwrap_or(224);
    let weights = std::fs::read(model.join("model.onnx"))?;
    let options = RuntimeOptions {
        library,
        provider: Provider::Cpu,
        threads: 1,
        device: 0,
        device_memory: 0,
        fp16: false,
        arena: false,
    };
    let mut encoder = Encoder::load(&weights, manifest, &options)?;
    println!("file,width,height,decode_full_ms,decode_reduced_ms,resize_ms,embed_decoded_ms");
    for path in arguments {
        let bytes = std::fs::read(&path)?;
        let options = |min_side| DecodeOptions {
            limits: Limits::default(),
            min_side,
            matte: [255; 3],
            should_stop: &|| false,
        };
        let full = decode(&bytes, &options(None))?;
        let reduced = decode(&bytes, &options(Some(side)))?;
        let decode_full = median(|| {
            decode(&bytes, &options(None))?;
            Ok(())
        })?;
        let decode_reduced = median(|| {
            decode(&bytes, &options(Some(side)))?;
            Ok(())
        })?;
        let resizing = median(|| {
            resize(&reduced, side, side, Filter::Bilinear)?;
            Ok(())
        })?;
        let embedding = median(|| {
            encoder.embed(std::slice::from_ref(&reduced), &|| false)?;
            Ok(())
        })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        println!(
            "{name},{},{},{decode_full:.3},{decode_reduced:.3},{resizing:.3},{embedding:.3}",
            full.width(),
            full.height()
        );
    }
    Ok(())
}
