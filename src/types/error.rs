//! From the crate's errors to PostgreSQL's, by SQLSTATE.
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Raises `error` as an ERROR with its SQLSTATE, DETAIL and HINT.
#[cold]
#[inline(never)]
pub(crate) fn raise(error: vectors::Error) -> ! {
    let code = match error.sqlstate() {
        "08P01" => PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION,
        "22000" => PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
        "22003" => PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        "22P02" => PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
        "22P03" => PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION,
        "54000" => PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        "XX001" => PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        _ => PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
    };
    report(code, error.to_string(), error.detail(), error.hint())
}

/// Raises an ERROR that the crate does not know, because it comes from PostgreSQL's side of the call.
#[cold]
#[inline(never)]
pub(crate) fn report(code: PgSqlErrorCode, message: String, detail: Option<&str>, hint: Option<&str>) -> ! {
    let mut report = ErrorReport::new(code, message, "copymatch");
    if let Some(detail) = detail {
        report = report.set_detail(detail);
    }
    if let Some(hint) = hint {
        report = report.set_hint(hint);
    }
    report.report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// The value, or its error raised.
pub(crate) trait OrRaise<T> {
    fn or_raise(self) -> T;
}

impl<T> OrRaise<T> for Result<T, vectors::Error> {
    #[inline(always)]
    fn or_raise(self) -> T {
        match self {
            Ok(value) => value,
            Err(error) => raise(error),
        }
    }
}
