//! How good matches are and what they mean: metrics as aggregates, calibration, evaluation.

mod aggregates;
mod background;
mod calibrate;
mod edited;
mod fit;
mod interval;
mod labels;
mod queries;
mod record;

pub use record::write_calibration;
mod released;
