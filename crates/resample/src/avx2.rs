//! AVX2: across, two pixels a step, their six bytes in a register of eight sums; down, as the compiler does it with such registers.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Pixel, Windows, scalar};

pub(crate) fn available() -> bool {
    is_x86_feature_detected!("avx2")
}

pub(crate) fn across<const BITS: u32>(row: &[Pixel], windows: &Windows, target: &mut [Pixel]) {
    // SAFETY: called only where AVX2 is available.
    unsafe { across_by_two::<BITS>(row, windows, target) }
}

#[target_feature(enable = "avx2")]
fn across_by_two<const BITS: u32>(row: &[Pixel], windows: &Windows, target: &mut [Pixel]) {
    let bytes = row.as_flattened();
    let (half, bits) = (_mm_set1_epi32(1 << (BITS - 1)), _mm_cvtsi32_si128(BITS as i32));
    for (span, target) in windows.spans.iter().zip(target) {
        let pairs = &windows.pairs[span.pairs.clone()];
        // A step reads eight bytes, of which two, or five, are not its own.
        let Some(read) = bytes
            .get(3 * span.first..)
            .filter(|rest| rest.len() >= 6 * pairs.len() + 2)
        else {
            *target = scalar::one::<BITS>(row, windows, span);
            continue;
        };
        let mut sums = _mm256_setzero_si256();
        for (number, pair) in pairs.iter().enumerate() {
            // SAFETY: `read` has eight bytes from here on, and a pair eight weights.
            let (values, weights) = unsafe {
                (
                    _mm_loadl_epi64(read.as_ptr().add(6 * number).cast()),
                    _mm256_loadu_si256(pair.as_ptr().cast()),
                )
            };
            let products = _mm256_mullo_epi32(_mm256_cvtepu8_epi32(values), weights);
            sums = _mm256_add_epi32(sums, products);
        }
        // Lanes three to five are the second pixels'.
        let second = _mm256_permutevar8x32_epi32(sums, _mm256_setr_epi32(3, 4, 5, 5, 5, 5, 5, 5));
        let both = _mm256_castsi256_si128(_mm256_add_epi32(sums, second));
        let divided = _mm_sra_epi32(_mm_add_epi32(both, half), bits);
        let cut = _mm_packus_epi16(_mm_packs_epi32(divided, divided), divided);
        let [red, green, blue, _] = _mm_cvtsi128_si32(cut).to_le_bytes();
        *target = [red, green, blue];
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
