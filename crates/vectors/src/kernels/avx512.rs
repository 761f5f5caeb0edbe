//! AVX-512 (F, BW, VL): four accumulators of sixteen lanes, the tail under a mask.
use std::arch::x86_64::*;

use half::f16;

use super::{CosineParts, term};
use crate::Element;

const LANES: usize = 16;

pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl")
}

/// An element that sixteen lanes of `f32` can be loaded from.
pub(super) trait Load: Element {
    /// # Safety
    /// `from` must point to sixteen elements, and the processor must have AVX-512 F.
    unsafe fn load(from: *const Self) -> __m512;
    /// Loads the elements that `mask` names; the other lanes are zero and their memory is not touched.
    ///
    /// # Safety
    /// `from` must point to the elements that `mask` names, and the processor must have AVX-512 F, BW and VL.
    unsafe fn load_masked(from: *const Self, mask: __mmask16) -> __m512;
}

impl Load for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load(from: *const Self) -> __m512 {
        // SAFETY: the caller's promise; the load needs no alignment.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load_masked(from: *const Self, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's promise; masked lanes are not read.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
}

impl Load for f16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load(from: *const Self) -> __m512 {
        // SAFETY: the caller's promise; the load needs no alignment, and an f16 is its IEEE bits.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load_masked(from: *const Self, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's promise; masked lanes are not read.
        _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(mask, from.cast()) })
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn add_term<const TERM: u8>(sum: __m512, x: __m512, y: __m512) -> __m512 {
    match TERM {
        term::L2_SQUARED => {
            let difference = _mm512_sub_ps(x, y);
            _mm512_fmadd_ps(difference, difference, sum)
        }
        term::INNER_PRODUCT => _mm512_fmadd_ps(x, y, sum),
        _ => _mm512_add_ps(sum, _mm512_abs_ps(_mm512_sub_ps(x, y))),
    }
}

/// The lanes that `left` elements fill.
#[inline(always)]
fn mask(left: usize) -> __mmask16 {
    if left >= LANES { !0 } else { (1u16 << left) - 1 }
}

/// # Safety
/// `a` and `b` must point to `n` elements each, and the processor must have AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn sum<E: Load, const TERM: u8>(a: *const E, b: *const E, n: usize) -> f32 {
    let mut sums = [_mm512_setzero_ps(); 4];
    let mut i = 0;
    // SAFETY: every load starts at i and ends at most at n, by its bounds or by its mask.
    unsafe {
        while i + 4 * LANES <= n {
            for (j, sum) in sums.iter_mut().enumerate() {
                let at = i + j * LANES;
                *sum = add_term::<TERM>(*sum, E::load(a.add(at)), E::load(b.add(at)));
            }
            i += 4 * LANES;
        }
        while i < n {
            let lanes = mask(n - i);
            sums[0] = add_term::<TERM>(
                sums[0],
                E::load_masked(a.add(i), lanes),
                E::load_masked(b.add(i), lanes),
            );
            i += LANES;
        }
    }
    _mm512_reduce_add_ps(_mm512_add_ps(
        _mm512_add_ps(sums[0], sums[1]),
        _mm512_add_ps(sums[2], sums[3]),
    ))
}

/// # Safety
/// `a` and `b` must point to `n` elements each, and the processor must have AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn cosine<E: Load>(a: *const E, b: *const E, n: usize) -> CosineParts {
    let mut dot = [_mm512_setzero_ps(); 2];
    let mut left = [_mm512_setzero_ps(); 2];
    let mut right = [_mm512_setzero_ps(); 2];
    let mut i = 0;
    // SAFETY: every load starts at i and ends at most at n, by its bounds or by its mask.
    unsafe {
        while i + 2 * LANES <= n {
            for j in 0..2 {
                let (x, y) = (E::load(a.add(i + j * LANES)), E::load(b.add(i + j * LANES)));
                dot[j] = _mm512_fmadd_ps(x, y, dot[j]);
                left[j] = _mm512_fmadd_ps(x, x, left[j]);
                right[j] = _mm512_fmadd_ps(y, y, right[j]);
            }
            i += 2 * LANES;
        }
        while i < n {
            let lanes = mask(n - i);
            let (x, y) = (E::load_masked(a.add(i), lanes), E::load_masked(b.add(i), lanes));
            dot[0] = _mm512_fmadd_ps(x, y, dot[0]);
            left[0] = _mm512_fmadd_ps(x, x, left[0]);
            right[0] = _mm512_fmadd_ps(y, y, right[0]);
            i += LANES;
        }
    }
    CosineParts {
        dot: _mm512_reduce_add_ps(_mm512_add_ps(dot[0], dot[1])),
        left: _mm512_reduce_add_ps(_mm512_add_ps(left[0], left[1])),
        right: _mm512_reduce_add_ps(_mm512_add_ps(right[0], right[1])),
    }
}

/// # Safety
/// `a` must point to `n` elements, and the processor must have AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn norm_squared<E: Load>(a: *const E, n: usize) -> f64 {
    let mut low = _mm512_setzero_pd();
    let mut high = _mm512_setzero_pd();
    let mut i = 0;
    while i < n {
        // SAFETY: the mask ends the load at n.
        let x = unsafe { E::load_masked(a.add(i), mask(n - i)) };
        let first = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
        let second = _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x))));
        low = _mm512_fmadd_pd(first, first, low);
        high = _mm512_fmadd_pd(second, second, high);
        i += LANES;
    }
    _mm512_reduce_add_pd(_mm512_add_pd(low, high))
}
