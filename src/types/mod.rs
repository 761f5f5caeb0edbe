//! The SQL types `vector` and `halfvec`: what they look like to PostgreSQL. What they mean is in the `vectors` crate.
//!
//! `datum` is the value in PostgreSQL's memory, `io` its four input and output functions and the type modifier,
//! `distances` and `functions` what computes on it, `bits` the distances on what `binary_quantize` returns, `casts` the
//! ways to and from arrays and between the two types, `support` what the planner may leave out of them, `aggregates`
//! sum and avg. The SQL declarations are in `sql/types.sql`.
mod aggregates;
mod arrays;
mod bits;
mod casts;
mod datum;
mod distances;
mod error;
mod io;
mod support;
mod vector_functions;

pub use datum::Vector;
