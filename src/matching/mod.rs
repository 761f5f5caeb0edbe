//! Matching: reference sets, nearest references, stretching, verification, verdicts.

mod copy_match;
mod evidence;
pub mod filter;
mod filter_nodes;
mod filter_text;
mod filter_words;
pub mod gate;
mod neighbours;
mod reference_key;
mod search;
mod set_cache;
mod sets;
mod sought;
mod status;
mod table;
mod verification;
mod verify;
mod views;

pub use neighbours::{Neighbour, nearest_here};
pub use search::{Match, search};
pub use set_cache::{is_known_down, remember_agreement, remember_down, remember_sets};
pub use sets::ReferenceSet;
pub use status::in_use;
pub use verify::{Plan, Verify};
