//! What a picture costs before the network sees it: decoding at full and at reduced size, and resizing, at 0.1, 1 and
//! 12 megapixels. The pictures are synthesised with the spectrum of photographs and compressed at quality 90.
//!
//!     cargo bench -p imaging --bench decode

#[path = "../tests/pictures/mod.rs"]
mod pictures;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use imaging::{DecodeOptions, Filter, decode, encode_jpeg, encode_png, resize};

const SIZES: [(&str, u32, u32); 3] = [("0.1 MP", 366, 274), ("1 MP", 1155, 866), ("12 MP", 4000, 3000)];

fn benches(criterion: &mut Criterion) {
    let scenes: Vec<_> = SIZES
        .map(|(name, width, height)| (name, pictures::scene(width, height, 1)))
        .into();
    let files: Vec<_> = scenes
        .iter()
        .map(|(name, scene)| (*name, scene, encode_jpeg(scene, 90).expect("a JPEG")))
        .collect();

    let mut group = criterion.benchmark_group("jpeg");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    for (name, scene, jpeg) in &files {
        group.throughput(Throughput::Elements(
            u64::from(scene.width()) * u64::from(scene.height()),
        ));
        for (kind, min_side) in [("full", None), ("for 288", Some(288)), ("for 224", Some(224))] {
            let options = DecodeOptions {
                min_side,
                ..Default::default()
            };
            group.bench_function(BenchmarkId::new(kind, name), |b| {
                b.iter(|| decode(black_box(jpeg), &options))
            });
        }
        group.bench_function(BenchmarkId::new("for 224 and resized", name), |b| {
            let options = DecodeOptions {
                min_side: Some(224),
                ..Default::default()
            };
            b.iter(|| decode(black_box(jpeg), &options).and_then(|image| resize(&image, 224, 224, Filter::Bilinear)));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("resize to 224");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    for (name, scene, _) in &files {
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            let id = BenchmarkId::new(format!("{filter:?}").to_lowercase(), name);
            group.bench_function(id, |b| b.iter(|| resize(black_box(scene), 224, 224, filter)));
        }
    }
    group.finish();

    let mut group = criterion.benchmark_group("1 MP");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    let scene = &scenes[1].1;
    for (name, bytes) in [
        ("png", encode_png(scene).expect("a PNG")),
        ("webp", pictures::webp(scene)),
        ("bmp", pictures::bmp(scene)),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| decode(black_box(&bytes), &DecodeOptions::default()))
        });
    }
    group.bench_function("detail", |b| b.iter(|| imaging::detail(black_box(scene))));
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
