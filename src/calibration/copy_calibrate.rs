//! `copy_calibrate` and `copy_use_calibration`: pairs gathered with the right rights, fitted, and written down.

use pgrx::prelude::*;
use pgrx::{IntoDatum, JsonB};
use scoring::Pairs;
use serde_json::{Value, json};

use super::edited::{self, Sample};
use super::fit::{Wanted, fit_pairs, paired, verified};
use super::record::write_calibration;
use crate::failure::{Failure, boundary};
use crate::json::Json;
use crate::record::Record;
use crate::rights;
use crate::statements::{Parameter, change, select};

/// Judged pairs, with what a query's background is cut to where they say so.
struct Gathered {
    pairs: Pairs,
    clamp: Option<[f64; 2]>,
    evidence: Value,
}

/// Pairs that a function of this extension tells, which runs with the caller's rights: nobody hands in pairs that are
/// said to be something else than they are.
fn pairs_of(function: &str, parameters: &[Parameter]) -> Result<Gathered, Failure> {
    let sql = format!("SELECT p.similarity, p.background, p.is_copy, p.judged, p.evidence::text FROM {function} p");
    let mut gathered = change(&sql, parameters, |row| {
        let numbers = |column| Ok::<_, Failure>(row.get::<Vec<Option<f64>>>(column)?.unwrap_or_default());
        let answers = |column| Ok::<_, Failure>(row.get::<Vec<Option<bool>>>(column)?.unwrap_or_default());
        Ok(Gathered {
            pairs: paired(numbers(1)?, numbers(2)?, answers(3)?, answers(4)?),
            clamp: None,
            evidence: Json::parse(&row.required::<String>(5)?)?,
        })
    })?;
    gathered.pop().ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("{function} returned no row"),
        )
    })
}

/// The pairs of a source of that name.
fn gather(
    kind: &str,
    reference_set: &str,
    relation: pg_sys::Oid,
    labels: Option<pg_sys::Oid>,
    sample: &Sample,
) -> Result<Gathered, Failure> {
    let set = || Parameter::of(reference_set);
    match (kind, labels) {
        ("labels", labels) => pairs_of(
            "copymatch.labelled_pairs($1, $2::regclass)",
            &[set(), Parameter::of(labels)],
        ),
        ("findings", None) => pairs_of("copymatch.reviewed_pairs($1)", &[set()]),
        // Edits are made of the set alone, whose relation may be a view, or have policies: code of its owner's.
        ("edits", None) => rights::as_role(rights::owner_of(relation)?, || {
            let (pairs, clamp, evidence) = edited::gather(reference_set, sample)?;
            Ok(Gathered {
                pairs,
                clamp: Some(clamp),
                evidence,
            })
        }),
        ("findings" | "edits", Some(_)) => Err(invalid(format!("labels do not go with source \"{kind}\""))),
        _ => Err(invalid(format!("source is \"{kind}\"")).hint("It is labels, findings or edits.")),
    }
}

fn invalid(message: String) -> Failure {
    Failure::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
}

/// A set as the calibration finds it, and finds again before it writes.
#[derive(PartialEq)]
pub(super) struct Calibrated {
    pub relation: pg_sys::Oid,
    model: String,
    calibration: i64,
}

/// The set, where the caller owns its relation.
pub(super) fn owned(reference_set: &str, user: pg_sys::Oid, lock: &str) -> Result<Calibrated, Failure> {
    let sql = format!(
        "SELECT s.relation::oid, s.model, s.calibration,
                EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = s.relation::oid
         AND pg_catalog.pg_has_role($2, c.relowner, 'USAGE'))
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

/// Gathers the pairs with the caller's rights, fits, and writes the record with the extension owner's: what it says of
/// itself is what was measured here.
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
        let sample = Sample {
            copies,
            unrelated,
            duplicate_similarity,
            seed,
        };
        let Gathered {
            pairs,
            clamp,
            mut evidence,
        } = gather(kind, reference_set, before.relation, labels, &sample)?;
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
            if let Some(clamp) = clamp {
                record["clamp"] = json!(clamp);
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

/// What a set's calibration takes over from the one before: model, background, how it is stretched, and how the
/// evidence of verification is weighed (where that one is of a time before it, as the model's own does).
fn model_of(calibration: i64) -> Result<Value, Failure> {
    let found = select(
        "SELECT (pg_catalog.jsonb_build_object('model', c.model, 'background_sha256',
                     pg_catalog.encode(c.background_sha256, 'hex'),
                     'neighbours', c.neighbours, 'factor', c.factor, 'clamp', ARRAY[c.clamp_low, c.clamp_high])
                 || coalesce(c.weights, (SELECT o.weights FROM copymatch.calibration o
                                         WHERE o.model = c.model AND o.background_sha256 = c.background_sha256
                                         AND o.reference_set IS NULL
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
                 WHERE s.name = $1 AND c.id = $2 AND c.model = s.model AND (c.reference_set IS NULL
                 OR c.reference_set = s.name)
                 RETURNING s.calibration",
                &[Parameter::of(reference_set), Parameter::of(id)],
                |row| row.required::<i64>(1),
            )?;
            Ok(!switched.is_empty())
        })
    })
}
