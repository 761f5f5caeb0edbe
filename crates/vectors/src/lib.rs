//! Vector formats, arithmetic and distances with run-time SIMD dispatch.
//!
//! Everything is generic over the [`Element`]: `f32` for the SQL type `vector`, [`half::f16`] for `halfvec`. Values,
//! formats and limits are those of pgvector 0.8.
//!
//! ```
//! let a: Vec<f32> = vectors::parse_text(b"[1, 2, 3]")?;
//! let b = [4.0, 6.0, 3.0];
//! assert_eq!(vectors::l2_distance(&a, &b)?, 5.0);
//! assert_eq!(vectors::format_text(&vectors::add(&a, &b)?), "[5,8,6]");
//! # Ok::<(), vectors::Error>(())
//! ```
#![deny(unsafe_code)]

mod arithmetic;
mod binary;
mod bits;
mod convert;
mod decimal;
mod distance;
mod element;
mod error;
pub mod hamming;
pub mod kernels;
pub mod quantised;
mod text;

pub use arithmetic::{add, binary_quantize, check, compare, concat, multiply, normalize, subtract, subvector};
pub use binary::{encode_binary, parse_binary};
pub use bits::{check_lengths, hamming_distance, jaccard_distance};
pub use convert::{from_f32, from_f64, from_i32, narrow, widen};
pub use distance::{
    cosine_distance, inner_product, l1_distance, l2_distance, l2_squared, negative_inner_product, norm,
    spherical_distance,
};
pub use element::Element;
pub use error::Error;
pub use text::{format_text, parse_text};

/// The most dimensions a vector can have: an item of a page must hold it, and pgvector says the same.
pub const MAX_DIMENSIONS: usize = 16_000;

/// Refuses a value of `actual` dimensions where `expected` are declared (`None`: any number).
pub fn expect_dimensions(expected: Option<usize>, actual: usize) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != actual => Err(Error::UnexpectedDimensions { expected, actual }),
        _ => Ok(()),
    }
}
