//! The parts of a model as somebody gave them: read, or an error that says what is wrong with them.

use encoder::Manifest;
use pgrx::prelude::*;
use scoring::{Background, BackgroundError, Calibration};

use crate::failure::Failure;

/// Parses a manifest; the error names the field.
pub fn parse_manifest(text: &str) -> Result<Manifest, Failure> {
    Manifest::from_json(text).map_err(|error| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("the model's manifest is not valid: {error}"),
        )
        .hint(error.hint())
    })
}

/// Parses background descriptors; the error says what is wrong with them.
pub fn parse_background(bytes: &[u8]) -> Result<Background, Failure> {
    memory::ensure(bytes.len())?;
    Background::parse(bytes).map_err(invalid_background)
}

/// The failure that background descriptors are.
pub fn invalid_background(error: BackgroundError) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("the background descriptors are not valid: {error}"),
    )
    .hint(error.hint())
}

/// Checks a calibration as models bring it: the record, and beside it the evidence, whose form is free.
pub fn check_calibration(calibration: &serde_json::Value) -> Result<Calibration, Failure> {
    let mut record = calibration.clone();
    if let Some(fields) = record.as_object_mut() {
        fields.remove("evidence");
    }
    Calibration::from_json(&record.to_string()).map_err(|error| {
        Failure::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("the calibration is not valid: {error}"),
        )
        .hint(error.hint())
    })
}
