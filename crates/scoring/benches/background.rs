//! Cost of the background of one query: 16,384 descriptors of 256 dimensions, mean of the five nearest.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use half::f16;
use scoring::{Background, Prediction, micro_average_precision};

const ROWS: usize = 16_384;
const DIMENSIONS: usize = 256;

fn random(state: &mut u64) -> f32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
}

fn unit(state: &mut u64) -> Vec<f32> {
    let vector: Vec<f32> = (0..DIMENSIONS).map(|_| random(state)).collect();
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.iter().map(|value| value / norm).collect()
}

fn file(encoding: u16, rows: &[Vec<f32>]) -> Vec<u8> {
    let mut bytes = b"CMBG\x01\x00".to_vec();
    bytes.extend(encoding.to_le_bytes());
    bytes.extend((ROWS as u32).to_le_bytes());
    bytes.extend((DIMENSIONS as u32).to_le_bytes());
    match encoding {
        0 => rows
            .iter()
            .flatten()
            .for_each(|value| bytes.extend(value.to_le_bytes())),
        1 => rows
            .iter()
            .flatten()
            .for_each(|&value| bytes.extend(f16::from_f32(value).to_le_bytes())),
        _ => {
            let scale = |row: &Vec<f32>| row.iter().fold(0.0_f32, |most, value| most.max(value.abs())) / 127.0;
            rows.iter().for_each(|row| bytes.extend(scale(row).to_le_bytes()));
            rows.iter()
                .for_each(|row| bytes.extend(row.iter().map(|value| (value / scale(row)).round() as i8 as u8)));
        }
    }
    bytes
}

fn background(criterion: &mut Criterion) {
    let mut state = 1;
    let rows: Vec<Vec<f32>> = (0..ROWS).map(|_| unit(&mut state)).collect();
    let query = unit(&mut state);
    for (encoding, name) in [(0, "f32"), (1, "f16"), (2, "int8")] {
        let bytes = file(encoding, &rows);
        let background = Background::parse(&bytes).expect("valid");
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20);
        group.bench_function("parse", |bencher| bencher.iter(|| Background::parse(black_box(&bytes))));
        group.bench_function("mean of the five nearest", |bencher| {
            bencher.iter(|| background.mean_top_k(black_box(&query), 5))
        });
        group.finish();
    }
}

fn metrics(criterion: &mut Criterion) {
    let mut state = 2;
    let predictions: Vec<Prediction> = (0..100_000)
        .map(|_| Prediction {
            score: random(&mut state).into(),
            correct: random(&mut state) > 0.9,
        })
        .collect();
    criterion.bench_function("micro-average precision of 100,000 predictions", |bencher| {
        bencher.iter(|| micro_average_precision(black_box(&predictions), 100_000))
    });
}

criterion_group!(benches, background, metrics);
criterion_main!(benches);
