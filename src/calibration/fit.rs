//! The fit of a calibration, its thresholds and their evidence.

use pgrx::prelude::*;
use pgrx::{Array, JsonB};
use scoring::{Example, FitError, Judged, Pairs, Threshold};
use serde_json::{Value, json};

use super::interval::share_of_one;
use crate::failure::{Failure, boundary};

/// Points of the curve that the evidence keeps.
const CURVE_POINTS: usize = 50;

/// Bytes that a pair takes while a calibration is made: it is kept, judged, and sorted for the
/// thresholds and the curve.
const PAIR_BYTES: usize = 3 * (size_of::<Example>() + 2 * size_of::<Judged>());

/// Confidence of the intervals in the evidence, two-sided.
const INTERVAL: f64 = 0.95;

/// What is asked of the verdicts.
pub struct Wanted {
    pub copy_precision: f64,
    pub review_precision: f64,
    pub confidence: f64,
}

/// Pairs out of arrays of one length; a pair with a NULL is none.
pub fn paired(
    similarity: impl IntoIterator<Item = Option<f64>>,
    background: impl IntoIterator<Item = Option<f64>>,
    is_copy: impl IntoIterator<Item = Option<bool>>,
    judged: impl IntoIterator<Item = Option<bool>>,
) -> Pairs {
    let mut pairs = Pairs::default();
    for (((similarity, background), is_copy), judged) in similarity.into_iter().zip(background).zip(is_copy).zip(judged)
    {
        if let (Some(similarity), Some(background), Some(is_copy), Some(judged)) =
            (similarity, background, is_copy, judged)
        {
            let pair = Example {
                similarity,
                background,
                is_copy,
            };
            pairs.add(pair, judged);
        }
    }
    pairs
}

/// `judged` says of each pair whether it is of the half that sets the thresholds, not of the one that fits the curve.
#[pg_extern(sql = false)]
fn fit_calibration(
    similarity: Array<f64>,
    background: Array<f64>,
    is_copy: Array<bool>,
    judged: Array<bool>,
    copy_precision: f64,
    review_precision: f64,
    confidence: f64,
) -> JsonB {
    boundary(|| {
        memory::ensure(similarity.len() * PAIR_BYTES)?;
        let pairs = paired(similarity.iter(), background.iter(), is_copy.iter(), judged.iter());
        let wanted = Wanted {
            copy_precision,
            review_precision,
            confidence,
        };
        fit_pairs(&pairs, &wanted).map(JsonB)
    })
}

/// Fit, thresholds and their evidence.
pub fn fit_pairs(pairs: &Pairs, wanted: &Wanted) -> Result<Value, Failure> {
    let Pairs { fitting, judging } = pairs;
    let &Wanted {
        copy_precision,
        review_precision,
        confidence,
    } = wanted;
    share_of_one("copy_precision", copy_precision)?;
    share_of_one("review_precision", review_precision)?;
    share_of_one("confidence", confidence)?;
    if review_precision > copy_precision {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("review_precision is {review_precision}, copy_precision is {copy_precision}"),
        )
        .hint("A match that is a copy without a review must be surer than one to be reviewed."));
    }
    let fit = scoring::fit(fitting).map_err(|error| refused(&error))?;
    let judged = judge(judging, &fit)?;
    let copies = judged.iter().filter(|one| one.is_copy).count();
    if copies < scoring::LEAST_EXAMPLES || judged.len() - copies < scoring::LEAST_EXAMPLES {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "the half of the labels that sets the thresholds is too small: {copies} copies and {} others; at \
                     least {} of each are needed",
                judged.len() - copies,
                scoring::LEAST_EXAMPLES
            ),
        )
        .hint("Give at least 20 copies and 20 others, of different references."));
    }
    let review = scoring::choose(&judged, review_precision, confidence);
    let mut copy = scoring::choose(&judged, copy_precision, confidence);
    if copy.probability < review.probability {
        copy = Threshold {
            held: copy.held,
            ..review
        };
    }
    let fitted_copies = fitting.iter().filter(|one| one.is_copy).count();
    Ok(json!({
        "intercept": fit.intercept,
        "similarity_weight": fit.similarity_weight,
        "background_weight": fit.background_weight,
        "reversed": fit.reversed,
        "copy_probability": copy.probability,
        "review_probability": review.probability,
        "copy_held": copy.held,
        "review_held": review.held,
        "evidence": {
            "fit_half": { "queries": fitting.len(), "copies": fitted_copies, "steps": fit.steps },
            "threshold_half": {
                "queries": judged.len(),
                "copies": copies,
                "unrelated": judged.len() - copies,
                "copy": tier(&copy, copies, confidence),
                "review": tier(&review, copies, confidence),
            },
            "reliability": diagram(&judged),
            "expected_calibration_error": scoring::expected_calibration_error(&judged),
            "curve": curve(&judged, copies)?,
        },
    }))
}

