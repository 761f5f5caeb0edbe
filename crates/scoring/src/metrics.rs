//! How good a list of matches is, over all queries at once, as the Image Similarity Challenge 2021 judges it.
//!
//! All predictions of all queries go into one list, sorted by descending score, so a score must mean the same for every
//! query. Among equal scores the wrong predictions come first: a tie never helps.

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
    let sorted = sorted(predictions, positives)?;
    let mut correct = 0_usize;
    let mut sum = 0.0;
    for (place, prediction) in (1_u32..).zip(&sorted) {
        if prediction.correct {
            correct += 1;
            sum += correct as f64 / f64::from(place);
        }
    }
    Ok(sum / positives as f64)
}

/// The largest recall at which the precision is at least `precision`; 0 where it never is.
///
/// # Errors
/// As [`micro_average_precision`], and for a `precision` outside (0, 1].
pub fn recall_at_precision(predictions: &[Prediction], positives: usize, precision: f64) -> Result<f64, MetricError> {
    Ok(best_point(predictions, positives, precision)?.map_or(0.0, |point| point.recall))
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
    Ok(best_point(predictions, positives, precision)?.map(|point| point.threshold))
}

/// The precision-recall curve: one point for each different score, from the highest score down, so recall never falls.
///
/// # Errors
/// As [`micro_average_precision`].
pub fn precision_recall(predictions: &[Prediction], positives: usize) -> Result<Vec<OperatingPoint>, MetricError> {
    let sorted = sorted(predictions, positives)?;
    let mut points: Vec<OperatingPoint> = Vec::new();
    let (mut accepted, mut correct) = (0_usize, 0_usize);
    for tied in sorted.chunk_by(|a, b| a.score == b.score) {
        accepted += tied.len();
        correct += tied.iter().filter(|prediction| prediction.correct).count();
        points.push(OperatingPoint {
            threshold: tied[0].score,
            precision: correct as f64 / accepted as f64,
            recall: correct as f64 / positives as f64,
        });
    }
    Ok(points)
}

/// A threshold accepts all of a tie or none of it. Inside a tie the precision is lowest after the wrong predictions and
/// rises from there, so the point of largest recall is always the end of a tie.
fn best_point(
    predictions: &[Prediction],
    positives: usize,
    precision: f64,
) -> Result<Option<OperatingPoint>, MetricError> {
    if !(precision > 0.0 && precision <= 1.0) {
        return Err(MetricError::Precision { precision });
    }
    let mut best: Option<OperatingPoint> = None;
    for point in precision_recall(predictions, positives)? {
        if point.precision >= precision && best.is_none_or(|best| point.recall > best.recall) {
            best = Some(point);
        }
    }
    Ok(best)
}

fn sorted(predictions: &[Prediction], positives: usize) -> Result<Vec<Prediction>, MetricError> {
    if positives == 0 {
        return Err(MetricError::NoPositives);
    }
    if let Some(index) = predictions.iter().position(|prediction| prediction.score.is_nan()) {
        return Err(MetricError::NotANumber { index });
    }
    let correct = predictions.iter().filter(|prediction| prediction.correct).count();
    if correct > positives {
        return Err(MetricError::TooManyCorrect { correct, positives });
    }
    let mut sorted = predictions.to_vec();
    // Not total_cmp alone: -0.0 and 0.0 are equal scores.
    sorted.sort_by(|a, b| {
        b.score
            .partial_cmp(&a.score)
            .unwrap_or(std::cmp::Ordering::Equal)
            .then(a.correct.cmp(&b.correct))
    });
    Ok(sorted)
}
