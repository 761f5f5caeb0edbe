//! What can be wrong with a vector, each cause with its SQLSTATE.
use crate::{Element, MAX_DIMENSIONS};

/// A vector, an operand or a message that was refused.
///
/// The texts mean what pgvector 0.8 says in the same case, so that clients which read them keep working. Variants carry
/// the SQL name of the type (`vector` or `halfvec`) where the text needs it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two operands of different length.
    #[error("different {type_name} dimensions {left} and {right}")]
    DifferentDimensions {
        /// `vector` or `halfvec`.
        type_name: &'static str,
        /// Dimensions of the left operand.
        left: usize,
        /// Dimensions of the right operand.
        right: usize,
    },
    /// Two bit strings of different length.
    #[error("different bit lengths {left} and {right}")]
    DifferentLengths {
        /// Bits of the left operand.
        left: usize,
        /// Bits of the right operand.
        right: usize,
    },
    /// A value that does not fit the declared dimensions, as in `vector(3)`.
    #[error("expected {expected} dimensions, not {actual}")]
    UnexpectedDimensions {
        /// Dimensions declared.
        expected: usize,
        /// Dimensions of the value.
        actual: usize,
    },
    /// No element at all.
    #[error("{type_name} must have at least 1 dimension")]
    NoDimensions {
        /// `vector` or `halfvec`.
        type_name: &'static str,
    },
    /// More elements than a page can ever hold.
    #[error("{type_name} cannot have more than {MAX_DIMENSIONS} dimensions")]
    TooManyDimensions {
        /// `vector` or `halfvec`.
        type_name: &'static str,
    },
    /// An element is not a number.
    #[error("NaN not allowed in {type_name}")]
    NotANumber {
        /// `vector` or `halfvec`.
        type_name: &'static str,
    },
    /// An element is infinite.
    #[error("infinite value not allowed in {type_name}")]
    Infinite {
        /// `vector` or `halfvec`.
        type_name: &'static str,
    },
    /// A number larger than the element type holds.
    #[error("\"{value}\" is out of range for type {type_name}")]
    OutOfRange {
        /// `vector` or `halfvec`.
        type_name: &'static str,
        /// The number as it was written.
        value: String,
    },
    /// The result of an operation is larger than the element type holds.
    #[error("value out of range: overflow")]
    Overflow,
    /// The product of two numbers is too small for the element type.
    #[error("value out of range: underflow")]
    Underflow,
    /// Text that is not a vector.
    #[error("invalid input syntax for type {type_name}: \"{text}\"")]
    Syntax {
        /// `vector` or `halfvec`.
        type_name: &'static str,
        /// The text, cut when it is long.
        text: String,
        /// What is wrong with it, where more can be said.
        detail: Option<&'static str>,
    },
    /// A binary message that ends early or goes on too long.
    #[error("a binary {type_name} of {dimensions} dimensions takes {expected} bytes, not {actual}")]
    MessageLength {
        /// `vector` or `halfvec`.
        type_name: &'static str,
        /// Dimensions the message announces.
        dimensions: usize,
        /// Bytes it should have.
        expected: usize,
        /// Bytes it has.
        actual: usize,
    },
    /// The reserved field of the binary format is in use.
    #[error("expected unused to be 0, not {value}")]
    UnusedField {
        /// What the field holds.
        value: i16,
    },
    /// A stored value whose length and dimensions disagree.
    #[error("invalid {type_name} value: {bytes} bytes for {dimensions} dimensions")]
    Corrupted {
        /// `vector` or `halfvec`.
        type_name: &'static str,
        /// Bytes stored, with the header.
        bytes: usize,
        /// Dimensions the header states.
        dimensions: i32,
    },
}

impl Error {
    /// The five-character SQLSTATE of PostgreSQL's appendix A.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Error::DifferentDimensions { .. }
            | Error::DifferentLengths { .. }
            | Error::UnexpectedDimensions { .. }
            | Error::NoDimensions { .. }
            | Error::NotANumber { .. }
            | Error::Infinite { .. }
            | Error::UnusedField { .. } => "22000",
            Error::TooManyDimensions { .. } => "54000",
            Error::OutOfRange { .. } | Error::Overflow | Error::Underflow => "22003",
            Error::Syntax { .. } => "22P02",
            // As PostgreSQL itself answers: a message that ends early breaks the protocol, one
            // that goes on is no value.
            Error::MessageLength { expected, actual, .. } if actual < expected => "08P01",
            Error::MessageLength { .. } => "22P03",
            Error::Corrupted { .. } => "XX001",
        }
    }

    /// More on the cause, for the DETAIL line.
    pub fn detail(&self) -> Option<&'static str> {
        match self {
            Error::Syntax { detail, .. } => *detail,
            _ => None,
        }
    }

    /// What to do about it, for the HINT line.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Error::DifferentDimensions { .. } => "Both operands must have the same number of dimensions.",
            Error::UnexpectedDimensions { .. } => {
                "The column, cast or aggregate takes vectors of one length only; vector_dims() tells the length of a \
                 value."
            }
            Error::DifferentLengths { .. } => "Both operands must have the same number of bits.",
            Error::NotANumber { .. } | Error::Infinite { .. } => {
                "Every element must be a finite number; look for a division by zero or an overflow where it was \
                 computed."
            }
            Error::Syntax { .. } => "Write a vector as numbers in brackets, for instance [1,2.5,-3e-2].",
            Error::OutOfRange {
                type_name: "halfvec", ..
            } => "halfvec holds numbers up to 65504; use vector for larger ones.",
            Error::Corrupted { .. } => "The value was not written by this extension, or its page is damaged.",
            _ => return None,
        })
    }

    /// Refuses a number of dimensions outside 1 to [`MAX_DIMENSIONS`].
    pub(crate) fn check_dimensions<E: Element>(dimensions: usize) -> Result<(), Error> {
        match dimensions {
            0 => Err(Error::NoDimensions {
                type_name: E::TYPE_NAME,
            }),
            1..=MAX_DIMENSIONS => Ok(()),
            _ => Err(Error::TooManyDimensions {
                type_name: E::TYPE_NAME,
            }),
        }
    }
}
