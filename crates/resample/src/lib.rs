//! The inner loops of resizing: weighted sums of pixels, with run-time SIMD dispatch.
//!
//! Weights are fixed-point numbers of 32 bits, sums too, so that every loop gives the same bits as the scalar one, its oracle.
//! They are apart from `imaging` because that crate has no `unsafe`.
#![deny(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;

/// Red, green, blue.
pub type Pixel = [u8; 3];

/// Which pixels of a row make each pixel of a narrower or wider one: the first of them, and their weights.
#[derive(Debug, Default)]
pub struct Windows {
    spans: Vec<Span>,
    weights: Vec<i32>,
    /// The weights once more, two pixels' at a time and each three times, as a register of eight takes them.
    pairs: Vec<[i32; 8]>,
}

#[derive(Debug)]
struct Span {
    first: usize,
    weights: std::ops::Range<usize>,
    pairs: std::ops::Range<usize>,
}

impl Windows {
    /// No windows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the window of the next pixel.
    pub fn push(&mut self, first: usize, weights: &[i32]) {
        let (from, pairs) = (self.weights.len(), self.pairs.len());
        self.weights.extend_from_slice(weights);
        self.pairs.extend(weights.chunks(2).map(|two| {
            let (one, other) = (two[0], two.get(1).copied().unwrap_or(0));
            [one, one, one, other, other, other, 0, 0]
        }));
        self.spans.push(Span {
            first,
            weights: from..self.weights.len(),
            pairs: pairs..self.pairs.len(),
        });
    }

    /// How many pixels there are windows of.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

/// Writes for each window the weighted sum of its pixels in `row`, plus half of 2^`bits`, divided by that and cut to a byte.
///
/// # Panics
/// Where a window reaches beyond the row, or `target` has another length than there are windows.
pub fn across<const BITS: u32>(row: &[Pixel], windows: &Windows, target: &mut [Pixel]) {
    assert_eq!(windows.len(), target.len(), "one window for each pixel");
    #[cfg(target_arch = "x86_64")]
    if avx2::available() {
        avx2::across::<BITS>(row, windows, target);
        return;
    }
    scalar::across::<BITS>(row, windows, target);
}

/// Adds the weighted bytes of a row to the sums.
///
/// # Panics
/// Where the two have different lengths.
pub fn add(sums: &mut [i32], row: &[u8], weight: i32) {
    assert_eq!(sums.len(), row.len(), "one sum for each byte");
    #[cfg(target_arch = "x86_64")]
    if avx2::available() {
        avx2::add(sums, row, weight);
        return;
    }
    scalar::add(sums, row, weight);
}

/// A sum that has half of 2^`BITS` in it already, divided by that and cut to a byte.
#[inline]
pub fn rounded<const BITS: u32>(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BITS: u32 = 22;

    proptest! {
        #[test]
        fn every_loop_gives_what_the_scalar_one_gives(
            row in prop::collection::vec(any::<[u8; 3]>(), 1..60),
            drawn in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(-500_000..500_000_i32, 1..9)), 0..40),
            weight in -4_000_000..4_000_000_i32,
        ) {
            let mut windows = Windows::new();
            for (first, weights) in &drawn {
                let first = first.index(row.len());
                let reach = (row.len() - first).min(weights.len());
                windows.push(first, &weights[..reach]);
            }
            let (mut found, mut wanted) = (vec![[0; 3]; windows.len()], vec![[0; 3]; windows.len()]);
            across::<BITS>(&row, &windows, &mut found);
            scalar::across::<BITS>(&row, &windows, &mut wanted);
            prop_assert_eq!(found, wanted);

            let bytes = row.as_flattened();
            let (mut found, mut wanted) = (vec![7; bytes.len()], vec![7; bytes.len()]);
            add(&mut found, bytes, weight);
            scalar::add(&mut wanted, bytes, weight);
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    #[should_panic(expected = "range")]
    fn a_window_beyond_the_row_is_refused() {
        let mut windows = Windows::new();
        windows.push(1, &[1, 1]);
        across::<BITS>(&[[0; 3]; 2], &windows, &mut [[0; 3]; 1]);
    }
}
