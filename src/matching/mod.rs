//! Matching: reference sets, nearest references, stretching, verification, verdicts.

mod evidence;
pub mod filter;
mod filter_text;
mod filter_words;
mod functions;
pub mod gate;
mod neighbours;
mod reference_key;
mod remembered;
mod search;
mod sets;
mod shards;
mod sought;
mod status;
mod verification;
mod views;

pub use remembered::remember_sets;
pub use search::{Match, search};
pub use sets::ReferenceSet;
pub use verification::Verify;
