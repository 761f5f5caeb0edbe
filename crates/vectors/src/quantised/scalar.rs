//! The oracle: one element at a time.
use super::{BLOCK, Block, Estimate, from_bf16, place};

/// # Safety
/// None is needed; `unsafe` only to be of one type with the others.
pub(super) unsafe fn scan_block(
    block: &Block<'_>,
    tables: &[u8],
    estimate: &Estimate,
    bound: f32,
    out: &mut [f32; BLOCK],
) -> u32 {
    let mut sums = [0u16; BLOCK];
    for (m, table) in tables.chunks_exact(16).enumerate() {
        for (slot, sum) in sums.iter_mut().enumerate() {
            let (byte, shift) = place(m, slot);
            *sum += u16::from(table[usize::from(block.codes[byte] >> shift & 15)]);
        }
    }
    let half = |bytes: &[u8], slot: usize| from_bf16(u16::from_le_bytes([bytes[2 * slot], bytes[2 * slot + 1]]));
    let mut below = 0;
    for (slot, sum) in sums.into_iter().enumerate() {
        let inner = estimate.unit.mul_add(f32::from(sum), estimate.zero);
        let start = estimate.lambda.mul_add(half(block.addends, slot), estimate.base);
        out[slot] = half(block.factors, slot).mul_add(inner, start);
        below |= u32::from(out[slot] < bound) << slot;
    }
    below
}

/// # Safety
/// `rows` must be good for `n` elements, a multiple of 64, for each of `out`, `query` for `n`.
pub(super) unsafe fn dot_rows(rows: *const i8, query: *const i16, n: usize, out: &mut [i32]) {
    for (row, out) in out.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *out = unsafe { dot_bytes(rows.add(row * n), query, n) };
    }
}

/// # Safety
/// `rows` must be good for `count · n` elements, `queries` for as many times `n` as `out` has times `count`; `n` a
/// multiple of 64; the processor must have these instructions.
pub(super) unsafe fn dot_all(rows: *const i8, count: usize, queries: *const i16, n: usize, out: &mut [i32]) {
    for (query, out) in out.chunks_mut(count.max(1)).enumerate() {
        // SAFETY: the caller's promise.
        unsafe { dot_rows(rows, queries.add(query * n), n, out) }
    }
}

/// # Safety
/// Both pointers must be good for `n` elements.
#[inline]
pub(super) unsafe fn dot_bytes(code: *const i8, query: *const i16, n: usize) -> i32 {
    // SAFETY: the caller's promise.
    let (code, query) = unsafe {
        (
            std::slice::from_raw_parts(code, n),
            std::slice::from_raw_parts(query, n),
        )
    };
    code.iter()
        .zip(query)
        .map(|(&c, &q)| i32::from(c).wrapping_mul(i32::from(q)))
        .fold(0, i32::wrapping_add)
}

/// # Safety
/// `query` must be good for `n` elements, a multiple of 64, and `planes` for `n / 64 · 48` bytes.
pub(super) unsafe fn dot_six_bit(planes: *const u8, query: *const i16, n: usize) -> i32 {
    // SAFETY: the caller's promise.
    let (planes, query) = unsafe {
        (
            std::slice::from_raw_parts(planes, n / 64 * 48),
            std::slice::from_raw_parts(query, n),
        )
    };
    let mut six = [0u8; 64];
    let mut sum = 0i32;
    for (chunk, q) in planes.chunks_exact(48).zip(query.chunks_exact(64)) {
        super::get_six_bit(chunk, &mut six);
        for (c, q) in six.iter().zip(q) {
            sum = sum.wrapping_add(i32::from(*c).wrapping_mul(i32::from(*q)));
        }
    }
    sum
}
