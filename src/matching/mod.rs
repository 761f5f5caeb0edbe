//! Matching: reference sets, nearest references, stretching, verdicts.

pub mod filter;
mod filter_text;
mod filter_words;
mod functions;
pub mod gate;
mod neighbours;
mod remembered;
mod search;
mod sets;
mod status;
mod views;

#[allow(unused_imports)] // for callers in Rust
pub use search::{Match, search};
pub use sets::ReferenceSet;
