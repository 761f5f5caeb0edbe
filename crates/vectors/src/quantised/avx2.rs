//! AVX2: 32 bytes of nibbles at a time.
use std::arch::x86_64::*;

use super::{BLOCK, Block, Estimate};

pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// # Safety
/// `block.codes` must have the length of `tables`, a multiple of 32 bytes; addends and factors 64 bytes each; the
/// processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn scan_block(
    block: &Block<'_>,
    tables: &[u8],
    estimate: &Estimate,
    bound: f32,
    out: &mut [f32; BLOCK],
) -> u32 {
    let low = _mm256_set1_epi8(0x0f);
    // Bytes at even places are summed in the lower half of each 16-bit lane of `even…`, with those at odd places above
    // them; `odd…` sums the latter alone, and is taken off at the end. [0]: vectors 0…15, [1]: vectors 16…31.
    let mut even = [_mm256_setzero_si256(); 2];
    let mut odd = [_mm256_setzero_si256(); 2];
    let codes = block.codes.as_ptr();
    let pairs = tables.len() / 32;
    for pair in 0..pairs {
        // SAFETY: pair · 32 + 32 is at most the length of each.
        let (code, table) = unsafe {
            (
                _mm256_loadu_si256(codes.add(32 * pair).cast()),
                _mm256_loadu_si256(tables.as_ptr().add(32 * pair).cast()),
            )
        };
        let first = _mm256_shuffle_epi8(table, _mm256_and_si256(code, low));
        let second = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(code), low));
        even[0] = _mm256_add_epi16(even[0], first);
        even[1] = _mm256_add_epi16(even[1], second);
        odd[0] = _mm256_add_epi16(odd[0], _mm256_srli_epi16::<8>(first));
        odd[1] = _mm256_add_epi16(odd[1], _mm256_srli_epi16::<8>(second));
    }
    let unit = _mm256_set1_ps(estimate.unit);
    let zero = _mm256_set1_ps(estimate.zero);
    let base = _mm256_set1_ps(estimate.base);
    let lambda = _mm256_set1_ps(estimate.lambda);
    let bound = _mm256_set1_ps(bound);
    let mut below = 0u32;
    for half in 0..2 {
        let even = _mm256_sub_epi16(even[half], _mm256_slli_epi16::<8>(odd[half]));
        // The two lanes hold neighbouring nibbles of the same vectors.
        let even = _mm_add_epi16(_mm256_castsi256_si128(even), _mm256_extracti128_si256::<1>(even));
        let odd = _mm_add_epi16(
            _mm256_castsi256_si128(odd[half]),
            _mm256_extracti128_si256::<1>(odd[half]),
        );
        for (quarter, sums) in [_mm_unpacklo_epi16(even, odd), _mm_unpackhi_epi16(even, odd)]
            .into_iter()
            .enumerate()
        {
            let at = 16 * half + 8 * quarter;
            // SAFETY: 2 · at + 16 is at most 64, at + 8 at most 32.
            unsafe {
                let addends = widen(block.addends.as_ptr().add(2 * at));
                let factors = widen(block.factors.as_ptr().add(2 * at));
                let sums = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(sums));
                let inner = _mm256_fmadd_ps(unit, sums, zero);
                let start = _mm256_fmadd_ps(lambda, addends, base);
                let estimates = _mm256_fmadd_ps(factors, inner, start);
                _mm256_storeu_ps(out.as_mut_ptr().add(at), estimates);
                let mask = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(estimates, bound));
                below |= (mask as u32) << at;
            }
        }
    }
    below
}

/// Eight bfloat16 as `f32`.
///
/// # Safety
/// `from` must be good for 16 bytes, and the processor must have AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn widen(from: *const u8) -> __m256 {
    // SAFETY: the caller's promise.
    let bits = unsafe { _mm_loadu_si128(from.cast()) };
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn across(lanes: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
}

/// # Safety
/// `rows` must be good for `n` elements, a multiple of 64, for each of `out`, `query` for `n` and the processor
/// must have these instructions.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn dot_rows(rows: *const i8, query: *const i16, n: usize, out: &mut [i32]) {
    for (row, out) in out.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *out = unsafe { dot_bytes(rows.add(row * n), query, n) };
    }
}

/// Queries whose sums are in registers at a time: a row's bytes are widened once for them.
const QUERIES: usize = 4;

