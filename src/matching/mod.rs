//! Matching: reference sets, nearest references, stretching, verdicts.

mod functions;
mod neighbours;
mod sets;
