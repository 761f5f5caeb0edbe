//! Cost of one model in one process: loading, resident memory, and images per second beside the network alone.
//!
//! `COPYMATCH_ONNXRUNTIME` names the library; `COPYMATCH_MODEL` a folder with model.onnx and manifest.json
//! (models/default where it is unset). Memory is printed before the timings, since only the first load shows it.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use criterion::{Criterion, Throughput};
use encoder::{Encoder, Manifest, Provider, RuntimeOptions};
use imaging::Image;

/// Resident and private memory of this process in KiB.
fn memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let sum = |names: &[&str]| {
        let values = text.lines().filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            names
                .contains(&name)
                .then(|| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())?
        });
        values.sum()
    };
    (sum(&["Rss"]), sum(&["Private_Clean", "Private_Dirty"]))
}

fn image(width: u32, height: u32) -> Image {
    let (w, h, pixels) = encoder::waves_v1();
    let waves = Image::new(w, h, pixels).expect("the pattern is an image");
    imaging::resize(&waves, width, height, imaging::Filter::Bilinear).expect("resizes")
}

fn main() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os("COPYMATCH_MODEL").map_or_else(|| root.join("models/default"), PathBuf::from);
    let library = std::env::var_os("COPYMATCH_ONNXRUNTIME")
        .map_or_else(|| root.join(".local/onnxruntime/libonnxruntime.so"), PathBuf::from);
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).expect("a manifest");
    let manifest = Manifest::from_json(&manifest).expect("a valid manifest");
    let options = RuntimeOptions {
        library,
        provider: Provider::Cpu,
        threads: 1,
        device: 0,
        device_memory: 0,
        fp16: false,
        arena: false,
    };
    let load = || {
        let weights = std::fs::read(folder.join("model.onnx")).expect("a model");
        Encoder::load(&weights, manifest.clone(), &options).expect("loads")
    };

    let picture = image(320, 240);
    let before = memory();
    let start = Instant::now();
    let mut encoder = load();
    let loaded = (start.elapsed(), memory());
    encoder
        .embed(std::slice::from_ref(&picture), &|| false)
        .expect("embeds");
    let embedded = (start.elapsed(), memory());
    let batch = vec![picture.clone(); 32];
    encoder.embed(&batch, &|| false).expect("embeds");
    let batched = memory();
    println!(
        "model {} {}, sizes {:?}",
        manifest.name(),
        manifest.version(),
        manifest.input_sizes()
    );
    println!("first load {:?}, first descriptor after {:?}", loaded.0, embedded.0);
    for (when, (resident, private)) in [
        ("before", before),
        ("loaded", loaded.1),
        ("first image", embedded.1),
        ("batch of 32", batched),
    ] {
        println!("memory {when}: {resident} KiB resident, {private} KiB private");
    }

    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    criterion.bench_function("load", |bencher| bencher.iter(|| black_box(load())));
    let mut group = criterion.benchmark_group("embed");
    for count in [1, 8, 32] {
        group.throughput(Throughput::Elements(count));
        let images = vec![picture.clone(); count as usize];
        group.bench_function(format!("{count} images of 320x240"), |bencher| {
            bencher.iter(|| encoder.embed(black_box(&images), &|| false).expect("embeds"))
        });
    }
    group.finish();
    criterion.final_summary();
}
