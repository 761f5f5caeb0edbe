//! AVX2: bits of nibbles by a shuffle (Muła), two codes to a register, eight a step.
use std::arch::x86_64::*;

use super::{Code, scalar};

pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2")
}

/// The bits of each 64-bit lane.
#[inline]
#[target_feature(enable = "avx2")]
fn counted(value: __m256i) -> __m256i {
    let bits = _mm256_setr_epi8(
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
    );
    let low = _mm256_set1_epi8(0x0f);
    let below = _mm256_shuffle_epi8(bits, _mm256_and_si256(value, low));
    let above = _mm256_shuffle_epi8(bits, _mm256_and_si256(_mm256_srli_epi16::<4>(value), low));
    _mm256_sad_epu8(_mm256_add_epi8(below, above), _mm256_setzero_si256())
}

/// # Safety
/// `out` must be as long as `codes`; the processor must have AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn distances(one: &Code, codes: &[Code], out: &mut [u8]) {
    // SAFETY: a code has the 16 bytes that are read.
    let one_twice = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(one.as_ptr().cast()) });
    let whole = codes.len() / 8 * 8;
    for at in (0..whole).step_by(8) {
        // SAFETY: eight codes of 16 bytes follow, and eight bytes of `out`.
        unsafe {
            let from = codes.as_ptr().add(at);
            let pair = |n: usize| counted(_mm256_xor_si256(_mm256_loadu_si256(from.add(2 * n).cast()), one_twice));
            let both =
                |a: __m256i, b: __m256i| _mm256_add_epi64(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
            // 64-bit lanes: codes 0, 2, 1, 3; and 4, 6, 5, 7.
            let (first, second) = (both(pair(0), pair(1)), both(pair(2), pair(3)));
            // Values fit 32 bits: the second four go to the upper halves.
            let mixed = _mm256_or_si256(first, _mm256_slli_epi64::<32>(second));
            let (a, b) = (_mm256_castsi256_si128(mixed), _mm256_extracti128_si256::<1>(mixed));
            // 32-bit lanes a: 0, 4, 2, 6; b: 1, 5, 3, 7.
            let words = _mm_packs_epi32(a, b);
            let bytes = _mm_packus_epi16(words, words);
            let order = _mm_setr_epi8(0, 4, 2, 6, 1, 5, 3, 7, -1, -1, -1, -1, -1, -1, -1, -1);
            _mm_storel_epi64(out.as_mut_ptr().add(at).cast(), _mm_shuffle_epi8(bytes, order));
        }
    }
    // SAFETY: nothing is asked of the caller.
    unsafe { scalar::distances(one, &codes[whole..], &mut out[whole..]) }
}
