//! The inner loops of resizing: weighted sums of pixels, with run-time SIMD dispatch.
//!
//! Weights are fixed-point numbers of 32 bits, sums too, so that every loop gives the same bits as the scalar one, its
//! oracle. They are apart from `imaging` because that crate has no `unsafe`.
#![deny(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

/// Red, green, blue.
pub type Pixel = [u8; 3];

/// Which pixels of a row make each pixel of a narrower or wider one: the first of them, and their weights.
#[derive(Debug, Default)]
pub struct Windows {
    spans: Vec<Span>,
    weights: Vec<i32>,
    /// The weights once more, as registers take them.
    quads: Vec<Quad>,
    fours: Vec<Four>,
}

#[derive(Debug)]
struct Span {
    first: usize,
    weights: std::ops::Range<usize>,
    /// None where a weight is too large to be cut in two.
    quads: std::ops::Range<usize>,
    /// None where a weight is too large to be cut in three.
    fours: std::ops::Range<usize>,
}

/// Four pixels' weights, cut in two so that each part is multiplied in 16 bits: weight = 2^[`LOW_BITS`] · high + low.
/// Two pixels' side by side, once for each colour; then the other two pixels'.
#[derive(Debug)]
struct Quad {
    high: [i16; 16],
    low: [i16; 16],
}

/// Bits of a weight's lower part.
const LOW_BITS: u32 = 11;

impl Quad {
    /// Of up to four weights; None where one is too large.
    fn new(weights: &[i32]) -> Option<Self> {
        let mut quad = Quad {
            high: [0; 16],
            low: [0; 16],
        };
        for (place, weight) in weights.iter().enumerate() {
            let high = i16::try_from(weight >> LOW_BITS).ok()?;
            let low = i16::try_from(weight & ((1 << LOW_BITS) - 1)).ok()?;
            for colour in 0..3 {
                let lane = place / 2 * 8 + colour * 2 + place % 2;
                (quad.high[lane], quad.low[lane]) = (high, low);
            }
        }
        Some(quad)
    }
}

/// Four pixels' weights, cut in three so that each part is multiplied in 8 bits, with its own sign: weight =
/// 2^16 · part 2 + 2^8 · part 1 + part 0. Four weights' parts are bytes of one number.
#[derive(Debug)]
struct Four {
    parts: [i32; 3],
}

impl Four {
    /// Of up to four weights; None where one is too large.
    fn new(weights: &[i32]) -> Option<Self> {
        let mut parts = [[0; 4]; 3];
        for (place, &weight) in weights.iter().enumerate() {
            let low = weight as i8;
            let rest = (i64::from(weight) - i64::from(low)) >> 8;
            let middle = rest as i8;
            let high = i8::try_from((rest - i64::from(middle)) >> 8).ok()?;
            for (part, value) in parts.iter_mut().zip([low, middle, high]) {
                part[place] = value as u8;
            }
        }
        Some(Four {
            parts: parts.map(i32::from_le_bytes),
        })
    }
}

