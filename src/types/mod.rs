//! The SQL types `vector` and `halfvec`: what they look like to PostgreSQL. What they mean is in the `vectors` crate.
mod datum;
mod error;

pub use datum::{HalfVector, SqlElement, Vector};
