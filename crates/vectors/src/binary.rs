//! The binary format of COPY and of clients: dimensions (int16), a reserved int16 that is 0, the elements; all in
//! network order.
use crate::{Element, Error};

const HEADER: usize = 4;

/// The message for `elements`.
pub fn encode_binary<E: Element>(elements: &[E]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + std::mem::size_of_val(elements));
    message.extend_from_slice(&(elements.len() as u16).to_be_bytes());
    message.extend_from_slice(&0u16.to_be_bytes());
    for &element in elements {
        element.put(&mut message);
    }
    message
}

/// Reads a whole message. `expected` is the number of dimensions declared, if any.
pub fn parse_binary<E: Element>(message: &[u8], expected: Option<usize>) -> Result<Vec<E>, Error> {
    let short = |dimensions: usize| Error::MessageLength {
        type_name: E::TYPE_NAME,
        dimensions,
        expected: HEADER + dimensions * size_of::<E>(),
        actual: message.len(),
    };
    let &[d0, d1, u0, u1, ref body @ ..] = message else {
        return Err(short(0));
    };
    // The field is signed; what pgvector would read as negative has no dimensions here either.
    let dimensions = usize::try_from(i16::from_be_bytes([d0, d1])).unwrap_or(0);
    Error::check_dimensions::<E>(dimensions)?;
    crate::expect_dimensions(expected, dimensions)?;
    let unused = i16::from_be_bytes([u0, u1]);
    if unused != 0 {
        return Err(Error::UnusedField { value: unused });
    }
    if body.len() != dimensions * size_of::<E>() {
        return Err(short(dimensions));
    }
    let elements: Vec<E> = body.chunks_exact(size_of::<E>()).map(E::get).collect();
    crate::check(&elements)?;
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_pgvectors() {
        assert_eq!(
            encode_binary(&[1f32, -2.0]),
            [0, 2, 0, 0, 0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0]
        );
        assert_eq!(
            encode_binary(&[f16::ONE, f16::from_f32(-2.0)]),
            [0, 2, 0, 0, 0x3c, 0, 0xc0, 0]
        );
    }

    #[test]
    fn damaged_messages_are_refused_by_cause() {
        let refused = |message: &[u8]| parse_binary::<f32>(message, None).unwrap_err();
        for length in 0..4 {
            assert!(matches!(refused(&[0; 4][..length]), Error::MessageLength { .. }));
        }
        assert_eq!(refused(&[0, 0, 0, 0]), Error::NoDimensions { type_name: "vector" });
        assert_eq!(
            refused(&[0xff, 0xff, 0, 0]),
            Error::NoDimensions { type_name: "vector" }
        );
        assert_eq!(
            refused(&[0x3e, 0x81, 0, 0]),
            Error::TooManyDimensions { type_name: "vector" }
        );
        assert_eq!(refused(&[0, 1, 0, 1, 0, 0, 0, 0]), Error::UnusedField { value: 1 });
        assert_eq!(
            refused(&[0, 1, 0, 0, 0x7f, 0xc0, 0, 0]),
            Error::NotANumber { type_name: "vector" }
        );
        assert_eq!(
            refused(&[0, 1, 0, 0, 0xff, 0x80, 0, 0]),
            Error::Infinite { type_name: "vector" }
        );
        let cut = refused(&[0, 2, 0, 0, 0x3f, 0x80, 0, 0]);
        assert_eq!(cut.to_string(), "a binary vector of 2 dimensions takes 12 bytes, not 8");
        assert_eq!(cut.sqlstate(), "08P01");
        let long = refused(&[0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(long, Error::MessageLength { actual: 9, .. }));
        assert_eq!(long.sqlstate(), "22P03");
        let error = parse_binary::<f32>(&[0, 1, 0, 0, 0, 0, 0, 0], Some(3)).unwrap_err();
        assert_eq!(error.to_string(), "expected 3 dimensions, not 1");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(elements in proptest::collection::vec(-1e38f32..1e38, 1..100)) {
            prop_assert_eq!(parse_binary::<f32>(&encode_binary(&elements), Some(elements.len())).unwrap(), elements);
        }

        #[test]
        fn no_message_panics(message in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_binary::<f32>(&message, None);
            if let Ok(elements) = parse_binary::<f16>(&message, None) {
                prop_assert_eq!(encode_binary(&elements), message);
            }
        }
    }
}
