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
mod windows;

pub use windows::{Pixel, ROWS_AT_ONCE, Windows, rounded};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::windows::LOW_BITS;

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
