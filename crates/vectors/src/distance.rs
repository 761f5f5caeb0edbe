//! Distances between vectors of equal length, on the fastest kernels of the machine.
//!
//! Sums are `f32`, as pgvector's, so that they overflow to infinity where its do; what is derived from them is `f64`.
use crate::{Element, Error};

/// √ Σ (a − b)²
#[inline]
pub fn l2_distance<E: Element>(a: &[E], b: &[E]) -> Result<f64, Error> {
    Ok(l2_squared(a, b)?.sqrt())
}

/// Σ (a − b)²
#[inline]
pub fn l2_squared<E: Element>(a: &[E], b: &[E]) -> Result<f64, Error> {
    same_dimensions(a, b)?;
    Ok(f64::from(E::kernels().l2_squared(a, b)))
}

/// Σ a·b
#[inline]
pub fn inner_product<E: Element>(a: &[E], b: &[E]) -> Result<f64, Error> {
    same_dimensions(a, b)?;
    Ok(f64::from(E::kernels().inner_product(a, b)))
}

/// −Σ a·b, so that the nearest comes first in ascending order.
#[inline]
pub fn negative_inner_product<E: Element>(a: &[E], b: &[E]) -> Result<f64, Error> {
    same_dimensions(a, b)?;
    Ok(f64::from(-E::kernels().inner_product(a, b)))
}

/// 1 − cos(a, b), from 0 to 2; NaN when either vector is zero.
#[inline]
pub fn cosine_distance<E: Element>(a: &[E], b: &[E]) -> Result<f64, Error> {
    same_dimensions(a, b)?;
    let parts = E::kernels().cosine(a, b);
    // One root of the product, not a product of two roots: rounds once, and a vector's distance to itself is 0.
    let similarity = f64::from(parts.dot) / (f64::from(parts.left) * f64::from(parts.right)).sqrt();
    // clamp keeps NaN.
    Ok(1.0 - similarity.clamp(-1.0, 1.0))
}

/// The angle between two unit vectors as a fraction of π, from 0 to 1: the metric of spherical k-means, which unlike
/// the cosine satisfies the triangle inequality.
#[inline]
pub fn spherical_distance<E: Element>(a: &[E], b: &[E]) -> Result<f64, Error> {
    Ok(inner_product(a, b)?.clamp(-1.0, 1.0).acos() / std::f64::consts::PI)
}

/// Σ |a − b|
#[inline]
pub fn l1_distance<E: Element>(a: &[E], b: &[E]) -> Result<f64, Error> {
    same_dimensions(a, b)?;
    Ok(f64::from(E::kernels().l1(a, b)))
}

/// ‖a‖ = √ Σ a², accumulated in `f64`: never overflows.
#[inline]
pub fn norm<E: Element>(a: &[E]) -> f64 {
    E::kernels().norm_squared(a).sqrt()
}

/// Refuses operands of different length.
#[inline(always)]
pub(crate) fn same_dimensions<E: Element>(a: &[E], b: &[E]) -> Result<(), Error> {
    if a.len() == b.len() {
        Ok(())
    } else {
        Err(Error::DifferentDimensions {
            type_name: E::TYPE_NAME,
            left: a.len(),
            right: b.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn lengths_that_differ_are_named() {
        let error = l2_distance(&[1f32, 2.0], &[1.0]).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.sqlstate()),
            ("different vector dimensions 2 and 1", "22000")
        );
        assert_eq!(
            l1_distance(&[f16::ONE], &[f16::ONE, f16::ONE]).unwrap_err().to_string(),
            "different halfvec dimensions 1 and 2"
        );
        for refused in [
            l2_squared,
            inner_product,
            negative_inner_product,
            cosine_distance,
            spherical_distance,
            l1_distance,
        ] {
            assert!(refused(&[1f32], &[1.0, 2.0]).is_err());
        }
    }

    #[test]
    fn cosine_is_nan_for_zero_and_stays_within_its_range() {
        assert!(cosine_distance(&[0f32, 0.0], &[1.0, 2.0]).unwrap().is_nan());
        assert_eq!(cosine_distance(&[1f32, 2.0], &[2.0, 4.0]), Ok(0.0));
        assert_eq!(cosine_distance(&[1f32, 1.0], &[-1.0, -1.0]), Ok(2.0));
        assert_eq!(
            cosine_distance(&[1.1f32, 1.1], &[1.1, 1.1]),
            Ok(0.0),
            "rounding does not make it negative"
        );
        assert_eq!(spherical_distance(&[1.1f32, 1.1], &[1.1, 1.1]), Ok(0.0));
        assert_eq!(spherical_distance(&[1f32, 0.0], &[0.0, 1.0]), Ok(0.5));
    }

    #[test]
    fn sums_beyond_f32_are_infinite_and_norms_are_not() {
        assert_eq!(l2_distance(&[3e38f32], &[-3e38]), Ok(f64::INFINITY));
        assert_eq!(norm(&[3e38f32, 4e37]), (3e38f32 as f64).hypot(4e37f32 as f64));
    }
}
