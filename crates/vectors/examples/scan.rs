//! Nanoseconds per distance of one query against a matrix of rows, by kernel: what a sequential scan costs at best.
//! `benches/distances.py` runs it beside numpy, a C loop and the server. Arguments: rows, dimensions.
use std::hint::black_box;
use std::time::Instant;

use vectors::Element;
use vectors::kernels::{Kernels, available_f16, available_f32};

/// The best of some repetitions: the machine may be busy with other things.
const REPETITIONS: usize = 150;

fn scan<E: Element>(rows: usize, dimensions: usize, kernels: &[&'static Kernels<E>]) {
    let element = |i: usize| E::nearest((i as f32 * 0.618_034).fract() - 0.5);
    let matrix: Vec<E> = (0..rows * dimensions).map(element).collect();
    let query: Vec<E> = (0..dimensions).map(|i| element(i * 7 + 3)).collect();
    for kernel in kernels {
        let time = |metric: &str, distance: &dyn Fn(&[E], &[E]) -> f32| {
            let best = (0..REPETITIONS)
                .map(|_| {
                    let start = Instant::now();
                    let sum: f32 = matrix
                        .chunks_exact(dimensions)
                        .map(|row| distance(row, black_box(&query)))
                        .sum();
                    black_box(sum);
                    start.elapsed()
                })
                .min()
                .unwrap_or_default();
            println!(
                "{} {} {metric} {:.2}",
                E::TYPE_NAME,
                kernel.name(),
                best.as_nanos() as f64 / rows as f64
            );
        };
        time("l2", &|a, b| kernel.l2_squared(a, b));
        time("inner_product", &|a, b| kernel.inner_product(a, b));
        time("cosine", &|a, b| kernel.cosine(a, b).dot);
        time("l1", &|a, b| kernel.l1(a, b));
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse());
    let (Some(Ok(rows)), Some(Ok(dimensions))) = (numbers.next(), numbers.next()) else {
        eprintln!("usage: scan ROWS DIMENSIONS");
        std::process::exit(2);
    };
    scan(rows, dimensions, &available_f32());
    scan(rows, dimensions, &available_f16());
}
