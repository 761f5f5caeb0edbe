//! NEON (ARMv8-A): four accumulators of four lanes.
use std::arch::aarch64::*;

use half::f16;

use super::{CosineParts, term};
use crate::Element;

const LANES: usize = 4;

pub(super) fn available() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
}

/// An element that four lanes of `f32` can be loaded from.
pub(super) trait Load: Element {
    /// # Safety
    /// `from` must point to four elements, and the processor must have NEON.
    unsafe fn load(from: *const Self) -> float32x4_t;
}

impl Load for f32 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const Self) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vld1q_f32(from) }
    }
}

impl Load for f16 {
    /// Widens by integer shifts: the exponent and mantissa moved into place read as `value · 2⁻¹¹²`, exact for normal
    /// and denormal numbers, so that one multiplication finishes. Needs no half-precision extension.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const Self) -> float32x4_t {
        // SAFETY: the caller's promise; an f16 is its IEEE bits.
        let bits = vmovl_u16(unsafe { vld1_u16(from.cast()) });
        let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
        let magnitude = vshlq_n_u32::<13>(vandq_u32(bits, vdupq_n_u32(0x7fff)));
        let two_to_112 = vdupq_n_f32(f32::from_bits((127 + 112) << 23));
        let value = vmulq_f32(vreinterpretq_f32_u32(magnitude), two_to_112);
        vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(value), sign))
    }
}

/// Loads `n` < 4 elements, zeros behind them.
///
/// # Safety
/// `from` must point to `n` elements, and the processor must have NEON.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load_tail<E: Load>(from: *const E, n: usize) -> float32x4_t {
    let mut padded = [E::ZERO; LANES];
    // SAFETY: n is less than the four elements of `padded`, and `from` has n.
    unsafe {
        std::ptr::copy_nonoverlapping(from, padded.as_mut_ptr(), n);
        E::load(padded.as_ptr())
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn add_term<const TERM: u8>(sum: float32x4_t, x: float32x4_t, y: float32x4_t) -> float32x4_t {
    match TERM {
        term::L2_SQUARED => {
            let difference = vsubq_f32(x, y);
            vfmaq_f32(sum, difference, difference)
        }
        term::INNER_PRODUCT => vfmaq_f32(sum, x, y),
        _ => vaddq_f32(sum, vabdq_f32(x, y)),
    }
}

/// # Safety
/// `a` and `b` must point to `n` elements each, and the processor must have NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn sum<E: Load, const TERM: u8>(a: *const E, b: *const E, n: usize) -> f32 {
    let mut sums = [vdupq_n_f32(0.0); 4];
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
    vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3])))
}

/// # Safety
/// `a` and `b` must point to `n` elements each, and the processor must have NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn cosine<E: Load>(a: *const E, b: *const E, n: usize) -> CosineParts {
    let mut dot = [vdupq_n_f32(0.0); 2];
    let mut left = [vdupq_n_f32(0.0); 2];
    let mut right = [vdupq_n_f32(0.0); 2];
    let mut i = 0;
    // SAFETY: every load starts at i and ends at most at n.
    unsafe {
        while i + 2 * LANES <= n {
            for j in 0..2 {
                let (x, y) = (E::load(a.add(i + j * LANES)), E::load(b.add(i + j * LANES)));
                dot[j] = vfmaq_f32(dot[j], x, y);
                left[j] = vfmaq_f32(left[j], x, x);
                right[j] = vfmaq_f32(right[j], y, y);
            }
            i += 2 * LANES;
        }
        while i < n {
            let (x, y) = if n - i >= LANES {
                (E::load(a.add(i)), E::load(b.add(i)))
            } else {
                (load_tail(a.add(i), n - i), load_tail(b.add(i), n - i))
            };
            dot[0] = vfmaq_f32(dot[0], x, y);
            left[0] = vfmaq_f32(left[0], x, x);
            right[0] = vfmaq_f32(right[0], y, y);
            i += LANES;
        }
    }
    CosineParts {
        dot: vaddvq_f32(vaddq_f32(dot[0], dot[1])),
        left: vaddvq_f32(vaddq_f32(left[0], left[1])),
        right: vaddvq_f32(vaddq_f32(right[0], right[1])),
    }
}

/// # Safety
/// `a` must point to `n` elements, and the processor must have NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn norm_squared<E: Load>(a: *const E, n: usize) -> f64 {
    let mut low = vdupq_n_f64(0.0);
    let mut high = vdupq_n_f64(0.0);
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
        let (first, second) = (vcvt_f64_f32(vget_low_f32(x)), vcvt_high_f64_f32(x));
        low = vfmaq_f64(low, first, first);
        high = vfmaq_f64(high, second, second);
        i += LANES;
    }
    vaddvq_f64(vaddq_f64(low, high))
}
