//! AVX-512 (BW, VNNI): across, four pixels of each of four rows a step, a row a lane, their weights cut in three so
//! that products have eight bits on each side.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use crate::scalar;
use crate::windows::{Pixel, ROWS_AT_ONCE, Windows};

pub(crate) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}

pub(crate) fn across<const BITS: u32>(
    rows: [&[Pixel]; ROWS_AT_ONCE],
    windows: &Windows,
    targets: [&mut [Pixel]; ROWS_AT_ONCE],
) {
    // SAFETY: called only where all of these are available.
    unsafe { across_by_four::<BITS>(rows, windows, targets) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn across_by_four<const BITS: u32>(
    rows: [&[Pixel]; ROWS_AT_ONCE],
    windows: &Windows,
    mut targets: [&mut [Pixel]; ROWS_AT_ONCE],
) {
    // From four pixels: their reds side by side, their greens, their blues, and nothing.
    let side_by_side = _mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1);
    let side_by_side = _mm512_broadcast_i32x4(side_by_side);
    let (half, bits) = (_mm512_set1_epi32(1 << (BITS - 1)), _mm_cvtsi32_si128(BITS as i32));
    let shortest = rows.iter().map(|row| 3 * row.len()).min().unwrap_or(0);
    let columns = windows.spans.len();
    for (column, span) in windows.spans.iter().enumerate() {
        let steps = &windows.fours[span.fours.clone()];
        // A step reads sixteen bytes of each row, of which four, or more, are not its own.
        if steps.is_empty() || 3 * span.first + 12 * steps.len() + 4 > shortest {
            for (row, target) in rows.iter().zip(&mut targets) {
                target[column] = scalar::one::<BITS>(row, windows, span);
            }
            continue;
        }
        let mut sums = [_mm512_setzero_si512(); 3];
        for (number, step) in steps.iter().enumerate() {
            // SAFETY: every row has sixteen bytes from here on, as was looked at above.
            let [a, b, c, d] = rows.map(|row| unsafe {
                let bytes = row.as_ptr().cast::<u8>();
                _mm_loadu_si128(bytes.add(3 * span.first + 12 * number).cast())
            });
            let all = _mm512_mask_broadcast_i32x4(_mm512_castsi128_si512(a), 0x00f0, b);
            let all = _mm512_mask_broadcast_i32x4(all, 0x0f00, c);
            let all = _mm512_mask_broadcast_i32x4(all, 0xf000, d);
            let values = _mm512_shuffle_epi8(all, side_by_side);
            for (sum, part) in sums.iter_mut().zip(step.parts) {
                *sum = _mm512_dpbusd_epi32(*sum, values, _mm512_set1_epi32(part));
            }
        }
        // Parts may go beyond 32 bits where the whole does not: what wraps around comes back.
        let [low, middle, high] = sums;
        let upper = _mm512_add_epi32(_mm512_slli_epi32::<8>(high), middle);
        let whole = _mm512_add_epi32(_mm512_slli_epi32::<8>(upper), low);
        let divided = _mm512_sra_epi32(_mm512_add_epi32(whole, half), bits);
        let cut = _mm512_cvtusepi32_epi8(_mm512_max_epi32(divided, _mm512_setzero_si512()));
        for (target, pixel) in targets.iter_mut().zip(bytes_of(cut)) {
            let [red, green, blue, _] = pixel;
            if column + 1 == columns {
                target[column] = [red, green, blue];
                continue;
            }
            // The fourth byte is the next pixel's, which is written after this one.
            // SAFETY: a target has a pixel for every window, so that one more follows.
            unsafe { target.as_mut_ptr().add(column).cast::<[u8; 4]>().write(pixel) };
        }
    }
}

fn bytes_of(lane: __m128i) -> [[u8; 4]; ROWS_AT_ONCE] {
    // SAFETY: both have sixteen bytes, and every value of them is valid.
    unsafe { std::mem::transmute(lane) }
}
