//! Operators that make a new vector, and the order of vectors.
use std::cmp::Ordering;

use crate::distance::same_dimensions;
use crate::{Element, Error};

/// Refuses what cannot be stored: no elements, more than [`crate::MAX_DIMENSIONS`], NaN, infinities.
pub fn check<E: Element>(elements: &[E]) -> Result<(), Error> {
    Error::check_dimensions::<E>(elements.len())?;
    if elements.iter().all(|element| element.is_finite()) {
        return Ok(());
    }
    let type_name = E::TYPE_NAME;
    // The first offender decides which of the two it is, as when elements are read one by one.
    match elements.iter().find(|element| !element.is_finite()) {
        Some(element) if element.to_f32().is_infinite() => Err(Error::Infinite { type_name }),
        _ => Err(Error::NotANumber { type_name }),
    }
}

/// a + b, element by element; [`Error::Overflow`] when a sum is infinite.
pub fn add<E: Element>(a: &[E], b: &[E]) -> Result<Vec<E>, Error> {
    elementwise(a, b, |x, y| x + y)
}

/// a − b, element by element; [`Error::Overflow`] when a difference is infinite.
pub fn subtract<E: Element>(a: &[E], b: &[E]) -> Result<Vec<E>, Error> {
    elementwise(a, b, |x, y| x - y)
}

/// a · b, element by element; [`Error::Overflow`] when a product is infinite, [`Error::Underflow`] when it is zero
/// although no factor is.
pub fn multiply<E: Element>(a: &[E], b: &[E]) -> Result<Vec<E>, Error> {
    let product = elementwise(a, b, |x, y| x * y)?;
    let vanished = product
        .iter()
        .zip(a.iter().zip(b))
        .any(|(p, (x, y))| *p == E::ZERO && *x != E::ZERO && *y != E::ZERO);
    if vanished { Err(Error::Underflow) } else { Ok(product) }
}

fn elementwise<E: Element>(a: &[E], b: &[E], operation: impl Fn(f32, f32) -> f32) -> Result<Vec<E>, Error> {
    same_dimensions(a, b)?;
    let result: Vec<E> = a
        .iter()
        .zip(b)
        .map(|(x, y)| E::nearest(operation(x.to_f32(), y.to_f32())))
        .collect();
    if result.iter().all(|element| element.is_finite()) {
        Ok(result)
    } else {
        Err(Error::Overflow)
    }
}

/// The elements of `a`, then those of `b`.
pub fn concat<E: Element>(a: &[E], b: &[E]) -> Result<Vec<E>, Error> {
    Error::check_dimensions::<E>(a.len() + b.len())?;
    Ok([a, b].concat())
}

/// `count` elements from position `start`, which counts from 1. Positions outside the vector are left out, as in SQL's
/// `substring`; a result without elements is an error.
pub fn subvector<E: Element>(a: &[E], start: i32, count: i32) -> Result<&[E], Error> {
    let length = a.len() as i64;
    let end = (i64::from(start) + i64::from(count)).clamp(1, length + 1);
    let start = i64::from(start).clamp(1, end);
    let part = &a[(start - 1) as usize..(end - 1) as usize];
    Error::check_dimensions::<E>(part.len())?;
    Ok(part)
}

/// a / ‖a‖, divided in `f64`; a vector of zeros stays one.
pub fn normalize<E: Element>(a: &[E]) -> Result<Vec<E>, Error> {
    let norm = crate::norm(a);
    if norm == 0.0 {
        return Ok(vec![E::ZERO; a.len()]);
    }
    let unit: Vec<E> = a
        .iter()
        .map(|x| E::nearest((f64::from(x.to_f32()) / norm) as f32))
        .collect();
    if unit.iter().all(|element| element.is_finite()) {
        Ok(unit)
    } else {
        Err(Error::Overflow)
    }
}

/// One bit per element, set where it is above zero; the first element is the highest bit of the first byte, as in SQL's
/// `bit`. Unused bits of the last byte are 0.
pub fn binary_quantize<E: Element>(a: &[E]) -> Vec<u8> {
    a.chunks(8)
        .map(|eight| {
            eight
                .iter()
                .enumerate()
                .fold(0, |byte, (i, x)| byte | (u8::from(*x > E::ZERO) << (7 - i)))
        })
        .collect()
}

