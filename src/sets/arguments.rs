//! Errors about what a function was called with.

use pgrx::prelude::*;

use crate::failure::Failure;

/// An argument that must not be NULL.
pub fn null(what: &str) -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
        format!("{what} is NULL"),
    )
    .hint("Give a value: only arguments whose default is NULL may be NULL.")
}

/// An argument with a value that it cannot have.
pub fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
}
