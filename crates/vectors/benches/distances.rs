//! Nanoseconds per distance, by kernel, element and dimensions: `cargo bench -p vectors`.
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use vectors::Element;
use vectors::kernels::{Kernels, available_f16, available_f32};

fn distances<E: Element>(criterion: &mut Criterion, kernels: &[&'static Kernels<E>]) {
    for dimensions in [64usize, 256, 512, 1536] {
        let elements =
            |phase: f32| -> Vec<E> { (0..dimensions).map(|i| E::nearest((i as f32 + phase).sin())).collect() };
        let (a, b) = (elements(0.0), elements(0.5));
        let mut group = criterion.benchmark_group(format!("{}({dimensions})", E::TYPE_NAME));
        group.throughput(Throughput::Elements(1));
        group
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_millis(500))
            .sample_size(20);
        for kernel in kernels {
            let id = |metric| BenchmarkId::new(metric, kernel.name());
            group.bench_function(id("l2"), |bench| {
                bench.iter(|| kernel.l2_squared(black_box(&a), black_box(&b)))
            });
            group.bench_function(id("inner_product"), |bench| {
                bench.iter(|| kernel.inner_product(black_box(&a), black_box(&b)))
            });
            group.bench_function(id("cosine"), |bench| {
                bench.iter(|| kernel.cosine(black_box(&a), black_box(&b)))
            });
            group.bench_function(id("l1"), |bench| bench.iter(|| kernel.l1(black_box(&a), black_box(&b))));
        }
        group.finish();
    }
}

fn all(criterion: &mut Criterion) {
    distances::<f32>(criterion, &available_f32());
    distances::<f16>(criterion, &available_f16());
}

criterion_group!(benches, all);
criterion_main!(benches);
