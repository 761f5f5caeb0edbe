//! Times in atomics: written by one process, read by others at any moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Four a doubling, from a microsecond to about an hour and a quarter.
pub const BUCKETS: usize = 128;

/// How many times were how long. All zero is an empty one.
#[repr(transparent)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&self, time: Duration) {
        self.counts[bucket(time)].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The time that a part (0 to 1) of those counted did not exceed, at most a fifth too high;
    /// None where there are none.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let total: u64 = counts.iter().sum();
        let wanted = ((total as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        counts.iter().enumerate().find_map(|(i, count)| {
            seen += count;
            (seen >= wanted).then(|| upper(i))
        })
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

fn bucket(time: Duration) -> usize {
    let micros = time.as_micros().max(1) as f64;
    ((micros.log2() * 4.0).ceil() as usize).min(BUCKETS - 1)
}

fn upper(bucket: usize) -> Duration {
    Duration::from_secs_f64((bucket as f64 / 4.0).exp2() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_at_most_a_fifth_too_high_and_never_too_low() {
        let histogram = Histogram::default();
        for micros in 1..=10_000 {
            histogram.add(Duration::from_micros(micros));
        }
        for part in [0.01, 0.5, 0.95, 0.99, 1.0] {
            let exact = part * 10_000.0;
            let found = histogram.quantile(part).unwrap().as_secs_f64() * 1e6;
            assert!(found >= exact * 0.999 && found <= exact * 1.2, "{part}: {found}");
        }
        assert_eq!(histogram.count(), 10_000);
        histogram.clear();
        assert_eq!(histogram.quantile(0.5), None);
    }

    #[test]
    fn the_longest_and_the_shortest_times_have_a_place() {
        let histogram = Histogram::default();
        histogram.add(Duration::ZERO);
        histogram.add(Duration::from_secs(1 << 40));
        assert_eq!(histogram.count(), 2);
    }
}
