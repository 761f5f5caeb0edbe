//! AVX-512 with VPOPCNTDQ: four codes to a register, eight a step.
use std::arch::x86_64::*;

use super::{Code, scalar};

pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vpopcntdq")
}

/// # Safety
/// `out` must be as long as `codes`; the processor must have AVX-512 F and VPOPCNTDQ.
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
pub(super) unsafe fn distances(one: &Code, codes: &[Code], out: &mut [u8]) {
    // SAFETY: a code has the 16 bytes that are read.
    let one_often = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(one.as_ptr().cast()) });
    // 64-bit lanes come out as codes 0, 4, 1, 5, 2, 6, 3, 7.
    let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    let whole = codes.len() / 8 * 8;
    for at in (0..whole).step_by(8) {
        // SAFETY: eight codes of 16 bytes follow, and eight bytes of `out`.
        unsafe {
            let from = codes.as_ptr().add(at);
            let four =
                |n: usize| _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(from.add(4 * n).cast()), one_often));
            let (first, second) = (four(0), four(1));
            let sums = _mm512_add_epi64(
                _mm512_unpacklo_epi64(first, second),
                _mm512_unpackhi_epi64(first, second),
            );
            let bytes = _mm512_cvtepi64_epi8(_mm512_permutexvar_epi64(order, sums));
            _mm_storel_epi64(out.as_mut_ptr().add(at).cast(), bytes);
        }
    }
    // SAFETY: nothing is asked of the caller.
    unsafe { scalar::distances(one, &codes[whole..], &mut out[whole..]) }
}
