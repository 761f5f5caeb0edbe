//! The two element types.
use half::f16;

use crate::kernels::Kernels;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
}

/// A number that vectors are made of: `f32` or [`f16`].
pub trait Element: Copy + PartialOrd + PartialEq + std::fmt::Debug + Send + Sync + 'static + sealed::Sealed {
    /// The SQL name of a vector of these.
    const TYPE_NAME: &'static str;
    /// Zero.
    const ZERO: Self;
    /// The number as `f32`, exactly.
    fn to_f32(self) -> f32;
    /// The nearest element, ties to even; infinite when `value` is too large.
    fn nearest(value: f32) -> Self;
    /// Whether this is neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// Appends the bytes in network order.
    fn put(self, bytes: &mut Vec<u8>);
    /// Reads an element in network order from exactly `size_of::<Self>()` bytes.
    fn get(bytes: &[u8]) -> Self;
    /// The fastest kernels of this machine, chosen once per process.
    fn kernels() -> &'static Kernels<Self>;
}

impl Element for f32 {
    const TYPE_NAME: &'static str = "vector";
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn nearest(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }

    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_be_bytes());
    }

    #[inline(always)]
    fn get(bytes: &[u8]) -> Self {
        f32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    #[inline(always)]
    fn kernels() -> &'static Kernels<Self> {
        crate::kernels::f32_kernels()
    }
}

impl Element for f16 {
    const TYPE_NAME: &'static str = "halfvec";
    const ZERO: Self = f16::ZERO;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }

    #[inline(always)]
    fn nearest(value: f32) -> Self {
        f16::from_f32(value)
    }

    #[inline(always)]
    fn is_finite(self) -> bool {
        f16::is_finite(self)
    }

    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_be_bytes());
    }

    #[inline(always)]
    fn get(bytes: &[u8]) -> Self {
        f16::from_be_bytes([bytes[0], bytes[1]])
    }

    #[inline(always)]
    fn kernels() -> &'static Kernels<Self> {
        crate::kernels::f16_kernels()
    }
}
