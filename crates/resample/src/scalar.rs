//! One value at a time.

use crate::windows::{Pixel, Span, Windows, rounded};

pub(crate) fn across<const BITS: u32>(row: &[Pixel], windows: &Windows, target: &mut [Pixel]) {
    for (span, target) in windows.spans.iter().zip(target) {
        *target = one::<BITS>(row, windows, span);
    }
}

pub(crate) fn one<const BITS: u32>(row: &[Pixel], windows: &Windows, span: &Span) -> Pixel {
    let weights = &windows.weights[span.weights.clone()];
    let mut sums = [1_i32 << (BITS - 1); 3];
    for (pixel, weight) in row[span.first..span.first + weights.len()].iter().zip(weights) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            *sum = sum.wrapping_add(i32::from(*value).wrapping_mul(*weight));
        }
    }
    sums.map(rounded::<BITS>)
}

pub(crate) fn add(sums: &mut [i32], row: &[u8], weight: i32) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum += i32::from(*value) * weight;
    }
}