/// What comparing pictures was measured to hold: `counts` with the precision at the verdict copy, right of all, its
/// lower bound, and whether that is what was wanted. None where nothing was compared.
pub fn verified(counts: &Value, wanted: &Wanted) -> Option<Value> {
    let count = |name: &str| counts[name].as_u64().and_then(|count| usize::try_from(count).ok());
    let right = count("right")?;
    let all = right + count("wrong")? + count("strangers_wrong")?;
    let at_least = scoring::lower_bound(right, all, wanted.confidence);
    let mut verified = counts.clone();
    verified["precision"] = match all {
        0 => Value::Null,
        _ => json!(right as f64 / all as f64),
    };
    verified["precision_at_least"] = at_least.into();
    verified["held"] = (at_least >= wanted.copy_precision).into();
    Some(verified)
}

fn refused(error: &FitError) -> Failure {
    match error {
        FitError::TooFew { .. } => Failure::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the half of the labels that fits the curve is too small: {error}"),
        )
        .hint(
            "Give at least 20 copies and 20 others, of different references; about 600 copies promise a precision of \
               0.99.",
        ),
        FitError::Value { .. } => Failure::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, error.to_string())
            .hint("Take similarity and background as copy_match returns them."),
        _ => Failure::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, error.to_string())
            .hint("Look at the labels: similarity should be higher where is_copy is true."),
    }
}

/// The judged half under the fitted curve: the same arithmetic as `Calibration::probability`.
fn judge(examples: &[Example], fit: &scoring::Fit) -> Result<Vec<Judged>, Failure> {
    let calibration = scoring::Calibration::from_json(
        &json!({
            "clamp": [0.5, 0.5],
            "intercept": fit.intercept,
            "similarity_weight": fit.similarity_weight,
            "background_weight": fit.background_weight,
            "copy_probability": 1.0,
            "review_probability": 1.0,
        })
        .to_string(),
    )
    .map_err(|error| Failure::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, error.to_string()).hint(error.hint()))?;
    examples
        .iter()
        .map(|example| {
            let probability = calibration.probability(example.similarity, example.background);
            if probability.is_nan() {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
                    format!(
                        "similarity {} and background {} have no probability",
                        example.similarity, example.background
                    ),
                )
                .hint("Take similarity and background as copy_match returns them."));
            }
            Ok(Judged {
                probability,
                is_copy: example.is_copy,
            })
        })
        .collect()
}

fn tier(threshold: &Threshold, copies: usize, confidence: f64) -> Value {
    let Threshold {
        probability,
        accepted,
        correct,
        lower_bound,
        held,
    } = *threshold;
    let (low, high) = scoring::proportion_interval(correct, accepted, INTERVAL);
    json!({
        "probability": probability,
        "matches": accepted,
        "correct": correct,
        "precision": if accepted == 0 { Value::Null } else { json!(correct as f64 / accepted as f64) },
        "precision_interval": [low, high],
        "precision_at_least": lower_bound,
        "confidence": confidence,
        "held": held,
        "recall": correct as f64 / copies.max(1) as f64,
        "false_matches": accepted - correct,
    })
}

fn diagram(judged: &[Judged]) -> Vec<Value> {
    scoring::reliability(judged)
        .iter()
        .enumerate()
        .map(|(at, bin)| {
            json!({
                "probability": [at as f64 / 10.0, (at + 1) as f64 / 10.0],
                "queries": bin.matches,
                "copies": bin.copies,
            })
        })
        .collect()
}

fn curve(judged: &[Judged], copies: usize) -> Result<Vec<Value>, Failure> {
    let predictions: Vec<scoring::Prediction> = judged
        .iter()
        .map(|one| scoring::Prediction {
            score: one.probability,
            correct: one.is_copy,
        })
        .collect();
    let points = scoring::precision_recall(&predictions, copies)
        .map_err(|error| Failure::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, error.to_string()))?;
    let every = points.len().div_ceil(CURVE_POINTS).max(1);
    Ok(points
        .iter()
        .enumerate()
        .filter(|(at, _)| at % every == every - 1 || at + 1 == points.len())
        .map(|(_, point)| json!({"probability": point.threshold, "precision": point.precision, "recall": point.recall}))
        .collect())
}
