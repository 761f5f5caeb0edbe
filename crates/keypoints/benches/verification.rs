//! What the second stage costs: a reference's sketch, a query's features, fifty comparisons.

use criterion::{Criterion, criterion_group, criterion_main};
use imaging::Image;
use keypoints::{Query, Sketch};
use std::hint::black_box;

/// Smooth waves and boxes: as many features as a photograph.
fn picture(seed: u64) -> Image {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut chance = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let (width, height) = (400, 300);
    let mut pixels = vec![100_u8; width * height * 3];
    for _ in 0..200 {
        let (left, top, w, h) = (chance(width), chance(height), 6 + chance(60), 6 + chance(50));
        let colour = [chance(256) as u8, chance(256) as u8, chance(256) as u8];
        for y in top..(top + h).min(height) {
            for x in left..(left + w).min(width) {
                pixels[(y * width + x) * 3..][..3].copy_from_slice(&colour);
            }
        }
    }
    Image::new(width as u32, height as u32, pixels).expect("sizes fit")
}

fn verification(c: &mut Criterion) {
    let stored: Vec<Vec<u8>> = (0..50)
        .map(|seed| Sketch::of(&picture(seed), &|| false).expect("not cancelled").to_bytes())
        .collect();
    let image = picture(0);
    let query = Query::of(&image, &|| false).expect("not cancelled");
    c.bench_function("a reference's sketch", |b| {
        b.iter(|| Sketch::of(black_box(&image), &|| false))
    });
    c.bench_function("a query's features", |b| {
        b.iter(|| Query::of(black_box(&image), &|| false))
    });
    c.bench_function("50 references", |b| {
        b.iter(|| {
            stored
                .iter()
                .map(|bytes| {
                    query
                        .compare(&Sketch::parse(bytes).expect("whole"))
                        .expect("whole")
                        .inliers
                })
                .sum::<usize>()
        })
    });
}

criterion_group!(benches, verification);
criterion_main!(benches);
