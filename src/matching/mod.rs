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

#[allow(unused_imports)] // flagging's, next
pub use search::{Match, search};
#[allow(unused_imports)]
pub use sets::ReferenceSet;
