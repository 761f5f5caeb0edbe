//! Work that may fail without taking the transaction with it, and may last only so long: each entry of the queue.

use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::PgTryBuilder;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;

use crate::failure::Failure;

/// Why guarded work did not succeed.
pub struct Trouble {
    code: PgSqlErrorCode,
    line: String,
    timed_out: bool,
}

impl Trouble {
    fn of(failure: &Failure) -> Trouble {
        Trouble {
            code: failure.code(),
            line: failure.line(),
            timed_out: false,
        }
    }

    /// PostgreSQL's own error, or that of somebody's function. Its text may hold values of rows, which whoever
    /// reads the queue may not be allowed to see: only errors about objects and resources are told in full, the
    /// others in the server's log.
    fn caught(error: &CaughtError) -> Trouble {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = error;
        let code = report.sql_error_code();
        let state = sqlstate(code);
        let may_be_told = ["42", "0A", "53", "54", "55", "57"]
            .iter()
            .any(|class| state.starts_with(class))
            && !matches!(error, CaughtError::RustPanic { .. });
        let line = if may_be_told {
            [Some(report.message()), report.hint()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" — ")
        } else {
            ErrorReport::new(
                code,
                format!("copymatch: an entry of the queue failed: {}", report.message()),
                "copymatch",
            )
            .report(PgLogLevel::LOG_SERVER_ONLY);
            format!("an error with SQLSTATE {state}, whose text is in the server's log")
        };
        Trouble {
            code,
            line,
            timed_out: false,
        }
    }

    fn timed_out(limit: i32) -> Trouble {
        Trouble {
            code: PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
            line: format!("not done within copymatch.queue_time_limit ({limit} ms)"),
            timed_out: true,
        }
    }

    /// The cause in one line.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Whether the time limit was the cause.
    pub fn is_timeout(&self) -> bool {
        self.timed_out
    }

    /// Whether the process ran out of memory, which says nothing about the entry.
    pub fn is_out_of_memory(&self) -> bool {
        self.code == PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::of(&failure)
    }
}

fn sqlstate(code: PgSqlErrorCode) -> String {
    let mut packed = code as i32;
    (0..5)
        .map(|_| {
            let character = char::from(b'0' + (packed & 0x3f) as u8);
            packed >>= 6;
            character
        })
        .collect()
}

/// Runs `work` in a subtransaction of its own, within `limit` milliseconds where one is given. Where it fails, what it
/// wrote is taken back, and the outer transaction goes on. A cancelled statement is not caught.
pub fn guarded<T>(limit: Option<i32>, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Trouble> {
    let clock = limit.map(Clock::start);
    match subtransaction(work) {
        Ok(value) => Ok(value),
        Err(error) => {
            let out_of_time = clock.as_ref().is_some_and(Clock::expired);
            drop(clock);
            match error {
                Ended::Failed(failure) if !failure.is_cancel() => Err(Trouble::of(&failure)),
                Ended::Raised(error) if !is_cancel(&error) => Err(Trouble::caught(&error)),
                _ if out_of_time => Err(Trouble::timed_out(limit.unwrap_or_default())),
                Ended::Failed(failure) => failure.raise(),
                Ended::Raised(error) => (*error).rethrow(),
            }
        }
    }
}

/// How a subtransaction ended that was rolled back.
pub enum Ended {
    Failed(Failure),
    Raised(Box<CaughtError>),
}

impl Ended {
    /// Whether the statement was cancelled, which is never swallowed.
    pub fn is_cancel(&self) -> bool {
        match self {
            Ended::Failed(failure) => failure.is_cancel(),
            Ended::Raised(error) => is_cancel(error),
        }
    }

    /// Goes on as if nothing had caught it.
    pub fn again(self) -> ! {
        match self {
            Ended::Failed(failure) => failure.raise(),
            Ended::Raised(error) => (*error).rethrow(),
        }
    }
}

fn is_cancel(error: &CaughtError) -> bool {
    matches!(error, CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)
             if report.sql_error_code() == PgSqlErrorCode::ERRCODE_QUERY_CANCELED)
}

/// Runs `work` in a subtransaction, which is kept where it succeeds and rolled back where it
/// does not, whatever the cause.
pub fn subtransaction<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Ended> {
    let mut work = Some(work);
    // SAFETY: as PL/pgSQL does for a block with an exception clause: memory context and resource owner are those of
    // before again when the subtransaction is over, either way.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        let callbacks = pg_sys::error_context_stack;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let outcome = PgTryBuilder::new(AssertUnwindSafe(|| {
            work.take().map_or_else(
                || {
                    Err(Ended::Failed(Failure::new(
                        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                        "guarded work ran twice",
                    )))
                },
                |work| work().map_err(Ended::Failed),
            )
        }))
        .catch_others(|error| Err(Ended::Raised(Box::new(error))))
        .catch_rust_panic(|error| Err(Ended::Raised(Box::new(error))))
        .execute();
        pg_sys::error_context_stack = callbacks;
        if outcome.is_ok() {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        outcome
    }
}

// Of utils/timeout.h, which pgrx does not bind; the same in PostgreSQL 14 to 18.
unsafe extern "C-unwind" {
    fn RegisterTimeout(id: std::ffi::c_int, handler: unsafe extern "C-unwind" fn()) -> std::ffi::c_int;
    fn enable_timeout_after(id: std::ffi::c_int, milliseconds: std::ffi::c_int);
    fn disable_timeout(id: std::ffi::c_int, keep_indicator: bool);
}

/// Any number that is no timeout of PostgreSQL's own asks for a free one.
const ANY_FREE: std::ffi::c_int = 1000;

static EXPIRED: AtomicBool = AtomicBool::new(false);
static TIMEOUT: OnceLock<std::ffi::c_int> = OnceLock::new();

/// A time limit on what this process does, until it is dropped: when it is over, the work is
/// cancelled as a statement is.
struct Clock(std::ffi::c_int);

impl Clock {
    fn start(milliseconds: i32) -> Clock {
        // SAFETY: timeouts are this process's own; the handler only sets flags and the latch.
        unsafe {
            let id = *TIMEOUT.get_or_init(|| RegisterTimeout(ANY_FREE, on_expired));
            EXPIRED.store(false, Ordering::SeqCst);
            enable_timeout_after(id, milliseconds);
            Clock(id)
        }
    }

    fn expired(&self) -> bool {
        EXPIRED.load(Ordering::SeqCst)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        // SAFETY: see above. A limit that ran out when the work was done already cancels nothing that comes behind.
        unsafe {
            disable_timeout(self.0, false);
            if EXPIRED.swap(false, Ordering::SeqCst) {
                pg_sys::QueryCancelPending = 0;
            }
        }
    }
}

unsafe extern "C-unwind" fn on_expired() {
    EXPIRED.store(true, Ordering::SeqCst);
    // SAFETY: flags that signal handlers set, and this process's latch, which may be set from a handler.
    unsafe {
        pg_sys::QueryCancelPending = 1;
        pg_sys::InterruptPending = 1;
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}
