//! The oracle: one element at a time, accumulated in `f64`, rounded once.
use super::{CosineParts, term};
use crate::Element;

/// # Safety
/// `a` and `b` must point to `n` elements each.
pub(super) unsafe fn sum<E: Element, const TERM: u8>(a: *const E, b: *const E, n: usize) -> f32 {
    let mut sum = 0.0f64;
    for i in 0..n {
        // SAFETY: i < n.
        let (x, y) = unsafe { (f64::from((*a.add(i)).to_f32()), f64::from((*b.add(i)).to_f32())) };
        sum += match TERM {
            term::L2_SQUARED => (x - y) * (x - y),
            term::INNER_PRODUCT => x * y,
            _ => (x - y).abs(),
        };
    }
    sum as f32
}

/// # Safety
/// `a` and `b` must point to `n` elements each.
pub(super) unsafe fn cosine<E: Element>(a: *const E, b: *const E, n: usize) -> CosineParts {
    // SAFETY: the caller's promise, handed on.
    unsafe {
        CosineParts {
            dot: sum::<E, { term::INNER_PRODUCT }>(a, b, n),
            left: sum::<E, { term::INNER_PRODUCT }>(a, a, n),
            right: sum::<E, { term::INNER_PRODUCT }>(b, b, n),
        }
    }
}

/// # Safety
/// `a` must point to `n` elements.
pub(super) unsafe fn norm_squared<E: Element>(a: *const E, n: usize) -> f64 {
    let mut sum = 0.0f64;
    for i in 0..n {
        // SAFETY: i < n.
        let x = f64::from(unsafe { (*a.add(i)).to_f32() });
        sum += x * x;
    }
    sum
}
