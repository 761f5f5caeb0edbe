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
mod sought;
mod status;
mod verification;
mod views;

pub use neighbours::{Neighbour, nearest_here};
pub use remembered::{is_known_down, remember_agreement, remember_down, remember_sets};
pub use search::{Match, search};
pub use sets::ReferenceSet;
pub use status::in_use;
pub use verification::{Plan, Verify};