/// # Safety
/// `rows` must be good for `count · n` elements, `queries` for as many times `n` as `out` has times `count`; `n` a
/// multiple of 64; the processor must have these instructions.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn dot_all(rows: *const i8, count: usize, queries: *const i16, n: usize, out: &mut [i32]) {
    let total = out.len() / count.max(1);
    let whole = total / QUERIES * QUERIES;
    for first in (0..whole).step_by(QUERIES) {
        for row in 0..count {
            let mut sums = [_mm256_setzero_si256(); QUERIES];
            for at in (0..n).step_by(16) {
                // SAFETY: row is below count, first + query below the number of queries, at + 16 at most n.
                unsafe {
                    let code = _mm256_cvtepi8_epi16(_mm_loadu_si128(rows.add(row * n + at).cast()));
                    for (query, sum) in sums.iter_mut().enumerate() {
                        let q = _mm256_loadu_si256(queries.add((first + query) * n + at).cast());
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(code, q));
                    }
                }
            }
            // Four sums across their lanes at once.
            let pairs = [_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3])];
            let lanes = _mm256_hadd_epi32(pairs[0], pairs[1]);
            let four = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
            let mut each = [0; QUERIES];
            // SAFETY: four numbers of 32 bits.
            unsafe { _mm_storeu_si128(each.as_mut_ptr().cast(), four) };
            for (query, sum) in each.into_iter().enumerate() {
                out[(first + query) * count + row] = sum;
            }
        }
    }
    for query in whole..total {
        // SAFETY: the caller's promise.
        unsafe { dot_rows(rows, queries.add(query * n), n, &mut out[query * count..][..count]) }
    }
}

/// # Safety
/// Both pointers must be good for `n` elements, a multiple of 64; the processor must have AVX2.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn dot_bytes(code: *const i8, query: *const i16, n: usize) -> i32 {
    let mut sums = [_mm256_setzero_si256(); 4];
    for at in (0..n).step_by(64) {
        for (part, sum) in sums.iter_mut().enumerate() {
            // SAFETY: at + 64 is at most n.
            let (c, q) = unsafe {
                (
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(code.add(at + 16 * part).cast())),
                    _mm256_loadu_si256(query.add(at + 16 * part).cast()),
                )
            };
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(c, q));
        }
    }
    across(_mm256_add_epi32(
        _mm256_add_epi32(sums[0], sums[1]),
        _mm256_add_epi32(sums[2], sums[3]),
    ))
}

/// # Safety
/// `query` must be good for `n` elements, a multiple of 64, `planes` for `n / 64 · 48` bytes; the
/// processor must have AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn dot_six_bit(planes: *const u8, query: *const i16, n: usize) -> i32 {
    let low = _mm256_set1_epi8(0x0f);
    let high = _mm_set1_epi8(0x30);
    let mut sums = [_mm256_setzero_si256(); 4];
    for chunk in 0..n / 64 {
        // SAFETY: chunk · 48 + 48 is at most the length of `planes`, chunk · 64 + 64 at most n.
        unsafe {
            let nibbles = _mm256_loadu_si256(planes.add(48 * chunk).cast());
            let twos = _mm_loadu_si128(planes.add(48 * chunk + 32).cast());
            let first = _mm256_or_si256(
                _mm256_and_si256(nibbles, low),
                _mm256_set_m128i(
                    _mm_and_si128(_mm_slli_epi16::<2>(twos), high),
                    _mm_and_si128(_mm_slli_epi16::<4>(twos), high),
                ),
            );
            let second = _mm256_or_si256(
                _mm256_and_si256(_mm256_srli_epi16::<4>(nibbles), low),
                _mm256_set_m128i(
                    _mm_and_si128(_mm_srli_epi16::<2>(twos), high),
                    _mm_and_si128(twos, high),
                ),
            );
            let query = query.add(64 * chunk);
            for (part, code) in [
                _mm256_castsi256_si128(first),
                _mm256_extracti128_si256::<1>(first),
                _mm256_castsi256_si128(second),
                _mm256_extracti128_si256::<1>(second),
            ]
            .into_iter()
            .enumerate()
            {
                let q = _mm256_loadu_si256(query.add(16 * part).cast());
                sums[part] = _mm256_add_epi32(sums[part], _mm256_madd_epi16(_mm256_cvtepu8_epi16(code), q));
            }
        }
    }
    across(_mm256_add_epi32(
        _mm256_add_epi32(sums[0], sums[1]),
        _mm256_add_epi32(sums[2], sums[3]),
    ))
}
