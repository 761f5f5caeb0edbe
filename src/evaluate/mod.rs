//! How good matches are and what they mean: metrics as aggregates, calibration, evaluation.

mod aggregates;
mod calibrate;
mod queries;
mod record;

pub use record::write_calibration;
mod released;
