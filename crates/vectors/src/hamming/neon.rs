//! NEON: one code to a register.
use std::arch::aarch64::*;

use super::Code;

pub(super) fn available() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
}

/// # Safety
/// `out` must be as long as `codes`; the processor must have NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn distances(one: &Code, codes: &[Code], out: &mut [u8]) {
    // SAFETY: a code has the 16 bytes that are read, here and below.
    let one = unsafe { vld1q_u8(one.as_ptr()) };
    for (code, out) in codes.iter().zip(out) {
        let other = unsafe { vld1q_u8(code.as_ptr()) };
        // At most 128: it fits.
        *out = vaddvq_u8(vcntq_u8(veorq_u8(one, other)));
    }
}
