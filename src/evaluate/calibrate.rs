//! What `copy_calibrate` computes: the fit, the thresholds and their evidence; intervals; the background as queries.

use pgrx::prelude::*;
use pgrx::{Array, IntoDatum, JsonB};
use scoring::{Example, FitError, Judged, Threshold};
use serde_json::{Value, json};

use super::record::write_calibration;
use crate::embed::catalogue::Model;
use crate::embed::with_background;
use crate::failure::{Failure, boundary};
use crate::interrupts;
use crate::json::Json;
use crate::record::Record;
use crate::rights;
use crate::select::{Parameter, change, select};
use crate::types::Vector;

/// Points of the curve that the evidence keeps.
const CURVE_POINTS: usize = 50;

/// Bytes that a pair takes while a calibration is made: it is kept, judged, and sorted for the thresholds and the curve.
const PAIR_BYTES: usize = 3 * (size_of::<Example>() + 2 * size_of::<Judged>());

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

/// Judged pairs: the half that fits the curve, and the one that sets the thresholds.
#[derive(Default)]
struct Pairs {
    fitting: Vec<Example>,
    judging: Vec<Example>,
}

impl Pairs {
    /// Out of arrays of one length; a pair with a NULL is none.
    fn gather(
        similarity: impl IntoIterator<Item = Option<f64>>,
        background: impl IntoIterator<Item = Option<f64>>,
        is_copy: impl IntoIterator<Item = Option<bool>>,
        judged: impl IntoIterator<Item = Option<bool>>,
    ) -> Self {
        let mut pairs = Pairs::default();
        for (((similarity, background), is_copy), judged) in
            similarity.into_iter().zip(background).zip(is_copy).zip(judged)
        {
            let (Some(similarity), Some(background), Some(is_copy), Some(judged)) =
                (similarity, background, is_copy, judged)
            else {
                continue;
            };
            let half = if judged { &mut pairs.judging } else { &mut pairs.fitting };
            half.push(Example {
                similarity,
                background,
                is_copy,
            });
        }
        pairs
    }
}

/// What is asked of the verdicts.
struct Wanted {
    copy_precision: f64,
    review_precision: f64,
    confidence: f64,
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
        let pairs = Pairs::gather(similarity.iter(), background.iter(), is_copy.iter(), judged.iter());
        let wanted = Wanted {
            copy_precision,
            review_precision,
            confidence,
        };
        fit_pairs(&pairs, &wanted).map(JsonB)
    })
}

/// Fit, thresholds and their evidence.
fn fit_pairs(pairs: &Pairs, wanted: &Wanted) -> Result<Value, Failure> {
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

/// What comparing pictures was measured to hold: `counts` with the precision at the verdict copy, right of all, its lower bound, and whether
/// that is what was wanted. None where nothing was compared.
fn verified(counts: &Value, wanted: &Wanted) -> Option<Value> {
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

/// Where judged pairs come from. Each is a function of this extension that runs with the caller's rights: nobody hands in pairs
/// that are said to be something else than they are.
fn source(name: &str) -> Result<&'static str, Failure> {
    Ok(match name {
        "labels" => {
            "SELECT p.similarity, p.background, p.is_copy, p.judged, NULL::double precision[], p.evidence::text
             FROM copymatch.labelled_pairs($1, $2::regclass) p WHERE $3 IS NOT NULL AND $4 IS NOT NULL AND $5 IS NOT NULL AND $6 IS NOT NULL"
        }
        "findings" => {
            "SELECT p.similarity, p.background, p.is_copy, p.judged, NULL::double precision[], p.evidence::text
             FROM copymatch.reviewed_pairs($1) p
             WHERE $2 IS NULL AND $3 IS NOT NULL AND $4 IS NOT NULL AND $5 IS NOT NULL AND $6 IS NOT NULL"
        }
        "edits" => {
            "SELECT p.similarity, p.background, p.is_copy, p.judged, p.clamp, p.evidence::text
             FROM copymatch.edited_pairs($1, $3, $4, $5, $6) p WHERE $2 IS NULL"
        }
        _ => {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("source is \"{name}\""),
            )
            .hint("It is labels, findings or edits."));
        }
    })
}

/// A set as the calibration finds it, and finds again before it writes.
#[derive(PartialEq)]
struct Calibrated {
    relation: pg_sys::Oid,
    model: String,
    calibration: i64,
}

