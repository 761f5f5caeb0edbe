//! How good a list of matches is, over all queries at once, as the Image Similarity Challenge 2021 judges it.
//!
//! All predictions of all queries go into one list, sorted by descending score, so a score must mean the same for every
//! query. Among equal scores the wrong predictions come first: a tie never helps.

use crate::predictions::{MetricError, OperatingPoint, Prediction, Predictions, checked_precision};

/// Micro-average precision: the mean over all `positives` true pairs of the precision at each one's place in the list,
/// 0 for a pair that was not returned. In 0..=1.
///
/// # Errors
/// [`MetricError`] for no positives, more correct predictions than positives, or a score that is NaN.
pub fn micro_average_precision(predictions: &[Prediction], positives: usize) -> Result<f64, MetricError> {
    gathered(predictions, positives)?.micro_average_precision(positives)
}

/// The largest recall at which the precision is at least `precision`; 0 where it never is.
///
/// # Errors
/// As [`micro_average_precision`], and for a `precision` outside (0, 1].
pub fn recall_at_precision(predictions: &[Prediction], positives: usize, precision: f64) -> Result<f64, MetricError> {
    checked_precision(precision)?;
    let best = gathered(predictions, positives)?.at_precision(positives, precision)?;
    Ok(best.map_or(0.0, |point| point.recall))
}

/// The score from which upwards [`recall_at_precision`] is reached; `None` where the precision never is.
///
/// # Errors
/// As [`recall_at_precision`].
pub fn threshold_at_precision(
    predictions: &[Prediction],
    positives: usize,
    precision: f64,
) -> Result<Option<f64>, MetricError> {
    checked_precision(precision)?;
    let best = gathered(predictions, positives)?.at_precision(positives, precision)?;
    Ok(best.map(|point| point.threshold))
}

/// The precision-recall curve: one point for each different score, from the highest score down, so recall never falls.
///
/// # Errors
/// As [`micro_average_precision`].
pub fn precision_recall(predictions: &[Prediction], positives: usize) -> Result<Vec<OperatingPoint>, MetricError> {
    gathered(predictions, positives)?.precision_recall(positives)
}

fn gathered(predictions: &[Prediction], positives: usize) -> Result<Predictions, MetricError> {
    if positives == 0 {
        return Err(MetricError::NoPositives);
    }
    let mut gathered = Predictions::new();
    for prediction in predictions {
        gathered.push(*prediction)?;
    }
    Ok(gathered)
}