/// Lexicographic order, and the shorter first when one begins with the other, as with PostgreSQL's arrays. −0 equals 0.
pub fn compare<E: Element>(a: &[E], b: &[E]) -> Ordering {
    a.iter()
        .zip(b)
        .map(|(x, y)| x.partial_cmp(y).unwrap_or(Ordering::Equal))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.len().cmp(&b.len()))
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn overflow_and_underflow_are_refused() {
        assert_eq!(add(&[3e38f32], &[3e38]), Err(Error::Overflow));
        assert_eq!(subtract(&[-3e38f32], &[3e38]), Err(Error::Overflow));
        assert_eq!(multiply(&[1e37f32], &[1e37]), Err(Error::Overflow));
        assert_eq!(multiply(&[1e-37f32], &[1e-37]), Err(Error::Underflow));
        assert_eq!(
            multiply(&[1e-37f32, 0.0], &[0.0, 1e-37]),
            Ok(vec![0.0, 0.0]),
            "zero is no underflow"
        );
        let large = [f16::from_f32(60000.0)];
        assert_eq!(
            add(&large, &large),
            Err(Error::Overflow),
            "f16 overflows where f32 does not"
        );
        let small = [f16::from_f32(1e-4)];
        assert_eq!(multiply(&small, &small), Err(Error::Underflow));
    }

    #[test]
    fn subvector_counts_from_one_and_stops_at_the_ends() {
        let a = [1f32, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(subvector(&a, 1, 3), Ok(&a[..3]));
        assert_eq!(subvector(&a, 3, 10), Ok(&a[2..]));
        assert_eq!(subvector(&a, -1, 3), Ok(&a[..1]));
        assert_eq!(subvector(&a, 3, i32::MAX), Ok(&a[2..]));
        for (start, count) in [(1, 0), (6, 1), (1, -1), (i32::MIN, 5), (i32::MAX, i32::MAX), (-5, 3)] {
            assert_eq!(
                subvector(&a, start, count),
                Err(Error::NoDimensions { type_name: "vector" }),
                "{start} {count}"
            );
        }
    }

    #[test]
    fn sixteen_thousand_is_the_limit() {
        let half = vec![1f32; 8000];
        assert_eq!(concat(&half, &half).unwrap().len(), 16000);
        assert_eq!(
            concat(&half, &vec![1f32; 8001]),
            Err(Error::TooManyDimensions { type_name: "vector" })
        );
        assert_eq!(
            check(&vec![f16::ZERO; 16001]).unwrap_err().to_string(),
            "halfvec cannot have more than 16000 dimensions"
        );
        assert_eq!(
            check::<f32>(&[]).unwrap_err().to_string(),
            "vector must have at least 1 dimension"
        );
        assert_eq!(
            check(&[f32::NAN, f32::INFINITY]).unwrap_err().to_string(),
            "NaN not allowed in vector"
        );
        assert_eq!(
            check(&[1.0, f32::INFINITY]).unwrap_err().to_string(),
            "infinite value not allowed in vector"
        );
    }

    #[test]
    fn bits_start_at_the_highest() {
        assert_eq!(
            binary_quantize(&[1f32, -1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.5, 3.0]),
            [0b1001_0001, 0b1000_0000]
        );
    }

    #[test]
    fn normalizing_zeros_keeps_them() {
        assert_eq!(normalize(&[0f32, 0.0]), Ok(vec![0.0, 0.0]));
        assert_eq!(normalize(&[3f32, 4.0]), Ok(vec![0.6, 0.8]));
        assert_eq!(
            normalize(&[3e38f32, 3e38]).unwrap(),
            [0.5f32.sqrt(); 2],
            "the norm is taken in f64"
        );
    }

    proptest! {
        #[test]
        fn order_is_total_and_agrees_with_the_elements(
            a in proptest::collection::vec(-2i8..=2, 1..5), b in proptest::collection::vec(-2i8..=2, 1..5)
        ) {
            let x: Vec<f32> = a.iter().map(|&i| i.into()).collect();
            let y: Vec<f32> = b.iter().map(|&i| i.into()).collect();
            prop_assert_eq!(compare(&x, &y), a.cmp(&b));
            prop_assert_eq!(compare(&y, &x), a.cmp(&b).reverse());
        }

        #[test]
        fn a_part_beside_its_rest_is_the_whole(a in proptest::collection::vec(-1e3f32..1e3, 2..50), at in 1usize..49) {
            let at = at.min(a.len() - 1);
            let (first, rest) = (subvector(&a, 1, at as i32).unwrap(), subvector(&a, at as i32 + 1, i32::MAX).unwrap());
            prop_assert_eq!(concat(first, rest).unwrap(), a);
        }
    }
}
