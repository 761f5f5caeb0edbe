//! The loops over elements, one set per instruction set, chosen once per process.
//!
//! The scalar set is the oracle: it accumulates in `f64` and rounds once. The others accumulate `f32` in lanes; of a
//! sum over `n` terms they are within `2⁻²⁴ · (n/8 + 16) · Σ|term| + n · 2⁻¹⁴⁹` of the exact value (recursive summation
//! of at most `n/8` partial terms per lane, Higham 2002, section 4.2), and infinite or NaN where `f32` overflows on the
//! way, as pgvector's are. `norm` accumulates in `f64` everywhere.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use half::f16;

use crate::Element;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

/// A loop over two vectors that sums one term per pair of elements.
type Reduction<E> = unsafe fn(*const E, *const E, usize) -> f32;

/// The three sums that cosine similarity is made of, taken in one pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CosineParts {
    /// Σ a·b
    pub dot: f32,
    /// Σ a²
    pub left: f32,
    /// Σ b²
    pub right: f32,
}

/// The loops for one element type on one instruction set.
pub struct Kernels<E> {
    name: &'static str,
    l2_squared: Reduction<E>,
    inner_product: Reduction<E>,
    l1: Reduction<E>,
    cosine: unsafe fn(*const E, *const E, usize) -> CosineParts,
    norm_squared: unsafe fn(*const E, usize) -> f64,
}

impl<E: Element> Kernels<E> {
    /// The instruction set: `avx512`, `avx2`, `neon` or `scalar`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Σ (a − b)². Elements that only one of the slices has are left out, here and below.
    #[inline(always)]
    pub fn l2_squared(&self, a: &[E], b: &[E]) -> f32 {
        // SAFETY: both pointers are good for the shorter length, and these kernels were offered only because the
        // processor has their instructions. The same holds below.
        unsafe { (self.l2_squared)(a.as_ptr(), b.as_ptr(), a.len().min(b.len())) }
    }

    /// Σ a·b
    #[inline(always)]
    pub fn inner_product(&self, a: &[E], b: &[E]) -> f32 {
        // SAFETY: see l2_squared.
        unsafe { (self.inner_product)(a.as_ptr(), b.as_ptr(), a.len().min(b.len())) }
    }

    /// Σ |a − b|
    #[inline(always)]
    pub fn l1(&self, a: &[E], b: &[E]) -> f32 {
        // SAFETY: see l2_squared.
        unsafe { (self.l1)(a.as_ptr(), b.as_ptr(), a.len().min(b.len())) }
    }

    /// Σ a·b, Σ a² and Σ b²
    #[inline(always)]
    pub fn cosine(&self, a: &[E], b: &[E]) -> CosineParts {
        // SAFETY: see l2_squared.
        unsafe { (self.cosine)(a.as_ptr(), b.as_ptr(), a.len().min(b.len())) }
    }

    /// Σ a², accumulated in `f64`
    #[inline(always)]
    pub fn norm_squared(&self, a: &[E]) -> f64 {
        // SAFETY: see l2_squared.
        unsafe { (self.norm_squared)(a.as_ptr(), a.len()) }
    }
}

/// Which sum a reduction takes; a constant parameter, so that each kernel is one loop without a branch in it.
mod term {
    pub const L2_SQUARED: u8 = 0;
    pub const INNER_PRODUCT: u8 = 1;
    pub const L1: u8 = 2;
}

macro_rules! kernels {
    ($name:literal, $module:ident, $element:ty) => {
        Kernels::<$element> {
            name: $name,
            l2_squared: $module::sum::<$element, { term::L2_SQUARED }>,
            inner_product: $module::sum::<$element, { term::INNER_PRODUCT }>,
            l1: $module::sum::<$element, { term::L1 }>,
            cosine: $module::cosine::<$element>,
            norm_squared: $module::norm_squared::<$element>,
        }
    };
}

macro_rules! dispatch {
    ($element:ty, $chosen:ident, $available:ident) => {
        /// Every set of kernels for this element that the processor can run, fastest first; the last is the oracle.
        pub fn $available() -> Vec<&'static Kernels<$element>> {
            static SCALAR: Kernels<$element> = kernels!("scalar", scalar, $element);
            #[cfg(target_arch = "x86_64")]
            static AVX2: Kernels<$element> = kernels!("avx2", avx2, $element);
            #[cfg(target_arch = "x86_64")]
            static AVX512: Kernels<$element> = kernels!("avx512", avx512, $element);
            #[cfg(target_arch = "aarch64")]
            static NEON: Kernels<$element> = kernels!("neon", neon, $element);

            let mut available = Vec::new();
            #[cfg(target_arch = "x86_64")]
            {
                if avx512::available() {
                    available.push(&AVX512);
                }
                if avx2::available() {
                    available.push(&AVX2);
                }
            }
            #[cfg(target_arch = "aarch64")]
            if neon::available() {
                available.push(&NEON);
            }
            available.push(&SCALAR);
            available
        }

        #[inline(always)]
        pub(crate) fn $chosen() -> &'static Kernels<$element> {
            static CHOSEN: OnceLock<&'static Kernels<$element>> = OnceLock::new();
            CHOSEN.get_or_init(|| $available()[0])
        }
    };
}
dispatch!(f32, f32_kernels, available_f32);
dispatch!(f16, f16_kernels, available_f16);

#[cfg(test)]
mod tests;
