//! NEON (ARMv8-A): sixteen nibbles at a time.
//!
//! Tested under `qemu-aarch64`; never timed, for want of such a processor.
use std::arch::aarch64::*;

use super::{BLOCK, Block, Estimate};

/// The factors are read as little endian, as they are stored.
pub(super) fn available() -> bool {
    cfg!(target_endian = "little") && std::arch::is_aarch64_feature_detected!("neon")
}

/// # Safety
/// `block.codes` must have the length of `tables`, a multiple of 32 bytes; addends and factors 64 bytes each; the
/// processor must have NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn scan_block(
    block: &Block<'_>,
    tables: &[u8],
    estimate: &Estimate,
    bound: f32,
    out: &mut [f32; BLOCK],
) -> u32 {
    let low = vdupq_n_u8(0x0f);
    // Eight vectors each; nibbles at even and at odd places apart, so that additions need not wait for each other.
    let mut sums = [[vdupq_n_u16(0); 4]; 2];
    let codes = block.codes.as_ptr();
    for pair in 0..tables.len() / 32 {
        for (parity, sums) in sums.iter_mut().enumerate() {
            let at = 32 * pair + 16 * parity;
            // SAFETY: at + 16 is at most the length of each.
            let (code, table) = unsafe { (vld1q_u8(codes.add(at)), vld1q_u8(tables.as_ptr().add(at))) };
            let first = vqtbl1q_u8(table, vandq_u8(code, low));
            let second = vqtbl1q_u8(table, vshrq_n_u8::<4>(code));
            sums[0] = vaddw_u8(sums[0], vget_low_u8(first));
            sums[1] = vaddw_high_u8(sums[1], first);
            sums[2] = vaddw_u8(sums[2], vget_low_u8(second));
            sums[3] = vaddw_high_u8(sums[3], second);
        }
    }
    let unit = vdupq_n_f32(estimate.unit);
    let zero = vdupq_n_f32(estimate.zero);
    let base = vdupq_n_f32(estimate.base);
    let lambda = vdupq_n_f32(estimate.lambda);
    let bound = vdupq_n_f32(bound);
    let places = vcombine_u32(vcreate_u32(1 | 2 << 32), vcreate_u32(4 | 8 << 32));
    let mut below = vdupq_n_u32(0);
    for quarter in 0..4 {
        let sums = vaddq_u16(sums[0][quarter], sums[1][quarter]);
        // SAFETY: 16 · quarter + 16 is at most 64.
        let (addends, factors) = unsafe {
            (
                vreinterpretq_u16_u8(vld1q_u8(block.addends.as_ptr().add(16 * quarter))),
                vreinterpretq_u16_u8(vld1q_u8(block.factors.as_ptr().add(16 * quarter))),
            )
        };
        for (half, (sums, (addends, factors))) in [
            (vget_low_u16(sums), (vget_low_u16(addends), vget_low_u16(factors))),
            (vget_high_u16(sums), (vget_high_u16(addends), vget_high_u16(factors))),
        ]
        .into_iter()
        .enumerate()
        {
            let at = 8 * quarter + 4 * half;
            let inner = vfmaq_f32(zero, unit, vcvtq_f32_u32(vmovl_u16(sums)));
            let start = vfmaq_f32(base, lambda, widen(addends));
            let estimates = vfmaq_f32(start, widen(factors), inner);
            // SAFETY: at + 4 is at most 32.
            unsafe { vst1q_f32(out.as_mut_ptr().add(at), estimates) };
            let places = vshlq_u32(places, vdupq_n_s32(at as i32));
            below = vorrq_u32(below, vandq_u32(vcltq_f32(estimates, bound), places));
        }
    }
    vaddvq_u32(below)
}

/// Four bfloat16 as `f32`.
#[inline]
#[target_feature(enable = "neon")]
fn widen(bits: uint16x4_t) -> float32x4_t {
    vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(bits)))
}

