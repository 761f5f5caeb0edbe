//! Median milliseconds to decode JPEG files and to bring them to 224 × 224, for benches/imaging.py:
//!
//!     cargo run --release -p imaging --example decode_times -- FILE...
//!
//! One line a file: `decode at full size`, `decode for 288`, `decode for 224`, `full decode and resize`,
//! `decode for 224 and resize`, tab-separated.

use std::time::{Duration, Instant};

use imaging::{DecodeOptions, Filter, Image, ImageError, decode, resize};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args().skip(1) {
        let bytes = std::fs::read(path)?;
        let at = |min_side| {
            decode(
                &bytes,
                &DecodeOptions {
                    min_side,
                    ..Default::default()
                },
            )
        };
        let small = |image: Image| resize(&image, 224, 224, Filter::Bilinear);
        let columns = [
            median(|| at(None))?,
            median(|| at(Some(288)))?,
            median(|| at(Some(224)))?,
            median(|| at(None).and_then(small))?,
            median(|| at(Some(224)).and_then(small))?,
        ];
        let columns: Vec<String> = columns
            .iter()
            .map(|time| format!("{:.2}", time.as_secs_f64() * 1e3))
            .collect();
        println!("{}", columns.join("\t"));
    }
    Ok(())
}

/// Median over at least 5 runs and half a second.
fn median(work: impl Fn() -> Result<Image, ImageError>) -> Result<Duration, ImageError> {
    work()?;
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || start.elapsed() < Duration::from_millis(500) {
        let start = Instant::now();
        std::hint::black_box(work()?);
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}
