//! AVX2 with FMA and F16C: four accumulators of eight lanes.
use std::arch::x86_64::*;

use half::f16;

use super::{CosineParts, term};
use crate::Element;

const LANES: usize = 8;

pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// An element that eight lanes of `f32` can be loaded from.
pub(super) trait Load: Element {
    /// # Safety
    /// `from` must point to eight elements, and the processor must have AVX2 and F16C.
    unsafe fn load(from: *const Self) -> __m256;
}

impl Load for f32 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(from: *const Self) -> __m256 {
        // SAFETY: the caller's promise; the load needs no alignment.
        unsafe { _mm256_loadu_ps(from) }
    }
}

impl Load for f16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(from: *const Self) -> __m256 {
        // SAFETY: the caller's promise; the load needs no alignment, and an f16 is its IEEE bits.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(from.cast()) })
    }
}

/// Loads `n` < 8 elements, zeros behind them.
///
/// # Safety
/// `from` must point to `n` elements, and the processor must have AVX2 and F16C.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load_tail<E: Load>(from: *const E, n: usize) -> __m256 {
    let mut padded = [E::ZERO; LANES];
    // SAFETY: n is less than the eight elements of `padded`, and `from` has n.
    unsafe {
        std::ptr::copy_nonoverlapping(from, padded.as_mut_ptr(), n);
        E::load(padded.as_ptr())
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_term<const TERM: u8>(sum: __m256, x: __m256, y: __m256) -> __m256 {
    match TERM {
        term::L2_SQUARED => {
            let difference = _mm256_sub_ps(x, y);
            _mm256_fmadd_ps(difference, difference, sum)
        }
        term::INNER_PRODUCT => _mm256_fmadd_ps(x, y, sum),
        _ => _mm256_add_ps(sum, _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_sub_ps(x, y))),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn across(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// # Safety
/// `a` and `b` must point to `n` elements each, and the processor must have AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn sum<E: Load, const TERM: u8>(a: *const E, b: *const E, n: usize) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    let mut i = 0;
    // SAFETY: every load starts at i and ends at most at n.
    unsafe {
        while i + 4 * LANES <= n {
            for (j, sum) in sums.iter_mut().enumerate() {
                let at = i + j * LANES;
                *sum = add_term::<TERM>(*sum, E::load(a.add(at)), E::load(b.add(at)));
            }
            i += 4 * LANES;
        }
        while i + LANES <= n {
            sums[0] = add_term::<TERM>(sums[0], E::load(a.add(i)), E::load(b.add(i)));
            i += LANES;
        }
        if i < n {
            sums[1] = add_term::<TERM>(sums[1], load_tail(a.add(i), n - i), load_tail(b.add(i), n - i));
        }
    }
    across(_mm256_add_ps(
        _mm256_add_ps(sums[0], sums[1]),
        _mm256_add_ps(sums[2], sums[3]),
    ))
}

/// # Safety
/// `a` and `b` must point to `n` elements each, and the processor must have AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn cosine<E: Load>(a: *const E, b: *const E, n: usize) -> CosineParts {
    let mut dot = [_mm256_setzero_ps(); 2];
    let mut left = [_mm256_setzero_ps(); 2];
    let mut right = [_mm256_setzero_ps(); 2];
    let mut i = 0;
    // SAFETY: every load starts at i and ends at most at n.
    unsafe {
        while i + 2 * LANES <= n {
            for j in 0..2 {
                let (x, y) = (E::load(a.add(i + j * LANES)), E::load(b.add(i + j * LANES)));
                dot[j] = _mm256_fmadd_ps(x, y, dot[j]);
                left[j] = _mm256_fmadd_ps(x, x, left[j]);
                right[j] = _mm256_fmadd_ps(y, y, right[j]);
            }
            i += 2 * LANES;
        }
        while i < n {
            let (x, y) = if n - i >= LANES {
                (E::load(a.add(i)), E::load(b.add(i)))
            } else {
                (load_tail(a.add(i), n - i), load_tail(b.add(i), n - i))
            };
            dot[0] = _mm256_fmadd_ps(x, y, dot[0]);
            left[0] = _mm256_fmadd_ps(x, x, left[0]);
            right[0] = _mm256_fmadd_ps(y, y, right[0]);
            i += LANES;
        }
    }
    CosineParts {
        dot: across(_mm256_add_ps(dot[0], dot[1])),
        left: across(_mm256_add_ps(left[0], left[1])),
        right: across(_mm256_add_ps(right[0], right[1])),
    }
}

/// # Safety
/// `a` must point to `n` elements, and the processor must have AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn norm_squared<E: Load>(a: *const E, n: usize) -> f64 {
    let mut low = _mm256_setzero_pd();
    let mut high = _mm256_setzero_pd();
    let mut i = 0;
    while i < n {
        // SAFETY: the load starts at i and ends at most at n.
        let x = unsafe {
            if n - i >= LANES {
                E::load(a.add(i))
            } else {
                load_tail(a.add(i), n - i)
            }
        };
        let (first, second) = (
            _mm256_cvtps_pd(_mm256_castps256_ps128(x)),
            _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x)),
        );
        low = _mm256_fmadd_pd(first, first, low);
        high = _mm256_fmadd_pd(second, second, high);
        i += LANES;
    }
    let four = _mm256_add_pd(low, high);
    let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
    _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
}
