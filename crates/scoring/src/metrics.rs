//! How good a list of matches is, over all queries at once, as the Image Similarity Challenge 2021 judges it.
//!
//! All predictions of all queries go into one list, sorted by descending score, so a score must mean the same for every
//! query. Among equal scores the wrong predictions come first: a tie never helps.

use crate::predictions::Predictions;

/// One pair that was returned: its score, higher is more alike, and whether the pair is truly a copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Any scale; only the order counts.
    pub score: f64,
    /// Whether the pair is in the ground truth.
    pub correct: bool,
}

/// Precision and recall of "everything from this score upwards".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatingPoint {
    /// The lowest score that is accepted.
    pub threshold: f64,
    /// Correct predictions over accepted ones.
    pub precision: f64,
    /// Correct predictions over all true pairs.
    pub recall: f64,
}

/// Why nothing can be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// Without a true pair there is no recall.
    #[error("there are no true pairs, so recall is undefined")]
    NoPositives,
    /// More correct predictions than true pairs: a pair was counted twice.
    #[error("{correct} predictions are correct, but there are only {positives} true pairs")]
    TooManyCorrect {
        /// Correct predictions.
        correct: usize,
        /// True pairs.
        positives: usize,
    },
    /// A score that has no place in an order.
    #[error("the score of prediction {index} is NaN")]
    NotANumber {
        /// Position in the list, from 0.
        index: usize,
    },
    /// A precision outside (0, 1].
    #[error("precision {precision} is not allowed; it must be above 0 and at most 1")]
    Precision {
        /// The precision asked for.
        precision: f64,
    },
}

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

/// A threshold accepts all of a tie or none of it. Inside a tie the precision is lowest after the wrong predictions and
/// rises from there, so the point of largest recall is always the end of a tie.
pub(crate) fn best_of(best: Option<OperatingPoint>, point: OperatingPoint, precision: f64) -> Option<OperatingPoint> {
    if point.precision >= precision && best.is_none_or(|best| point.recall > best.recall) {
        Some(point)
    } else {
        best
    }
}

pub(crate) fn checked_precision(precision: f64) -> Result<(), MetricError> {
    if precision > 0.0 && precision <= 1.0 {
        Ok(())
    } else {
        Err(MetricError::Precision { precision })
    }
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
