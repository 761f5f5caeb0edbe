//! Between numbers and elements, with the checks that a stored vector needs.
use half::f16;

use crate::decimal::format_float;
use crate::{Element, Error};

/// The nearest element to `value`, refusing NaN, infinities and numbers that the element cannot hold.
#[inline]
pub fn from_f32<E: Element>(value: f32) -> Result<E, Error> {
    let element = E::nearest(value);
    if element.is_finite() {
        Ok(element)
    } else {
        Err(refuse::<E>(f64::from(value)))
    }
}

/// As [`from_f32`], rounding to `f32` on the way, as PostgreSQL casts `float8` to `float4`.
#[inline]
pub fn from_f64<E: Element>(value: f64) -> Result<E, Error> {
    let element = E::nearest(value as f32);
    if element.is_finite() {
        Ok(element)
    } else {
        Err(refuse::<E>(value))
    }
}

/// As [`from_f32`], for whole numbers.
#[inline]
pub fn from_i32<E: Element>(value: i32) -> Result<E, Error> {
    from_f64(f64::from(value))
}

/// The elements as `f16`, each rounded to the nearest; refuses a number above 65504.
pub fn narrow(elements: &[f32]) -> Result<Vec<f16>, Error> {
    elements.iter().map(|&element| from_f32(element)).collect()
}

/// The elements as `f32`, exactly.
pub fn widen(elements: &[f16]) -> Vec<f32> {
    elements.iter().map(|element| element.to_f32()).collect()
}

#[cold]
fn refuse<E: Element>(value: f64) -> Error {
    let type_name = E::TYPE_NAME;
    if value.is_nan() {
        return Error::NotANumber { type_name };
    }
    if value.is_infinite() {
        return Error::Infinite { type_name };
    }
    let single = value as f32;
    let mut text = String::new();
    if single.is_finite() {
        format_float(single, &mut text)
    } else {
        text = format!("{value:e}")
    }
    Error::OutOfRange { type_name, value: text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_f16_cannot_hold_are_named() {
        assert_eq!(from_f32::<f16>(65504.0).unwrap().to_f32(), 65504.0);
        assert_eq!(
            from_f32::<f16>(65519.0).unwrap().to_f32(),
            65504.0,
            "rounds down to the largest"
        );
        assert_eq!(
            from_f32::<f16>(65520.0).unwrap_err().to_string(),
            "\"65520\" is out of range for type halfvec"
        );
        assert_eq!(
            from_i32::<f16>(-1_000_000).unwrap_err().to_string(),
            "\"-1e+06\" is out of range for type halfvec"
        );
        assert_eq!(
            from_f64::<f32>(1e300).unwrap_err().to_string(),
            "\"1e300\" is out of range for type vector"
        );
    }

    #[test]
    fn nan_and_infinity_are_refused_for_what_they_are() {
        assert_eq!(
            from_f32::<f32>(f32::NAN).unwrap_err().to_string(),
            "NaN not allowed in vector"
        );
        assert_eq!(
            from_f64::<f16>(f64::INFINITY).unwrap_err().to_string(),
            "infinite value not allowed in halfvec"
        );
    }

    #[test]
    fn every_finite_f16_survives_widening_and_narrowing() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            if half.is_finite() {
                assert_eq!(narrow(&widen(&[half])).unwrap()[0].to_bits(), bits);
            }
        }
    }
}