/// Adds the sixteen products of two times eight codes with a query.
///
/// # Safety
/// `query` must be good for sixteen elements, and the processor must have NEON.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_products(sums: &mut [int32x4_t; 4], code: [int16x8_t; 2], query: *const i16) {
    for (half, code) in code.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        let q = unsafe { vld1q_s16(query.add(8 * half)) };
        sums[2 * half] = vmlal_s16(sums[2 * half], vget_low_s16(code), vget_low_s16(q));
        sums[2 * half + 1] = vmlal_high_s16(sums[2 * half + 1], code, q);
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn across(sums: [int32x4_t; 4]) -> i32 {
    vaddvq_s32(vaddq_s32(vaddq_s32(sums[0], sums[1]), vaddq_s32(sums[2], sums[3])))
}

/// # Safety
/// `rows` must be good for `n` elements, a multiple of 64, for each of `out`, `query` for `n` and the processor
/// must have these instructions.
#[target_feature(enable = "neon")]
pub(super) unsafe fn dot_rows(rows: *const i8, query: *const i16, n: usize, out: &mut [i32]) {
    for (row, out) in out.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *out = unsafe { dot_bytes(rows.add(row * n), query, n) };
    }
}

/// # Safety
/// `rows` must be good for `count · n` elements, `queries` for as many times `n` as `out` has times `count`; `n` a
/// multiple of 64; the processor must have these instructions.
#[target_feature(enable = "neon")]
pub(super) unsafe fn dot_all(rows: *const i8, count: usize, queries: *const i16, n: usize, out: &mut [i32]) {
    for (query, out) in out.chunks_mut(count.max(1)).enumerate() {
        // SAFETY: the caller's promise.
        unsafe { dot_rows(rows, queries.add(query * n), n, out) }
    }
}

/// # Safety
/// Both pointers must be good for `n` elements, a multiple of 64; the processor must have NEON.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn dot_bytes(code: *const i8, query: *const i16, n: usize) -> i32 {
    let mut sums = [vdupq_n_s32(0); 4];
    for at in (0..n).step_by(16) {
        // SAFETY: at + 16 is at most n.
        unsafe {
            let code = vld1q_s8(code.add(at));
            let code = [vmovl_s8(vget_low_s8(code)), vmovl_high_s8(code)];
            add_products(&mut sums, code, query.add(at));
        }
    }
    across(sums)
}

/// # Safety
/// `query` must be good for `n` elements, a multiple of 64, `planes` for `n / 64 · 48` bytes; the
/// processor must have NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn dot_six_bit(planes: *const u8, query: *const i16, n: usize) -> i32 {
    let low = vdupq_n_u8(0x0f);
    let high = vdupq_n_u8(0x30);
    let mut sums = [vdupq_n_s32(0); 4];
    for chunk in 0..n / 64 {
        // SAFETY: chunk · 48 + 48 is at most the length of `planes`, chunk · 64 + 64 at most n.
        unsafe {
            let planes = planes.add(48 * chunk);
            let (first, second) = (vld1q_u8(planes), vld1q_u8(planes.add(16)));
            let twos = vld1q_u8(planes.add(32));
            for (part, (nibbles, twos)) in [
                (vandq_u8(first, low), vshlq_n_u8::<4>(twos)),
                (vandq_u8(second, low), vshlq_n_u8::<2>(twos)),
                (vshrq_n_u8::<4>(first), twos),
                (vshrq_n_u8::<4>(second), vshrq_n_u8::<2>(twos)),
            ]
            .into_iter()
            .enumerate()
            {
                let code = vorrq_u8(nibbles, vandq_u8(twos, high));
                let code = [
                    vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(code))),
                    vreinterpretq_s16_u16(vmovl_high_u8(code)),
                ];
                add_products(&mut sums, code, query.add(64 * chunk + 16 * part));
            }
        }
    }
    across(sums)
}
