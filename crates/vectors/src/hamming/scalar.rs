//! The oracle: one code at a time.
use super::Code;

fn halves(code: &Code) -> [u64; 2] {
    let all = u128::from_le_bytes(*code);
    [all as u64, (all >> 64) as u64]
}

/// # Safety
/// None is needed; the type is that of the other kernels.
pub(super) unsafe fn distances(one: &Code, codes: &[Code], out: &mut [u8]) {
    let [low, high] = halves(one);
    for (code, out) in codes.iter().zip(out) {
        let [a, b] = halves(code);
        *out = ((a ^ low).count_ones() + (b ^ high).count_ones()) as u8;
    }
}
