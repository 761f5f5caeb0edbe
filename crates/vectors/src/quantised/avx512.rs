//! AVX-512 (F, BW, VL): 64 bytes of nibbles at a time.
//!
//! Tested in an emulator (Bochs 2.7 as a Skylake-X) and on a Zen 5.
use std::arch::x86_64::*;

use super::{BLOCK, Block, Estimate};

pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl")
}

/// Adds the entries that nibbles look up: those of bytes at even places to the lower half of each 16-bit lane of
/// `even`, with those at odd places above them, and the latter alone to `odd`, to be taken off at the end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn add_entries(even: &mut [__m512i; 2], odd: &mut [__m512i; 2], code: __m512i, table: __m512i) {
    let low = _mm512_set1_epi8(0x0f);
    for (half, nibbles) in [code, _mm512_srli_epi16::<4>(code)].into_iter().enumerate() {
        let entries = _mm512_shuffle_epi8(table, _mm512_and_si512(nibbles, low));
        even[half] = _mm512_add_epi16(even[half], entries);
        odd[half] = _mm512_add_epi16(odd[half], _mm512_srli_epi16::<8>(entries));
    }
}

/// Adds up the four lanes, which hold neighbouring nibbles of the same vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn fold(lanes: __m512i) -> __m128i {
    let two = _mm256_add_epi16(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64::<1>(lanes));
    _mm_add_epi16(_mm256_castsi256_si128(two), _mm256_extracti128_si256::<1>(two))
}

/// # Safety
/// `block.codes` must have the length of `tables`, a multiple of 32 bytes; addends and factors 64 bytes each; the
/// processor must have AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn scan_block(
    block: &Block<'_>,
    tables: &[u8],
    estimate: &Estimate,
    bound: f32,
    out: &mut [f32; BLOCK],
) -> u32 {
    // [0]: vectors 0…15, [1]: vectors 16…31.
    let mut even = [_mm512_setzero_si512(); 2];
    let mut odd = [_mm512_setzero_si512(); 2];
    let (codes, entries) = (block.codes.as_ptr(), tables.as_ptr());
    let whole = tables.len() / 64 * 64;
    for at in (0..whole).step_by(64) {
        // SAFETY: at + 64 is at most the length of each.
        let (code, table) = unsafe {
            (
                _mm512_loadu_si512(codes.add(at).cast()),
                _mm512_loadu_si512(entries.add(at).cast()),
            )
        };
        add_entries(&mut even, &mut odd, code, table);
    }
    if whole < tables.len() {
        // SAFETY: whole + 32 is the length of each. The upper half looks up zeros.
        let (code, table) = unsafe {
            (
                _mm512_zextsi256_si512(_mm256_loadu_si256(codes.add(whole).cast())),
                _mm512_zextsi256_si512(_mm256_loadu_si256(entries.add(whole).cast())),
            )
        };
        add_entries(&mut even, &mut odd, code, table);
    }
    let unit = _mm512_set1_ps(estimate.unit);
    let zero = _mm512_set1_ps(estimate.zero);
    let base = _mm512_set1_ps(estimate.base);
    let lambda = _mm512_set1_ps(estimate.lambda);
    let bound = _mm512_set1_ps(bound);
    let mut below = 0u32;
    for half in 0..2 {
        let odd = fold(odd[half]);
        let even = _mm_sub_epi16(fold(even[half]), _mm_slli_epi16::<8>(odd));
        let sums = _mm256_set_m128i(_mm_unpackhi_epi16(even, odd), _mm_unpacklo_epi16(even, odd));
        let sums = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(sums));
        // SAFETY: 32 · half + 32 is at most 64, 16 · half + 16 at most 32.
        unsafe {
            let addends = widen(block.addends.as_ptr().add(32 * half));
            let factors = widen(block.factors.as_ptr().add(32 * half));
            let inner = _mm512_fmadd_ps(unit, sums, zero);
            let start = _mm512_fmadd_ps(lambda, addends, base);
            let estimates = _mm512_fmadd_ps(factors, inner, start);
            _mm512_storeu_ps(out.as_mut_ptr().add(16 * half), estimates);
            below |= u32::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(estimates, bound)) << (16 * half);
        }
    }
    below
}

/// Sixteen bfloat16 as `f32`.
///
/// # Safety
/// `from` must be good for 32 bytes, and the processor must have AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn widen(from: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    let bits = unsafe { _mm256_loadu_si256(from.cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
}

/// # Safety
/// `rows` must be good for `n` elements, a multiple of 64, for each of `out`, `query` for `n` and the processor
/// must have these instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn dot_rows(rows: *const i8, query: *const i16, n: usize, out: &mut [i32]) {
    for (row, out) in out.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *out = unsafe { dot_bytes(rows.add(row * n), query, n) };
    }
}

/// # Safety
/// `rows` must be good for `count · n` elements, `queries` for as many times `n` as `out` has times `count`; `n` a
/// multiple of 64; the processor must have these instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn dot_all(rows: *const i8, count: usize, queries: *const i16, n: usize, out: &mut [i32]) {
    for (query, out) in out.chunks_mut(count.max(1)).enumerate() {
        // SAFETY: the caller's promise.
        unsafe { dot_rows(rows, queries.add(query * n), n, out) }
    }
}

/// # Safety
/// Both pointers must be good for `n` elements, a multiple of 64; the processor must have AVX-512 F and BW.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn dot_bytes(code: *const i8, query: *const i16, n: usize) -> i32 {
    let mut sums = [_mm512_setzero_si512(); 2];
    for at in (0..n).step_by(64) {
        for (part, sum) in sums.iter_mut().enumerate() {
            // SAFETY: at + 64 is at most n.
            let (c, q) = unsafe {
                (
                    _mm512_cvtepi8_epi16(_mm256_loadu_si256(code.add(at + 32 * part).cast())),
                    _mm512_loadu_si512(query.add(at + 32 * part).cast()),
                )
            };
            *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(c, q));
        }
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
}

/// # Safety
/// `query` must be good for `n` elements, a multiple of 64, `planes` for `n / 64 · 48` bytes; the processor must have
/// AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn dot_six_bit(planes: *const u8, query: *const i16, n: usize) -> i32 {
    let low = _mm512_set1_epi8(0x0f);
    let high = _mm512_set1_epi8(0x30);
    // Left by 4, left by 2, not at all, right by 2: a byte's two bits to places 4 and 5. What comes from
    // other bytes lies outside them.
    let turns = _mm512_set_epi32(30, 30, 30, 30, 0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4);
    let mut sums = [_mm512_setzero_si512(); 2];
    for chunk in 0..n / 64 {
        // SAFETY: chunk · 48 + 48 is at most the length of `planes`, chunk · 64 + 64 at most n.
        unsafe {
            let nibbles = _mm256_loadu_si256(planes.add(48 * chunk).cast());
            let twos = _mm_loadu_si128(planes.add(48 * chunk + 32).cast());
            let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(nibbles), _mm256_srli_epi16::<4>(nibbles));
            let twos = _mm512_rolv_epi32(_mm512_broadcast_i32x4(twos), turns);
            let code = _mm512_or_si512(_mm512_and_si512(both, low), _mm512_and_si512(twos, high));
            for (part, code) in [_mm512_castsi512_si256(code), _mm512_extracti64x4_epi64::<1>(code)]
                .into_iter()
                .enumerate()
            {
                let q = _mm512_loadu_si512(query.add(64 * chunk + 32 * part).cast());
                sums[part] = _mm512_add_epi32(sums[part], _mm512_madd_epi16(_mm512_cvtepu8_epi16(code), q));
            }
        }
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
}
