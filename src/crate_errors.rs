//! From a crate's error to PostgreSQL's.

use encoder::EncoderError;
use imaging::ImageError;
use pgrx::prelude::*;

use crate::failure::Failure;

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let code = match &error {
            ImageError::Cancelled => return Failure::stopped(error.to_string()).hint(error.hint()),
            ImageError::TooManyBytes { .. } | ImageError::TooManyPixels { .. } | ImageError::TooMuchMemory { .. } => {
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED
            }
            ImageError::OutOfMemory { .. } => PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
            ImageError::Unsupported { .. } => PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            _ => PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION,
        };
        let setting = match &error {
            ImageError::TooManyBytes { .. } => Some("copymatch.max_image_bytes"),
            ImageError::TooManyPixels { .. } => Some("copymatch.max_image_megapixels"),
            ImageError::TooMuchMemory { .. } => Some("copymatch.max_image_memory"),
            _ => None,
        };
        let failure = Failure::new(code, error.to_string()).hint(error.hint());
        match setting {
            Some(setting) => failure.hint_also(&format!("The limit is the setting {setting}.")),
            None => failure,
        }
    }
}

impl From<EncoderError> for Failure {
    fn from(error: EncoderError) -> Self {
        let hint = error.hint().to_string();
        match error {
            EncoderError::Cancelled => Failure::stopped(error.to_string()),
            EncoderError::Image(error) => return Failure::from(error),
            EncoderError::OutOfMemory { .. } | EncoderError::NotRestartable => {
                memory::recovered();
                Failure::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, error.to_string())
            }
            _ => Failure::new(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, error.to_string()),
        }
        .hint(hint)
    }
}
