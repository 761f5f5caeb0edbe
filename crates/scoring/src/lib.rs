//! What a similarity means: descriptor stretching, calibrated probability, verdicts, and the metrics that judge them.
//!
//! Cosine similarity alone is not comparable between queries: a picture of plain sky is similar to everything, a
//! crowded street to nothing. *Descriptor stretching* ("Bag of Tricks and A Strong Baseline for Image Copy Detection",
//! arXiv 2111.08004, section "descriptor stretching") scales each query by how similar it is to a fixed *background* of
//! unrelated images, and compares by distance.
//!
//! ```
//! use scoring::{Background, Calibration, Verdict};
//!
//! // Two background descriptors of three components, as 32-bit floats.
//! let mut file = b"CMBG\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00".to_vec();
//! for value in [1.0_f32, 0.0, 0.0, 0.0, 1.0, 0.0] {
//!     file.extend_from_slice(&value.to_le_bytes());
//! }
//! let background = Background::parse(&file)?;
//! let calibration = Calibration::from_json(
//!     r#"{"neighbours": 1, "factor": 2.5, "clamp": [0.1, 0.6], "intercept": -8, "similarity_weight": 14,
//!         "background_weight": -3, "copy_probability": 0.9, "review_probability": 0.5}"#,
//! )?;
//!
//! let query = [0.6, 0.0, 0.8];
//! let m = background.mean_top_k(&query, calibration.neighbours())?;
//! assert!((m - 0.6).abs() < 1e-6);
//!
//! let similarity = 0.95; // to some reference
//! let score = calibration.stretch(similarity, m.into());
//! assert!((score - (-(1.5_f64.powi(2) + 1.0) + 2.0 * 1.5 * similarity)).abs() < 1e-6);
//! assert_eq!(calibration.verdict(calibration.probability(similarity, m.into())), Verdict::Copy);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod background;
mod calibration;
mod edited;
mod fit;
mod interval;
mod metrics;
mod predictions;
mod standing;
mod threshold;

pub use background::{Background, BackgroundError, DIMENSIONS, Encoding, MAX_NEIGHBOURS, MAX_ROWS};
pub use calibration::{Calibration, CalibrationError, MAX_CALIBRATION_BYTES, Verdict};
pub use edited::{Compared, EDIT_STRENGTHS, EditedCopy, EditedPairs, Pairs};
pub use fit::{Example, Fit, FitError, LEAST_EXAMPLES, fit};
pub use interval::{lower_bound, needed_without_error, proportion_interval, upper_bound};
pub use metrics::{micro_average_precision, precision_recall, recall_at_precision, threshold_at_precision};
pub use predictions::{MetricError, NoPredictions, OperatingPoint, Prediction, Predictions};
pub use standing::{Found, Lead, SAME_PICTURE, STANDING_NEIGHBOURS, Standing, Verified, probability_of};
pub use threshold::{Bin, Judged, Threshold, choose, expected_calibration_error, reliability};
