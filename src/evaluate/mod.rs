//! How good matches are: metrics as aggregates, the queries of a benchmark.

mod aggregates;
mod queries;
mod released;
