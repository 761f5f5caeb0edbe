//! Errors that come from a shard: which one it was, and whether it is down.

use std::cell::RefCell;
use std::ffi::CStr;
use std::panic::AssertUnwindSafe;

use pgrx::PgTryBuilder;
use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::prelude::*;

use super::libpq::Trouble;
use crate::failure::{Failure, sqlstate};
use crate::flagging::Ended;

thread_local! {
    /// CONTEXT of the last ERROR, as far as it came before this backend's own lines: the statement that a shard
    /// refused.
    static CONTEXT: RefCell<String> = RefCell::default();
}

/// Runs `work`, which asks shards of `set`; an error from one names it.
pub fn naming<T>(set: &str, servers: &[&str], work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    listening(|| {
        let mut work = Some(work);
        PgTryBuilder::new(AssertUnwindSafe(|| match work.take() {
            Some(work) => work(),
            None => Err(Failure::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "work ran twice")),
        }))
        .catch_others(|error| match report_of(&error) {
            Some(report) => Err(told_by(report, set, servers)),
            None => error.rethrow(),
        })
        .execute()
    })
}

/// Runs `work`; of an ERROR in it, what `shard_failure` says of the shard is kept.
pub fn listening<T>(work: impl FnOnce() -> T) -> T {
    let mut callback = pg_sys::ErrorContextCallback {
        previous: std::ptr::null_mut(),
        callback: Some(keep_context),
        arg: std::ptr::null_mut(),
    };
    /// Takes the callback off the stack, also where a panic unwinds.
    struct Listening(*mut pg_sys::ErrorContextCallback);
    impl Drop for Listening {
        fn drop(&mut self) {
            // SAFETY: this process's stack of callbacks, as it was.
            unsafe { pg_sys::error_context_stack = self.0 };
        }
    }
    CONTEXT.with_borrow_mut(String::clear);
    // SAFETY: the callback outlives the work; the stack is put back when `_listening` goes.
    let _listening = unsafe {
        let before = pg_sys::error_context_stack;
        callback.previous = before;
        pg_sys::error_context_stack = &raw mut callback;
        Listening(before)
    };
    work()
}

unsafe extern "C-unwind" fn keep_context(_: *mut std::ffi::c_void) {
    // SAFETY: called while an error is being reported, in PostgreSQL's own context for it, where nothing may be copied
    // to.
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let error = pg_sys::CopyErrorData();
        if (*error).elevel >= PgLogLevel::ERROR as i32 && !(*error).context.is_null() {
            CONTEXT.replace(CStr::from_ptr((*error).context).to_string_lossy().into_owned());
        }
        pg_sys::FreeErrorData(error);
        pg_sys::MemoryContextSwitchTo(before);
    }
}

/// The error, where it came from a shard by way of postgres_fdw.
fn report_of(error: &CaughtError) -> Option<&ErrorReportWithLevel> {
    let CaughtError::PostgresError(report) = error else {
        return None;
    };
    let name = report.function_name().unwrap_or_default();
    (name.starts_with("pgfdw_") || name == "connect_pg_server").then_some(report)
}

/// The error, where a subtransaction ended because a shard does not answer: it cannot be reached, goes down, or took
/// too long.
pub fn is_down(ended: &Ended) -> Option<(PgSqlErrorCode, String)> {
    let Ended::Raised(error) = ended else { return None };
    let report = report_of(error)?;
    let code = report.sql_error_code();
    is_about_down(code).then(|| (code, RemoteError::from(report).line()))
}

/// Whether a shard's error says that it does not answer.
pub fn is_about_down(code: PgSqlErrorCode) -> bool {
    use PgSqlErrorCode as E;
    is_lost(code) || matches!(code, E::ERRCODE_QUERY_CANCELED | E::ERRCODE_LOCK_NOT_AVAILABLE)
}

/// Whether the connection is gone, or none could be had.
pub fn is_lost(code: PgSqlErrorCode) -> bool {
    use PgSqlErrorCode as E;
    matches!(
        code,
        E::ERRCODE_CONNECTION_EXCEPTION
            | E::ERRCODE_CONNECTION_DOES_NOT_EXIST
            | E::ERRCODE_CONNECTION_FAILURE
            | E::ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION
            | E::ERRCODE_SQLSERVER_REJECTED_ESTABLISHMENT_OF_SQLCONNECTION
            | E::ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN
            | E::ERRCODE_PROTOCOL_VIOLATION
            | E::ERRCODE_ADMIN_SHUTDOWN
            | E::ERRCODE_CRASH_SHUTDOWN
            | E::ERRCODE_CANNOT_CONNECT_NOW
            | E::ERRCODE_DATABASE_DROPPED
            | E::ERRCODE_TOO_MANY_CONNECTIONS
    )
}

/// SQLSTATE and message of an error that a shard gave.
pub fn from_shard(ended: &Ended) -> Option<(PgSqlErrorCode, String)> {
    let Ended::Raised(error) = ended else { return None };
    report_of(error).map(|report| (report.sql_error_code(), report.message().to_owned()))
}

