//! AVX2: across, four pixels a step, their weights cut in two so that products have 16 bits on each side; down, as the
//! compiler does it with such registers.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use crate::scalar;
use crate::windows::{LOW_BITS, Pixel, Windows};

pub(crate) fn available() -> bool {
    is_x86_feature_detected!("avx2")
}

pub(crate) fn across<const BITS: u32, const ROWS: usize>(
    rows: [&[Pixel]; ROWS],
    windows: &Windows,
    targets: [&mut [Pixel]; ROWS],
) {
    // SAFETY: called only where AVX2 is available.
    unsafe { across_by_four::<BITS, ROWS>(rows, windows, targets) }
}

/// Each weight is loaded once for all rows: the windows of a picture's width do not stay in the first cache.
#[target_feature(enable = "avx2")]
fn across_by_four<const BITS: u32, const ROWS: usize>(
    rows: [&[Pixel]; ROWS],
    windows: &Windows,
    mut targets: [&mut [Pixel]; ROWS],
) {
    let (half, bits) = (_mm_set1_epi32(1 << (BITS - 1)), _mm_cvtsi32_si128(BITS as i32));
    // From four pixels, which both halves hold: two pixels' reds side by side as numbers of 16 bits,
    // their greens, their blues.
    #[rustfmt::skip]
    let side_by_side = _mm256_setr_epi8(
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,
        6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1,
    );
    let shortest = rows.iter().map(|row| 3 * row.len()).min().unwrap_or(0);
    for (column, span) in windows.spans.iter().enumerate() {
        let quads = &windows.quads[span.quads.clone()];
        // A step reads sixteen bytes, of which four, or more, are not its own.
        if quads.is_empty() || 3 * span.first + 12 * quads.len() + 4 > shortest {
            for (row, target) in rows.iter().zip(&mut targets) {
                target[column] = scalar::one::<BITS>(row, windows, span);
            }
            continue;
        }
        let (mut highs, mut lows) = ([_mm256_setzero_si256(); ROWS], [_mm256_setzero_si256(); ROWS]);
        for (number, quad) in quads.iter().enumerate() {
            // SAFETY: a quad has sixteen weights twice.
            let (high, low) = unsafe {
                (
                    _mm256_loadu_si256(quad.high.as_ptr().cast()),
                    _mm256_loadu_si256(quad.low.as_ptr().cast()),
                )
            };
            for row in 0..ROWS {
                // SAFETY: every row has sixteen bytes from here on, as was looked at above.
                let four = unsafe {
                    let bytes = rows[row].as_ptr().cast::<u8>();
                    _mm_loadu_si128(bytes.add(3 * span.first + 12 * number).cast())
                };
                let values = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(four), side_by_side);
                highs[row] = _mm256_add_epi32(highs[row], _mm256_madd_epi16(values, high));
                lows[row] = _mm256_add_epi32(lows[row], _mm256_madd_epi16(values, low));
            }
        }
        for row in 0..ROWS {
            // Parts may go beyond 32 bits where the whole does not: what wraps around comes back.
            let sums = _mm256_add_epi32(_mm256_slli_epi32::<{ LOW_BITS as i32 }>(highs[row]), lows[row]);
            let both = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            let divided = _mm_sra_epi32(_mm_add_epi32(both, half), bits);
            let cut = _mm_packus_epi16(_mm_packs_epi32(divided, divided), divided);
            let [red, green, blue, _] = _mm_cvtsi128_si32(cut).to_le_bytes();
            targets[row][column] = [red, green, blue];
        }
    }
}

pub(crate) fn add(sums: &mut [i32], row: &[u8], weight: i32) {
    // SAFETY: called only where AVX2 is available.
    unsafe { add_by_eight(sums, row, weight) }
}

#[target_feature(enable = "avx2")]
fn add_by_eight(sums: &mut [i32], row: &[u8], weight: i32) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum += i32::from(*value) * weight;
    }
}
