//! Matching: reference sets, nearest references, stretching, verdicts.

mod filter;
mod functions;
mod neighbours;
mod remembered;
mod sets;
mod verification;
mod views;
