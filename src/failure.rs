//! An error on its way to the user: SQLSTATE, message, detail and hint; and the boundary that every SQL function runs
//! in. From a crate's error to this one: `crate_errors.rs`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::{context, pending};

/// An error names what the caller gave, however long that was: bytes of it that are shown.
const MOST_OF_A_MESSAGE: usize = 600;
const MOST_OF_A_HINT: usize = 2000;

/// Cuts what is longer off, between characters.
fn shorten(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
}

/// An error on its way to the user.
#[derive(Debug)]
pub struct Failure {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Failure {
    /// An error with a SQLSTATE and a message that names the cause.
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Failure {
            code,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// What the user can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into()).filter(|hint: &String| !hint.is_empty());
        self
    }

    /// As [`Failure::hint`], behind the hint that is there.
    pub fn hint_also(self, more: &str) -> Self {
        let hint = match &self.hint {
            Some(hint) => format!("{hint} {more}"),
            None => more.to_owned(),
        };
        self.hint(hint)
    }

    /// More about the cause.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into()).filter(|detail: &String| !detail.is_empty());
        self
    }

    /// Says where the failure happened: `image 3: …`.
    pub fn at(mut self, place: impl std::fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The SQLSTATE.
    pub fn code(&self) -> PgSqlErrorCode {
        self.code
    }

    /// Message, detail and hint in one line, for a record.
    pub fn line(&self) -> String {
        let mut line = self.message.clone();
        for more in [&self.detail, &self.hint].into_iter().flatten() {
            line.push_str(" — ");
            line.push_str(more);
        }
        line
    }

    /// Whether the statement was cancelled, which is never turned into a warning.
    pub fn is_cancel(&self) -> bool {
        self.code == PgSqlErrorCode::ERRCODE_QUERY_CANCELED
    }

    /// The reason alone: what stands in a column that says why not.
    pub fn reason(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{}: {detail}", self.message),
            None => self.message.clone(),
        }
    }

    /// Whether the image itself, not the set-up, is the cause.
    pub fn is_about_the_image(&self) -> bool {
        matches!(
            self.code,
            PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION
                | PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED
                | PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED
                | PgSqlErrorCode::ERRCODE_DATA_EXCEPTION
        )
    }

    /// Reports at ERROR; does not return.
    pub fn raise(mut self) -> ! {
        if self.is_cancel() {
            // PostgreSQL knows why (user request, statement_timeout, a standby's conflict) and says so.
            pending::process();
        }
        shorten(&mut self.message, MOST_OF_A_MESSAGE);
        for more in [&mut self.detail, &mut self.hint].into_iter().flatten() {
            shorten(more, MOST_OF_A_HINT);
        }
        let mut report = ErrorReport::new(self.code, self.message, "copymatch");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        context::without_ours();
        report.report(PgLogLevel::ERROR);
        unreachable!("ereport(ERROR) does not return")
    }

    /// Reports at WARNING and goes on.
    pub fn warn(self) {
        self.tell(PgSqlErrorCode::ERRCODE_WARNING, PgLogLevel::WARNING);
    }

    /// Reports at NOTICE and goes on.
    pub fn notice(self) {
        self.tell(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, PgLogLevel::NOTICE);
    }

    /// Tells the server's log alone, and goes on.
    pub fn log(self) {
        self.tell(PgSqlErrorCode::ERRCODE_WARNING, PgLogLevel::LOG_SERVER_ONLY);
    }

    fn tell(self, code: PgSqlErrorCode, level: PgLogLevel) {
        let mut report = ErrorReport::new(code, self.message, "copymatch");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        report.report(level);
    }
}

/// Runs the body of an SQL function: its `Failure` becomes an ERROR with SQLSTATE and hint, and a panic (a
/// fault of ours) becomes an ERROR that does not show its text, which goes to the server's log. PostgreSQL's
/// own errors pass unchanged.
pub fn boundary<T>(body: impl FnOnce() -> Result<T, Failure>) -> T {
    memory::forget_refused();
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(failure)) => failure.raise(),
        Err(payload) => match panic_text(payload.as_ref()) {
            None => {
                // It is reported once more on its way, with the lines of whoever called.
                context::without_ours();
                resume_unwind(payload)
            }
            Some(text) => {
                pgrx::log!("copymatch: panic: {text}");
                Failure::new(
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    "copymatch met an internal error",
                )
                .hint("The cause is in the server log. Please report it with the statement that led to it.")
                .raise()
            }
        },
    }
}

/// What PL/pgSQL functions of ours raise: RAISE EXCEPTION would tell the user their names and line numbers.
#[pg_extern(sql = false)]
fn refuse(code: Option<&str>, message: Option<&str>, hint: Option<&str>) {
    boundary(|| -> Result<(), Failure> {
        let code = code.map_or(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, |code| {
            sqlstate(code).unwrap_or(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE)
        });
        Err(Failure::new(code, message.unwrap_or("NULL")).hint(hint.unwrap_or_default()))
    })
}

/// A code of five characters; None for one that PostgreSQL does not know, and for its code of internal errors.
pub fn sqlstate(text: &str) -> Option<PgSqlErrorCode> {
    let packed = text.bytes().take(5).enumerate().fold(0, |packed, (at, byte)| {
        packed | ((i32::from(byte) - i32::from(b'0')) & 0x3F) << (6 * at)
    });
    match PgSqlErrorCode::from(packed) {
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR => None,
        code => Some(code),
    }
}

/// The text of a Rust panic; none for the payloads in which pgrx carries PostgreSQL's own errors.
fn panic_text(payload: &(dyn Any + Send)) -> Option<String> {
    payload
        .downcast_ref::<&'static str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
}
