//! The one writer of `copymatch.calibration`.

use pgrx::prelude::*;
use serde_json::Value;

use crate::failure::Failure;
use crate::statements::{Parameter, change};

/// Writes a calibration, with the rights that the caller runs it with, and returns its id. `record` has the table's
/// columns as fields, the background's hash in hexadecimal and both clamps in an array; the version follows from those
/// of the set that it is for.
pub fn write_calibration(record: &Value) -> Result<i64, Failure> {
    change(
        "INSERT INTO copymatch.calibration (model, background_sha256, neighbours, factor, clamp_low, clamp_high,
             intercept, similarity_weight, background_weight, copy_probability, review_probability, evidence,
             reference_set, version, source, copy_precision, review_precision, confidence, created_by, weights)
         SELECT c.model, pg_catalog.decode(c.background_sha256, 'hex'), coalesce(c.neighbours, 5),
                coalesce(c.factor, 2.5), c.clamp[1], c.clamp[2], c.intercept, c.similarity_weight,
                c.background_weight, c.copy_probability, c.review_probability, c.evidence, c.reference_set,
                CASE WHEN c.reference_set IS NOT NULL THEN
                    1 + coalesce((SELECT pg_catalog.max(o.version) FROM copymatch.calibration o
                                  WHERE o.reference_set = c.reference_set), 0) END,
                coalesce(c.source, 'model'), coalesce(c.copy_precision, 0.99), coalesce(c.review_precision, 0.90),
                c.confidence, c.created_by, copymatch.calibration_weights($1::pg_catalog.jsonb)
         FROM pg_catalog.jsonb_to_record($1::pg_catalog.jsonb) AS c(model text, background_sha256 text,
             neighbours integer, factor double precision, clamp double precision[], intercept double precision,
             similarity_weight double precision, background_weight double precision,
             copy_probability double precision, review_probability double precision, evidence jsonb,
             reference_set text, source text, copy_precision double precision, review_precision double precision,
             confidence double precision, created_by name)
         RETURNING id",
        &[Parameter::of(record.to_string())],
        |row| row.required::<i64>(1),
    )?
    .pop()
    .ok_or_else(|| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "the calibration was not written",
        )
    })
}