impl Windows {
    /// No windows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the window of the next pixel.
    pub fn push(&mut self, first: usize, weights: &[i32]) {
        let (from, quads, fours) = (self.weights.len(), self.quads.len(), self.fours.len());
        self.weights.extend_from_slice(weights);
        for four in weights.chunks(4) {
            let Some(quad) = Quad::new(four) else {
                self.quads.truncate(quads);
                break;
            };
            self.quads.push(quad);
        }
        for four in weights.chunks(4) {
            let Some(four) = Four::new(four) else {
                self.fours.truncate(fours);
                break;
            };
            self.fours.push(four);
        }
        self.spans.push(Span {
            first,
            weights: from..self.weights.len(),
            quads: quads..self.quads.len(),
            fours: fours..self.fours.len(),
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

/// Rows that [`across`] takes at once: each weight is loaded once for all of them.
pub const ROWS_AT_ONCE: usize = 4;

/// Writes for each row and window the weighted sum of the window's pixels, plus half of 2^`BITS`, divided
/// by that and cut to a byte.
///
/// # Panics
/// Where a window reaches beyond a row, or a target has another length than there are windows.
pub fn across<const BITS: u32>(
    rows: [&[Pixel]; ROWS_AT_ONCE],
    windows: &Windows,
    mut targets: [&mut [Pixel]; ROWS_AT_ONCE],
) {
    for target in &targets {
        assert_eq!(windows.len(), target.len(), "one window for each pixel");
    }
    #[cfg(target_arch = "x86_64")]
    if avx512::available() {
        return avx512::across::<BITS>(rows, windows, targets);
    }
    #[cfg(target_arch = "x86_64")]
    if avx2::available() {
        return avx2::across::<BITS, _>(rows, windows, targets);
    }
    for (row, target) in rows.into_iter().zip(&mut targets) {
        scalar::across::<BITS>(row, windows, target);
    }
}

/// As [`across`], of a single row.
///
/// # Panics
/// As there.
pub fn across_one<const BITS: u32>(row: &[Pixel], windows: &Windows, target: &mut [Pixel]) {
    assert_eq!(windows.len(), target.len(), "one window for each pixel");
    #[cfg(target_arch = "x86_64")]
    if avx2::available() {
        return avx2::across::<BITS, 1>([row], windows, [target]);
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

    /// Four rows by each of the loops that this processor has.
    fn all(rows: [&[Pixel]; 4], windows: &Windows) -> Vec<[Vec<Pixel>; 4]> {
        let made = |across: &dyn Fn([&mut [Pixel]; 4])| {
            let mut four: [Vec<Pixel>; 4] = std::array::from_fn(|_| vec![[0; 3]; windows.len()]);
            across(four.each_mut().map(Vec::as_mut_slice));
            four
        };
        let mut found = vec![made(&|targets| across::<BITS>(rows, windows, targets))];
        #[cfg(target_arch = "x86_64")]
        {
            if avx2::available() {
                found.push(made(&|targets| avx2::across::<BITS, _>(rows, windows, targets)));
            }
            if avx512::available() {
                found.push(made(&|targets| avx512::across::<BITS>(rows, windows, targets)));
            }
        }
        found
    }

    proptest! {
        #[test]
        fn every_loop_gives_what_the_scalar_one_gives(
            rows in prop::collection::vec(any::<[[u8; 3]; 4]>(), 1..90),
            drawn in prop::collection::vec(
                (any::<prop::sample::Index>(), prop::collection::vec(-500_000..500_000_i32, 1..40)),
                0..40,
            ),
            weight in -4_000_000..4_000_000_i32,
        ) {
            let rows: [Vec<Pixel>; 4] = std::array::from_fn(|number| rows.iter().map(|four| four[number]).collect());
            let row = &rows[0];
            let mut windows = Windows::new();
            for (first, weights) in &drawn {
                let first = first.index(row.len());
                let reach = (row.len() - first).min(weights.len());
                windows.push(first, &weights[..reach]);
            }
            let slices = rows.each_ref().map(Vec::as_slice);
            for four in all(slices, &windows) {
                for (row, found) in rows.iter().zip(&four) {
                    let (mut single, mut wanted) = (vec![[0; 3]; windows.len()], vec![[0; 3]; windows.len()]);
                    across_one::<BITS>(row, &windows, &mut single);
                    scalar::across::<BITS>(row, &windows, &mut wanted);
                    prop_assert_eq!(found, &wanted);
                    prop_assert_eq!(single, wanted);
                }
            }

            let bytes = row.as_flattened();
            let (mut found, mut wanted) = (vec![7; bytes.len()], vec![7; bytes.len()]);
            add(&mut found, bytes, weight);
            scalar::add(&mut wanted, bytes, weight);
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn the_largest_weights_and_ones_too_large_to_be_cut_in_two_are_exact() {
        let row: Vec<Pixel> = (0..40_u8).map(|x| [x, 255 - x, x.wrapping_mul(7)]).collect();
        for weights in [
            // The most and the least that can be cut in three, and what just cannot.
            vec![
                0x7f_7f7f,
                -0x80_8080,
                0x7f_7f80 - 0x80_0000,
                128,
                -128,
                127,
                255,
                256,
                -129,
            ],
            vec![0x7f_7f80, -0x7f_7f80],
            vec![
                (i32::from(i16::MAX) << LOW_BITS) + 2047,
                i32::from(i16::MIN) << LOW_BITS,
                -1,
                1,
            ],
            vec![
                i32::from(i16::MAX) << (LOW_BITS + 1),
                5,
                -(i32::from(i16::MAX) << (LOW_BITS + 1)),
                1 << 20,
                9,
            ],
        ] {
            let mut windows = Windows::new();
            windows.push(0, &weights);
            windows.push(1, &[1 << 22]);
            let (mut found, mut wanted) = ([[0; 3]; 2], [[0; 3]; 2]);
            across_one::<BITS>(&row, &windows, &mut found);
            for (pixel, target) in wanted.iter_mut().enumerate() {
                let weights = if pixel == 0 { &weights[..] } else { &[1 << 22] };
                for (colour, target) in target.iter_mut().enumerate() {
                    let products = weights
                        .iter()
                        .zip(&row[pixel..])
                        .map(|(weight, p)| i64::from(*weight) * i64::from(p[colour]));
                    let sum = (products.sum::<i64>() + (1 << (BITS - 1))) as i32;
                    *target = rounded::<BITS>(sum);
                }
            }
            assert_eq!(found, wanted);
            for four in all([&row; 4], &windows) {
                assert_eq!(four, [0; 4].map(|_| wanted.to_vec()));
            }
        }
    }

    #[test]
    #[should_panic(expected = "range")]
    fn a_window_beyond_the_row_is_refused() {
        let mut windows = Windows::new();
        windows.push(1, &[1, 1]);
        across_one::<BITS>(&[[0; 3]; 2], &windows, &mut [[0; 3]; 1]);
    }
}