/// The set, where the caller owns its relation.
fn owned(reference_set: &str, user: pg_sys::Oid, lock: &str) -> Result<Calibrated, Failure> {
    let sql = format!(
        "SELECT s.relation::oid, s.model, s.calibration,
                EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.relation::oid AND pg_catalog.pg_has_role($2, c.relowner, 'USAGE'))
         FROM copymatch.reference_set s WHERE s.name = $1 {lock}"
    );
    let found = change(&sql, &[Parameter::of(reference_set), Parameter::of(user)], |row| {
        Ok((
            Calibrated {
                relation: row.required(1)?,
                model: row.required(2)?,
                calibration: row.required(3)?,
            },
            row.required::<bool>(4)?,
        ))
    })?;
    match found.into_iter().next() {
        None => Err(Failure::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("reference set \"{reference_set}\" does not exist"),
        )
        .hint("SELECT name FROM copymatch.reference_set lists them.")),
        Some((_, false)) => Err(Failure::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("must own the relation of reference set \"{reference_set}\""),
        )
        .hint("Ask its owner: a set's calibration decides every verdict on it.")),
        Some((set, true)) => Ok(set),
    }
}

/// Gathers the pairs with the caller's rights, fits, and writes the record with the extension owner's: what it says of itself is
/// what was measured here.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn record_calibration(
    reference_set: Option<&str>,
    kind: Option<&str>,
    labels: Option<pg_sys::Oid>,
    copy_precision: Option<f64>,
    review_precision: Option<f64>,
    confidence: Option<f64>,
    copies: Option<i32>,
    unrelated: Option<i32>,
    duplicate_similarity: Option<f64>,
    seed: Option<i64>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Record {
    boundary(|| {
        let (
            Some(reference_set),
            Some(kind),
            Some(copy_precision),
            Some(review_precision),
            Some(confidence),
            Some(copies),
            Some(unrelated),
            Some(duplicate_similarity),
            Some(seed),
        ) = (
            reference_set,
            kind,
            copy_precision,
            review_precision,
            confidence,
            copies,
            unrelated,
            duplicate_similarity,
            seed,
        )
        else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "an argument of record_calibration is NULL",
            )
            .hint("Only labels may be NULL."));
        };
        // SAFETY: reads a variable of this backend.
        let user = unsafe { pg_sys::GetUserId() };
        let name = rights::current_user()?;
        let before = owned(reference_set, user, "")?;
        let wanted = Wanted {
            copy_precision,
            review_precision,
            confidence,
        };
        let parameters = [
            Parameter::of(reference_set),
            Parameter::of(labels),
            Parameter::of(copies),
            Parameter::of(unrelated),
            Parameter::of(duplicate_similarity),
            Parameter::of(seed),
        ];
        let gather = || {
            change(source(kind)?, &parameters, |row| {
                let numbers = |column| Ok::<_, Failure>(row.get::<Vec<Option<f64>>>(column)?.unwrap_or_default());
                let answers = |column| Ok::<_, Failure>(row.get::<Vec<Option<bool>>>(column)?.unwrap_or_default());
                let pairs = Pairs::gather(numbers(1)?, numbers(2)?, answers(3)?, answers(4)?);
                let clamp: Vec<Option<f64>> = numbers(5)?;
                Ok((pairs, clamp, Json::parse(&row.required::<String>(6)?)?))
            })
        };
        // Edits are made of the set alone, whose relation may be a view, or have policies: code of its owner's.
        let gathered = if kind == "edits" {
            rights::as_role(rights::owner_of(before.relation)?, gather)?
        } else {
            gather()?
        };
        let Some((pairs, clamp, mut evidence)) = gathered.into_iter().next() else {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("labels do not go with source \"{kind}\""),
            ));
        };
        let mut fitted = fit_pairs(&pairs, &wanted)?;
        if let Some(verified) = verified(&evidence["verified"], &wanted) {
            fitted["verified_held"] = verified["held"].clone();
            fitted["verified"] = verified.clone();
            evidence["verified"] = verified;
        }
        if let (Some(all), Some(more)) = (evidence.as_object_mut(), fitted["evidence"].as_object()) {
            all.extend(more.clone());
        }
        let id = rights::as_extension_owner(|| {
            // One writer a set, so that versions do not collide.
            if owned(reference_set, user, "FOR UPDATE OF s")? != before {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
                    format!("reference set \"{reference_set}\" was changed while it was calibrated"),
                )
                .hint("Calibrate it again."));
            }
            let mut record = model_of(before.calibration)?;
            if let [Some(low), Some(high)] = clamp[..] {
                record["clamp"] = json!([low, high]);
            }
            for field in [
                "intercept",
                "similarity_weight",
                "background_weight",
                "copy_probability",
                "review_probability",
            ] {
                record[field] = fitted[field].clone();
            }
            record["evidence"] = evidence;
            record["reference_set"] = reference_set.into();
            record["source"] = kind.into();
            record["copy_precision"] = copy_precision.into();
            record["review_precision"] = review_precision.into();
            record["confidence"] = confidence.into();
            record["created_by"] = name.as_str().into();
            write_calibration(&record)
        })?;
        Record::form(fcinfo, vec![id.into_datum(), JsonB(fitted).into_datum()])
    })
}