/// Whether postgres_fdw keeps a lost connection: one that the transaction had in use, which then cannot be committed.
pub fn is_stuck(ended: &Ended) -> bool {
    let Ended::Raised(error) = ended else { return false };
    report_of(error).is_some_and(|report| report.function_name() == Some("pgfdw_reject_incomplete_xact_state_change"))
}

/// The error that ended a subtransaction, with the shard's name where it came from one.
pub fn again(ended: Ended, set: &str, servers: &[&str]) -> Failure {
    match &ended {
        Ended::Raised(error) => match report_of(error) {
            Some(report) => told_by(report, set, servers),
            None => ended.again(),
        },
        Ended::Failed(_) => ended.again(),
    }
}

/// Whether the shard does not know what it is asked: its copymatch is older, or there is none.
pub fn is_older_or_none(code: PgSqlErrorCode, message: &str) -> bool {
    use PgSqlErrorCode as E;
    code == E::ERRCODE_UNDEFINED_FUNCTION && message.contains("shard_answer")
        || code == E::ERRCODE_INVALID_SCHEMA_NAME && message.contains("copymatch")
}

/// What a shard said, however it was asked.
pub struct RemoteError {
    /// SQLSTATE.
    pub code: PgSqlErrorCode,
    /// Its message.
    pub message: String,
    detail: String,
    hint: String,
}

impl From<&ErrorReportWithLevel> for RemoteError {
    fn from(report: &ErrorReportWithLevel) -> Self {
        RemoteError {
            code: report.sql_error_code(),
            message: report.message().to_owned(),
            detail: report.detail().unwrap_or_default().to_owned(),
            hint: report.hint().unwrap_or_default().to_owned(),
        }
    }
}

impl From<Trouble> for RemoteError {
    fn from(trouble: Trouble) -> Self {
        let code = match trouble.code.as_str() {
            "" => PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
            code => sqlstate(code).unwrap_or(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR),
        };
        let Trouble {
            message, detail, hint, ..
        } = trouble;
        RemoteError {
            code,
            message,
            detail,
            hint,
        }
    }
}

impl RemoteError {
    /// Message and detail in one line.
    pub fn line(&self) -> String {
        match self.detail.as_str() {
            "" => self.message.clone(),
            detail => format!("{}: {detail}", self.message),
        }
    }
}

/// The error for the user, with the shard's name where it is known.
pub fn shard_failure(told: &RemoteError, set: &str, servers: &[&str], named: Option<&str>) -> Failure {
    let RemoteError {
        code,
        message,
        detail,
        hint,
    } = told;
    // Those of shard_answer name it themselves.
    if message.starts_with("shard \"") {
        return Failure::new(*code, message).detail(detail).hint(hint);
    }
    let named = named.or_else(|| match servers {
        [only] => Some(*only),
        _ => servers
            .iter()
            .copied()
            .find(|server| message.contains(&format!("\"{server}\""))),
    });
    let shard = match named {
        Some(server) => format!("shard \"{server}\" of reference set \"{set}\""),
        None => format!("a shard of reference set \"{set}\""),
    };
    let look = format!(
        "SELECT * FROM copy_shard_check('{}') says more.",
        set.replace('\'', "''")
    );
    if is_older_or_none(*code, message) {
        return Failure::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("{shard} has an older copymatch than this database, or none"),
        )
        .detail(message)
        .hint(format!(
            "Install this version there, then ALTER EXTENSION copymatch UPDATE (or CREATE EXTENSION copymatch). {look}"
        ));
    }
    let detail = match (named, detail.as_str()) {
        (None, "") => format!("It is one of the servers \"{}\".", servers.join("\", \"")),
        (None, more) => format!("It is one of the servers \"{}\". {more}", servers.join("\", \"")),
        (Some(_), more) => more.to_owned(),
    };
    let hint = if hint.is_empty() { look } else { hint.clone() };
    Failure::new(*code, format!("{shard}: {message}"))
        .detail(detail)
        .hint(hint)
}

/// The WARNING that a partial answer lacks a server's rows.
pub fn warn_of_down(set: &str, server: &str, why: String) {
    Failure::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!("the answer from reference set \"{set}\" lacks what lies on server \"{server}\""),
    )
    .detail(why)
    .hint("partial => true lets a search go on without shards that do not answer.")
    .warn();
}

fn told_by(report: &ErrorReportWithLevel, set: &str, servers: &[&str]) -> Failure {
    let named = CONTEXT.with_borrow(|context| server_in(context));
    shard_failure(&RemoteError::from(report), set, servers, named.as_deref())
}

/// The server that stands in a question, as a statement shows it.
fn server_in(context: &str) -> Option<String> {
    let (_, behind) = context.split_once("\"server\": ")?;
    let mut names = serde_json::Deserializer::from_str(behind).into_iter::<String>();
    names.next()?.ok()
}
