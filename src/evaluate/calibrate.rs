//! What `copy_calibrate` computes: the fit, the thresholds and their evidence; intervals; the background as queries.

use pgrx::prelude::*;
use pgrx::{Array, IntoDatum, JsonB};
use scoring::{Example, FitError, Judged, Threshold};
use serde_json::{Value, json};

use crate::embed::catalogue::Model;
use crate::embed::with_background;
use crate::failure::{Failure, boundary};
use crate::record::Record;
use crate::types::Vector;

/// Points of the curve that the evidence keeps.
const CURVE_POINTS: usize = 50;

/// Confidence of the intervals in the evidence, two-sided.
const INTERVAL: f64 = 0.95;

fn refused(error: &FitError) -> Failure {
    match error {
        FitError::TooFew { .. } => Failure::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the half of the labels that fits the curve is too small: {error}"),
        )
        .hint("Give at least 20 copies and 20 others, of different references; about 600 copies promise a precision of 0.99."),
        FitError::Value { .. } => Failure::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, error.to_string())
            .hint("Take similarity and background as copy_match returns them."),
        _ => Failure::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, error.to_string())
            .hint("Look at the labels: similarity should be higher where is_copy is true."),
    }
}

fn share_of_one(name: &str, value: f64) -> Result<f64, Failure> {
    if value > 0.0 && value < 1.0 {
        return Ok(value);
    }
    Err(Failure::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("{name} is {value}"),
    )
    .hint("It must be above 0 and below 1."))
}

/// Fit and thresholds. `judged` says of each pair whether it is of the half that sets the thresholds, not of the one that
/// fits the curve.
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
        let (mut fitting, mut judging) = (Vec::new(), Vec::new());
        for (((similarity, background), is_copy), judged) in similarity
            .iter()
            .zip(background.iter())
            .zip(is_copy.iter())
            .zip(judged.iter())
        {
            let (Some(similarity), Some(background), Some(is_copy), Some(judged)) =
                (similarity, background, is_copy, judged)
            else {
                continue;
            };
            if judged { &mut judging } else { &mut fitting }.push(Example {
                similarity,
                background,
                is_copy,
            });
        }
        let fit = scoring::fit(&fitting).map_err(|error| refused(&error))?;
        let judged = judge(&judging, &fit)?;
        let copies = judged.iter().filter(|one| one.is_copy).count();
        if copies < scoring::LEAST_EXAMPLES || judged.len() - copies < scoring::LEAST_EXAMPLES {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "the half of the labels that sets the thresholds is too small: {copies} copies and {} others; at least {} of each are needed",
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
        Ok(JsonB(json!({
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
        })))
    })
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

#[pg_extern(sql = false)]
fn proportion_interval(correct: i64, total: i64, confidence: f64, fcinfo: pg_sys::FunctionCallInfo) -> Record {
    boundary(|| {
        share_of_one("confidence", confidence)?;
        let (Ok(hits), Ok(cases)) = (usize::try_from(correct), usize::try_from(total)) else {
            return Err(counts(correct, total));
        };
        if hits > cases {
            return Err(counts(correct, total));
        }
        let (low, high) = scoring::proportion_interval(hits, cases, confidence);
        Record::form(fcinfo, vec![low.into_datum(), high.into_datum()])
    })
}

fn counts(correct: i64, total: i64) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("{correct} of {total} is no proportion"),
    )
    .hint("correct lies between 0 and total.")
}

#[pg_extern(sql = false)]
fn labels_needed(precision: f64, confidence: f64) -> i64 {
    boundary(|| {
        share_of_one("precision", precision)?;
        share_of_one("confidence", confidence)?;
        let needed = scoring::needed_without_error(precision, confidence);
        Ok(i64::try_from(needed).unwrap_or(i64::MAX))
    })
}

#[pg_extern(sql = false)]
fn background_of(descriptor: Vector, model: &str, neighbours: i32) -> f64 {
    boundary(|| {
        let model = Model::find(Some(model))?;
        let neighbours = usize::try_from(neighbours).unwrap_or(0);
        with_background(&model, |background| {
            background
                .mean_top_k(descriptor.elements(), neighbours)
                .map(f64::from)
                .map_err(|error| {
                    Failure::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, error.to_string()).hint(error.hint())
                })
        })
    })
}

/// A seeded sample of the model's background descriptors, each with its similarity to the others: pictures that are copies
/// of nothing.
#[pg_extern(sql = false)]
fn background_sample(
    model: &str,
    neighbours: i32,
    count: i32,
    seed: i64,
) -> TableIterator<'static, (name!(descriptor, Vector), name!(background, f64))> {
    boundary(|| {
        let model = Model::find(Some(model))?;
        let neighbours = usize::try_from(neighbours).unwrap_or(0);
        let count = usize::try_from(count).unwrap_or(0);
        let sample = with_background(&model, |background| {
            let mut sample = Vec::new();
            for row in drawn(background.rows(), count, seed.cast_unsigned()) {
                pgrx::check_for_interrupts!();
                let similarity = background.mean_top_k_of_row(row, neighbours).map_err(|error| {
                    Failure::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, error.to_string()).hint(error.hint())
                })?;
                sample.push((background.row(row), f64::from(similarity)));
            }
            Ok(sample)
        })?;
        Ok(TableIterator::new(sample.into_iter().map(
            |(descriptor, similarity)| (Vector::from_elements(&descriptor), similarity),
        )))
    })
}

/// `count` different numbers below `rows`, or all of them: the first of a seeded shuffle (SplitMix64).
fn drawn(rows: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut all: Vec<usize> = (0..rows).collect();
    let mut state = seed;
    let taken = count.min(rows);
    for at in 0..taken {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^= word >> 31;
        let left = (rows - at) as u64;
        all.swap(at, at + usize::try_from(word % left).unwrap_or(0));
    }
    all.truncate(taken);
    all
}