/// What a set's calibration takes over from the one before: model, background, how it is stretched, and how the evidence of
/// verification is weighed (where that one is of a time before it, as the model's own does).
fn model_of(calibration: i64) -> Result<Value, Failure> {
    let found = select(
        "SELECT (pg_catalog.jsonb_build_object('model', c.model, 'background_sha256', pg_catalog.encode(c.background_sha256, 'hex'),
                     'neighbours', c.neighbours, 'factor', c.factor, 'clamp', ARRAY[c.clamp_low, c.clamp_high])
                 || coalesce(c.weights, (SELECT o.weights FROM copymatch.calibration o
                                         WHERE o.model = c.model AND o.background_sha256 = c.background_sha256 AND o.reference_set IS NULL
                                         ORDER BY o.id DESC LIMIT 1), '{}'))::text
         FROM copymatch.calibration c WHERE c.id = $1",
        &[Parameter::of(calibration)],
        |row| row.required::<String>(1),
    )?;
    found
        .first()
        .map(|text| Json::parse(text))
        .transpose()?
        .ok_or_else(|| calibration_is_gone(calibration))
}

fn calibration_is_gone(id: i64) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("calibration {id} does not exist"),
    )
}

/// Descriptors of the references with these keys, read with the rights of the owner of the set's relation.
#[pg_extern(sql = false)]
fn labelled_references(
    reference_set: &str,
    keys: Vec<Option<String>>,
) -> TableIterator<'static, (name!(reference, String), name!(descriptor, Vector))> {
    boundary(|| {
        // SAFETY: reads a variable of this backend.
        let user = unsafe { pg_sys::GetUserId() };
        let set = owned(reference_set, user, "")?;
        let query = select(
            "SELECT copymatch.reference_query($1)",
            &[Parameter::of(reference_set)],
            |row| row.required::<String>(1),
        )?
        .pop()
        .unwrap_or_default();
        let sql = format!(
            "SELECT r.reference, r.descriptor FROM ({query}) r WHERE r.descriptor IS NOT NULL AND r.reference = ANY ($1)"
        );
        let found = rights::as_role(rights::owner_of(set.relation)?, || {
            change(&sql, &[Parameter::of(keys)], |row| {
                // Copied: the row's memory is SPI's.
                Ok((
                    row.required::<String>(1)?,
                    row.required::<Vector>(2)?.elements().to_vec(),
                ))
            })
        })?;
        Ok(TableIterator::new(found.into_iter().map(|(reference, descriptor)| {
            (reference, Vector::from_elements(&descriptor))
        })))
    })
}

/// Switches a set that the caller owns to one of its own calibrations or its model's.
#[pg_extern(sql = false)]
fn use_calibration(reference_set: &str, id: i64) -> bool {
    boundary(|| {
        // SAFETY: reads a variable of this backend.
        let user = unsafe { pg_sys::GetUserId() };
        rights::as_extension_owner(|| {
            owned(reference_set, user, "FOR UPDATE OF s")?;
            let switched = change(
                "UPDATE copymatch.reference_set s SET calibration = c.id FROM copymatch.calibration c
                 WHERE s.name = $1 AND c.id = $2 AND c.model = s.model AND (c.reference_set IS NULL OR c.reference_set = s.name)
                 RETURNING s.calibration",
                &[Parameter::of(reference_set), Parameter::of(id)],
                |row| row.required::<i64>(1),
            )?;
            Ok(!switched.is_empty())
        })
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
                interrupts::process();
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
