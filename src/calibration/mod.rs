//! What scores mean: a set's own calibration, from judged pairs to probabilities and thresholds.

mod background;
mod copy_calibrate;
mod edited;
mod fit;
mod interval;
mod labels;
mod record;

pub use record::write_calibration;
